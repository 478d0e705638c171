"""CycleNet: semantic segmentation with CycleASPP and ADC."""

import os

# Large tensors in huge pages, where Linux leaves the choice to the program: most of what an operator on CPU waits for is
# otherwise the kernel handing out fresh memory 4 kB at a time. PyTorch reads this at its first allocation.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
