"""Write a trained network as one file that runs without this project, and prove that it does."""

import json
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from cyclenet.config.commands import ExportConfig
from cyclenet.config.restore import PLACES
from cyclenet.config.schema import TrainConfig
from cyclenet.deploy.load import open_session, read_weights, rebuild
from cyclenet.deploy.onnx_operators import register
from cyclenet.files import atomic_write
from cyclenet.models.cyclenet import CycleNet
from cyclenet.models.deform import standard_operators
from cyclenet.models.stored import LAYOUT, Checkpoint, stored, stored_weights

OPSET = 20  # ONNX has a deformable convolution since opset 19.

TRACED = (2, 240, 496)  # Images, height, width of the input that the graph is recorded with.

CHECKED = ((1, 241, 497), (3, 360, 480), (1, 512, 1024), (1, 7, 50))
"""Inputs that an exported file is compared on."""

MOST_RELATIVE = 1e-3  # Largest difference that passes, as a share of the largest logit.

TIE = 1e-4  # Logits so close to each other, of the largest, may give either label.

TIE_FROZEN = 1e-3
"""The same behind a frozen backbone, whose features are rounded to bfloat16: one may be rounded up
by one runtime and down by the other."""


class Deployed(nn.Module):
    """A network from pixels to pixels: it normalises, pads, and resizes to the image.

    Takes images (N, 3, H, W) float32, RGB in 0..255. Sizes stay symbols in a recorded graph.

    Args:
        net: the network.
        gives: ``logits`` or ``probabilities`` (N, C, H, W), or ``labels`` (N, H, W) int64.
    """

    def __init__(self, net: CycleNet, gives: str) -> None:
        super().__init__()
        self.net, self.gives = net, gives
        self.eval()  # The exporter restores the mode that it finds, in all modules.

    def forward(self, image: Tensor) -> Tensor:
        grid, (height, width) = self.net.grid, image.shape[-2:]
        size = grid.padded((height, width))
        below, right = size[0] - height, size[1] - width
        padded = F.pad((image - self.net.mean) / self.net.std, (0, right, 0, below))
        logits, _ = self.net.segment(self.net.encode(padded))
        wide = F.interpolate(logits, size, mode="bilinear", align_corners=grid.align_corners)
        if torch.compiler.is_exporting():
            # A slice would make it prove that the image is no larger than the padded one.
            wide = F.pad(wide, (0, -right, 0, -below))
        else:
            wide = wide[..., :height, :width]
        if self.gives == "labels":
            return wide.argmax(1)
        return wide.softmax(1) if self.gives == "probabilities" else wide


def export(cfg: ExportConfig) -> list[str]:
    """Write ``cfg.output``; return sentences that say what was written and how it was checked.

    Raises:
        ValueError: the network cannot be exported, or the file does not give the same. No file is
            left then.
    """
    _, checkpoint = read_weights(cfg.ckpt_path)
    if cfg.format == "safetensors":
        write_weights(checkpoint, Path(cfg.output))
        return [f"{cfg.output}: weights, configuration and classes. cyclenet.load reads it."]
    trained, classes, _ = stored(checkpoint)
    net = rebuild(checkpoint)
    if any(net.least):
        raise ValueError(
            f"model.context={trained.model.context} is built for crops of one size, and cannot be "
            "exported for others."
        )
    metadata = describe(checkpoint) | {"output": cfg.gives}
    sampling = standard_operators() if cfg.deformable == "grid_sample" else nullcontext()
    with atomic_write(Path(cfg.output)) as part, sampling:
        if cfg.format == "torch_export":
            write_program(net, cfg.gives, part, metadata)
            what, runtime = "torch.export", f"PyTorch {torch.__version__}"
            run = open_program(part)
        else:
            write_onnx(net, cfg.gives, part, metadata)
            what, runtime = f"ONNX opset {OPSET}", f"onnxruntime {_runtime_version()}"
            run = open_graph(part)
        # A recorded program takes images of two strides and more.
        least = 2 * net.grid.stride if cfg.format == "torch_export" else 1
        checked = [each for each in CHECKED if min(each[1:]) >= least]
        worst, ties = compare(net, cfg.gives, run, checked)
    labels = f"{ties} labels differ, all of them ties" if ties else "no label differs"
    sizes = ", ".join(f"{n} x {height} x {width}" for n, height, width in checked)
    return [
        f"{cfg.output}: {what}, {len(classes)} classes, gives {cfg.gives}.",
        f"In {runtime} it gives what the checkpoint gives on images of {sizes}: largest difference "
        f"{worst:.1e} of the largest value, {labels}.",
    ]


