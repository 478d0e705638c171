"""CycleNet: semantic segmentation with CycleASPP and Alignment with Deformable Convolution (ADC)."""

__version__ = "0.1.0"
