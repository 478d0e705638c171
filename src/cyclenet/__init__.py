"""CycleNet: semantic segmentation with CycleASPP and deformable alignment (ADC).

``cyclenet.load`` returns a trained network (`cyclenet.deploy.load.load`).
"""

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cyclenet.deploy.load import load as load

__version__ = "0.2.0"

# Linux leaves it to the program whether large tensors lie in huge pages. On a CPU, operators would
# otherwise spend a good part of their time on memory that comes 4 kB at a time. PyTorch reads this
# variable at its first allocation.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


def __getattr__(name: str) -> Any:
    # PyTorch takes seconds to import: only who loads a network waits for it.
    if name == "load":
        from cyclenet.deploy.load import load

        return load
    raise AttributeError(f"module 'cyclenet' has no attribute {name!r}")
