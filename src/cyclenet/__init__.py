"""CycleNet: semantic segmentation with CycleASPP and deformable alignment (ADC)."""

import os

__version__ = "0.2.0"

# Linux leaves it to the program whether large tensors lie in huge pages. On a CPU, operators would
# otherwise spend a good part of their time on memory that comes 4 kB at a time. PyTorch reads this
# variable at its first allocation.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