def describe(checkpoint: Checkpoint) -> dict[str, str]:
    """Return the metadata of an exported file: what rebuilds and explains the network."""
    cfg, classes, palette = stored(checkpoint)
    network = {"cfg": without_places(cfg), "classes": classes, "palette": palette}
    hyper: dict[str, Any] = network | {"layout": LAYOUT}
    return {
        "cyclenet": json.dumps(hyper),
        "classes": json.dumps(classes),
        "palette": json.dumps(palette),
        "input": "image: float32 (N, 3, H, W), RGB in 0..255",
        "protocol": cfg.protocol.describe(),
        "stride": str(cfg.model.output_stride),
        "license": "the training data's and the pretrained backbone's terms apply to the weights",
    }


def without_places(cfg: TrainConfig) -> dict[str, Any]:
    """Return a configuration as plain values that name no folder of the machine it ran on."""
    values = asdict(cfg)
    for key in PLACES:
        values["dataset"].pop(key)
    for key in ("init_from", "ckpt_path"):
        values.pop(key)
    return values


def write_weights(checkpoint: Checkpoint, path: Path) -> None:
    """Write weights, configuration and classes as one ``.safetensors`` file."""
    weights = {name: value.contiguous() for name, value in stored_weights(checkpoint).items()}
    with atomic_write(path) as part:
        save_file(weights, part, {"cyclenet": describe(checkpoint)["cyclenet"]})


def write_onnx(net: CycleNet, gives: str, path: Path, metadata: dict[str, str]) -> None:
    """Record the network's graph, with images of any number and size.

    Raises:
        ValueError: an operation of it has no counterpart in ONNX.
    """
    try:
        import onnx
    except ImportError as error:
        raise ValueError("ONNX is not installed: pip install 'cyclenet[onnx]'.") from error
    register()
    dynamic = {0: "batch", 2: "height", 3: "width"}
    axes = {0: "batch", 1: "height", 2: "width"} if gives == "labels" else dynamic
    example = torch.zeros(TRACED[0], 3, *TRACED[1:])
    with warnings.catch_warnings():
        # The recorder warns of every size that Python reads, and that it will be replaced by one
        # whose reasoning about sizes takes minutes for a dilated backbone (PyTorch 2.14).
        warnings.simplefilter("ignore")
        try:
            torch.onnx.export(
                Deployed(net, gives),
                (example,),
                str(path),
                dynamo=False,
                opset_version=OPSET,
                input_names=["image"],
                output_names=[gives],
                dynamic_axes={"image": dynamic, gives: axes},
            )
        except Exception as error:  # The exporter's errors have no common class.
            reason = " ".join(str(error).split())[:200]
            raise ValueError(f"This network has no counterpart in ONNX ({reason}).") from error
    model = onnx.load(str(path))
    onnx.helper.set_model_props(model, metadata)
    onnx.save(model, str(path))


