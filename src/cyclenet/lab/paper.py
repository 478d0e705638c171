"""The paper's numbers, to be printed beside ours."""

from typing import NamedTuple

from cyclenet.config import ModelConfig, scale_rates


class Row(NamedTuple):
    """A row of Table 1 or 2 (Cityscapes val, ResNet-101): an arm, its mIoU in percent, and GFLOPs where the paper has them."""

    context: str
    rates: tuple[int, ...]
    decoder: str
    protocol: str
    miou: float
    gflops: float | None


TABLE1 = (
    Row("aspp", (6, 12, 18), "none", "whole", 78.18, None),
    Row("denseaspp", (3, 6, 12, 18, 24), "none", "whole", 78.45, 539.1),
    Row("denseaspp", (3, 6, 12, 18, 24, 30), "none", "whole", 78.57, 555.5),
    Row("cycleaspp", (6, 12, 18, 24), "none", "whole", 78.54, 530.8),
    Row("cycleaspp", (3, 6, 12, 18, 24), "none", "whole", 78.93, 551.5),
    Row("cycleaspp", (3, 6, 12, 18, 24, 30), "none", "whole", 78.95, 574.0),
)
TABLE2 = (
    Row("none", (), "none", "whole", 76.25, None),
    TABLE1[-1],
    Row("cycleaspp", (3, 6, 12, 18, 24, 30), "adc", "whole", 80.55, None),
    Row("cycleaspp", (3, 6, 12, 18, 24, 30), "adc", "paper_ms", 81.26, None),
)
"""The paper evaluates at a single scale without saying how; `whole` stands for it."""


def name_of(context: str, rates: list[int], feedback: int = 1) -> str:
    """Name a context module as Table 1 does; k is told where it is not the paper's 1."""
    names = {"none": "Baseline", "aspp": "ASPP", "denseaspp": "DenseASPP", "cycleaspp": "CycleASPP"}
    passes = f" k={feedback}" if context == "cycleaspp" and feedback != 1 else ""
    return names[context] + (f"({','.join(map(str, rates))})" if context != "none" else "") + passes


def describe(model: ModelConfig) -> str:
    """Name an arm by what it is made of, for instance "CycleASPP(3,6,12) + ADC"."""
    decoder = {"none": "", "skip": " + skip", "adc": " + ADC"}[model.decoder]
    if model.decoder == "adc" and model.mask_scale == 0:
        decoder += " without modulation"
    return name_of(model.context, model.atrous_rates, model.feedback) + decoder


def tell_apart(models: list[ModelConfig]) -> list[str]:
    """Name models as `describe` does, with their number where two are made of the same."""
    names = [describe(model) for model in models]
    return [name if names.count(name) == 1 else f"{name}, checkpoint {number}" for number, name in enumerate(names, 1)]


def find(model: ModelConfig, protocol: str) -> Row | None:
    """Return the paper's row of an arm, whatever its backbone, stride and widths; None if it has none.

    Rates are compared by their reach in the image. Sliding windows pass for the paper's single scale as the whole image does. A
    row's GFLOPs are for the paper's backbone and widths (`is_papers`) at 769 x 769.
    """
    open_points = {"share_norm": False, "first_block_dilation": "previous", "mask_scale": 1.0, "offset_groups": 1}
    if any(getattr(model, key) != value for key, value in open_points.items()):
        return None
    protocol = "whole" if protocol == "sliding" else protocol
    context = "denseaspp" if model.context == "cycleaspp" and model.feedback == 0 else model.context
    if context == "cycleaspp" and model.feedback != 1:
        return None
    for row in (*TABLE1, *TABLE2):
        same = (row.context, row.decoder, row.protocol) == (context, model.decoder, protocol)
        if same and (context == "none" or scale_rates(list(row.rates), model.output_stride) == list(model.atrous_rates)):
            return row
    return None


def is_papers(model: ModelConfig) -> bool:
    """Tell whether backbone and widths are those that Table 1's GFLOPs are of."""
    keys = ("backbone", "output_stride", "reduce_channels", "bottleneck_channels", "growth_channels", "head_channels")
    paper = ModelConfig()
    return all(getattr(model, key) == getattr(paper, key) for key in keys)
