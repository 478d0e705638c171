"""How ONNX says what PyTorch's recorder cannot: deformable convolution, pooling to a grid."""

from collections.abc import Sequence
from typing import Any

import torch
from torch.onnx import register_custom_op_symbolic
from torch.onnx.symbolic_helper import parse_args

FLOAT32 = 1  # Number of the type in ONNX.


def register() -> None:
    """Make both known to the recorder."""
    register_custom_op_symbolic("torchvision::deform_conv2d", _deformable_convolution, 19)
    register_custom_op_symbolic("aten::adaptive_avg_pool2d", _adaptive_average, 19)


@parse_args("v", "v", "v", "v", "v", "i", "i", "i", "i", "i", "i", "i", "i", "b")
def _deformable_convolution(  # type: ignore[no-untyped-def]
    g, x, weight, offset, mask, bias, sh, sw, ph, pw, dh, dw, groups, offset_groups, use_mask
):
    inputs = [x, weight, offset, bias, *([mask] if use_mask else [])]
    return g.op(
        "DeformConv",
        *inputs,
        dilations_i=[dh, dw],
        group_i=groups,
        offset_group_i=offset_groups,
        pads_i=[ph, pw, ph, pw],
        strides_i=[sh, sw],
    )


@parse_args("v", "is")
def _adaptive_average(g: Any, x: Any, cells: Sequence[int]) -> Any:
    """Average over cells as two matrix products, whose matrices depend on the input's size."""
    if list(cells) == [1, 1]:
        return g.op("GlobalAveragePool", x)
    rows, columns = _cell_weights(g, x, 2, cells[0]), _cell_weights(g, x, 3, cells[1])
    pooled = g.op("MatMul", g.op("MatMul", rows, x), g.op("Transpose", columns, perm_i=[1, 0]))
    sizes = x.type().sizes()
    return pooled.setType(x.type().with_sizes([*sizes[:2], *cells])) if sizes else pooled


def _cell_weights(g: Any, x: Any, axis: int, cells: int) -> Any:
    """Return (cells, side): what each position of a side counts in the mean of each cell.

    Cell i holds the positions from floor(i * side / cells) to ceil((i + 1) * side / cells) - 1.
    """

    def constant(value: Any) -> Any:
        return g.op("Constant", value_t=torch.as_tensor(value))

    side = g.op("Gather", g.op("Shape", x), constant(axis), axis_i=0)
    position = g.op("Range", constant(0), side, constant(1))
    number = torch.arange(cells)[:, None]
    first = g.op("Div", g.op("Mul", constant(number), side), constant(cells))
    end = g.op("Add", g.op("Mul", constant(number + 1), side), constant(cells - 1))
    end = g.op("Div", end, constant(cells))
    inside = g.op("And", g.op("GreaterOrEqual", position, first), g.op("Less", position, end))
    inside = g.op("Cast", inside, to_i=FLOAT32)
    return g.op("Div", inside, g.op("ReduceSum", inside, constant([1]), keepdims_i=1))