def write_program(net: CycleNet, gives: str, path: Path, metadata: dict[str, str]) -> None:
    """Record the network's graph for ``torch.export.load``, with images of any number and size.

    An image has two features a side at least.

    Raises:
        ValueError: an operation of it cannot be recorded.
    """
    number, least = torch.export.Dim("batch", min=1, max=4096), 2 * net.grid.stride
    height, width = (torch.export.Dim(name, min=least, max=2**14) for name in ("height", "width"))
    try:
        with patch("timm.layers.padding.get_same_padding", _same_padding):
            program = torch.export.export(
                Deployed(net, gives),
                (torch.zeros(TRACED[0], 3, *TRACED[1:]),),
                dynamic_shapes=({0: number, 2: height, 3: width},),
                # What it cannot prove of all sizes, the program checks when it runs.
                prefer_deferred_runtime_asserts_over_guards=True,
            )
    except Exception as error:  # The exporter's errors have no common class.
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"This network cannot be exported by torch.export ({reason}).") from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # It warns of weights that share their memory.
        torch.export.save(program, path, extra_files={f"{k}.txt": v for k, v in metadata.items()})


def _same_padding(side: int, kernel: int, stride: int, dilation: int) -> int:
    """Return what timm's ``get_same_padding`` does, without the ceiling of a fraction.

    From whole divisions, `torch.export` sees that the padding is the same for all sizes of the
    grid; timm's ceiling of a fraction would take it minutes.
    """
    reach = (kernel - 1) * dilation + 1
    return max(((side + stride - 1) // stride - 1) * stride + reach - side, 0)


def open_program(path: Path) -> Callable[[Tensor], np.ndarray]:
    """Return what runs a file of `write_program`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # It warns of weights that share their memory.
        module = torch.export.load(path).module()
    return lambda image: module(image).detach().numpy()


def open_graph(path: Path) -> Callable[[Tensor], np.ndarray]:
    """Return what runs an ONNX file."""
    session = open_session(path)

    def run(image: Tensor) -> np.ndarray:
        (found,) = session.run(None, {"image": image.numpy()})
        return found

    return run


def compare(
    net: CycleNet,
    gives: str,
    run: Callable[[Tensor], np.ndarray],
    sizes: Sequence[tuple[int, int, int]],
) -> tuple[float, int]:
    """Run an exported file beside PyTorch on images (N, H, W) of several sizes.

    Returns:
        The largest difference, of the largest value, and the number of labels that differ.

    Raises:
        ValueError: a value or a label differs by more than rounding.
    """
    generator = torch.Generator().manual_seed(0)
    worst, ties = 0.0, 0
    for count, height, width in sizes:
        # Coarse colours, so that labels form regions; noise gives a tie at every pixel.
        coarse = torch.randint(0, 256, (count, 3, 8, 12), generator=generator).float()
        image = F.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 255)
        with torch.inference_mode():
            scores = Deployed(net, "logits")(image)
        try:
            found = run(image)
        except Exception as error:  # onnxruntime's errors have no common class.
            reason = " ".join(str(error).split())[:200]
            raise ValueError(
                f"The exported network does not run on {count} images of {height} x {width}, so it "
                f"cannot be exported ({reason})."
            ) from error
        if gives == "labels":
            labels = found
        else:
            wanted = (scores.softmax(1) if gives == "probabilities" else scores).numpy()
            difference = float(np.abs(found - wanted).max() / np.abs(wanted).max())
            worst, labels = float(np.maximum(worst, difference)), found.argmax(1)
        best = scores.topk(2, dim=1).values
        near = TIE_FROZEN if net.frozen else TIE
        tie = ((best[:, 0] - best[:, 1]) <= near * scores.abs().max()).numpy()
        differ = scores.argmax(1).numpy() != labels
        ties += int(differ.sum())
        if not worst <= MOST_RELATIVE or (differ & ~tie).any():  # NaN is no difference that passes.
            raise ValueError(
                f"The exported network does not give what PyTorch gives on {count} images of "
                f"{height} x {width} (largest difference {worst:.1e} of the largest value, "
                f"{int((differ & ~tie).sum())} labels): it cannot be exported."
            )
    return worst, ties


def _runtime_version() -> str:
    import onnxruntime

    return onnxruntime.__version__
