"""The network, from the backbone to the classifier."""

from cyclenet.models.cyclenet import CycleNet, build_model

__all__ = ["CycleNet", "build_model"]
