"""CycleNet: semantic segmentation with CycleASPP and Alignment with Deformable Convolution (ADC)."""

import os

__version__ = "0.1.0"

# Large tensors in huge pages, where Linux leaves the choice to the program: on a CPU, operators otherwise spend a good part of
# their time on memory that the kernel hands out 4 kB at a time. PyTorch reads this at its first allocation.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
