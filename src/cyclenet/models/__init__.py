"""The network, from the backbone to the classifier; its two parts of the paper by their names."""

from cyclenet.models.contexts.cycleaspp import CycleASPP
from cyclenet.models.decoders.adc import ADC

__all__ = ["ADC", "CycleASPP"]
