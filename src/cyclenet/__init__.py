"""CycleNet: semantic segmentation with CycleASPP and deformable alignment (ADC).

``cyclenet.load`` returns a trained network (`cyclenet.deploy.load.load`).
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cyclenet.deploy.load import load as load

__version__ = "0.2.0"


def __getattr__(name: str) -> Any:
    # PyTorch takes seconds to import: only who loads a network waits for it.
    if name == "load":
        from cyclenet.deploy.load import load

        return load
    raise AttributeError(f"module 'cyclenet' has no attribute {name!r}")
