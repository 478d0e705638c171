"""The paper's numbers, to be printed beside ours."""

from typing import NamedTuple

from cyclenet.config.load import scale_rates
from cyclenet.config.model import ModelConfig


class PaperRow(NamedTuple):
    """A row of Table 1 or 2 (Cityscapes val, ResNet-101).

    It has an arm, its mIoU in percent, and GFLOPs where the paper has them.
    """

    context: str
    rates: tuple[int, ...]
    decoder: str
    protocol: str
    miou: float
    gflops: float | None


# The paper evaluates at a single scale without saying how; `whole` stands for it.
TABLE1 = (
    PaperRow("aspp", (6, 12, 18), "none", "whole", 78.18, None),
    PaperRow("denseaspp", (3, 6, 12, 18, 24), "none", "whole", 78.45, 539.1),
    PaperRow("denseaspp", (3, 6, 12, 18, 24, 30), "none", "whole", 78.57, 555.5),
    PaperRow("cycleaspp", (6, 12, 18, 24), "none", "whole", 78.54, 530.8),
    PaperRow("cycleaspp", (3, 6, 12, 18, 24), "none", "whole", 78.93, 551.5),
    PaperRow("cycleaspp", (3, 6, 12, 18, 24, 30), "none", "whole", 78.95, 574.0),
)
TABLE2 = (
    PaperRow("none", (), "none", "whole", 76.25, None),
    TABLE1[-1],
    PaperRow("cycleaspp", (3, 6, 12, 18, 24, 30), "adc", "whole", 80.55, None),
    PaperRow("cycleaspp", (3, 6, 12, 18, 24, 30), "adc", "paper_ms", 81.26, None),
)

OPEN_POINTS = {
    "share_norm": False,
    "share_projections": False,
    "first_block_dilation": "previous",
    "mask_scale": 1.0,
    "offset_groups": 1,
}
"""What the paper leaves open. A model with another value is not one of its rows."""

COSTED = (
    "backbone",
    "output_stride",
    "reduce_channels",
    "bottleneck_channels",
    "growth_channels",
    "head_channels",
)
"""What Table 1's GFLOPs depend on beside the arm."""


def find_row(model: ModelConfig, protocol: str) -> PaperRow | None:
    """Return the paper's row of an arm, whatever its backbone, stride and widths.

    Rates are compared by their reach in the image. Sliding windows pass for the paper's single
    scale as the whole image does. A row's GFLOPs are for the paper's backbone and widths
    (`has_papers_costs`) at 769 x 769.

    Returns:
        None where the paper has no such row.
    """
    if any(getattr(model, key) != value for key, value in OPEN_POINTS.items()):
        return None
    protocol = "whole" if protocol == "sliding" else protocol
    context = model.context
    if context == "cycleaspp" and model.feedback == 0:
        context = "denseaspp"
    if context == "cycleaspp" and model.feedback != 1:
        return None
    for row in (*TABLE1, *TABLE2):
        same = (row.context, row.decoder, row.protocol) == (context, model.decoder, protocol)
        rates = scale_rates(list(row.rates), model.output_stride)
        if same and (context == "none" or rates == list(model.atrous_rates)):
            return row
    return None


def has_papers_costs(model: ModelConfig) -> bool:
    """Tell whether backbone and widths are those of Table 1's GFLOPs."""
    paper = ModelConfig()
    return all(getattr(model, key) == getattr(paper, key) for key in COSTED)
