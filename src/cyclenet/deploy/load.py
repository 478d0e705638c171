"""`cyclenet.load`: a trained network from a run, a checkpoint, an exported file, or a hub."""

import json
import re
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from cyclenet.config.require import require_choice
from cyclenet.config.schema import PREDICTION_PRECISIONS, ProtocolConfig
from cyclenet.deploy.model import Model, OnnxNetwork
from cyclenet.devices import choose_device
from cyclenet.models.cyclenet import CycleNet, build_model
from cyclenet.models.stored import Checkpoint, load_checkpoint, stored, stored_weights

WEIGHTS = "model.safetensors"  # Name of the weights in a folder that is shared.

EXPORTED = (".onnx", ".pt2", ".safetensors")


def load(
    source: str | Path,
    *,
    device: str = "auto",
    precision: str = "32-true",
    protocol: ProtocolConfig | str | None = None,
) -> Model:
    """Load a trained network. Nothing in the file is executed.

    Args:
        source: a run folder (its last checkpoint), a ``.ckpt``, an exported ``.onnx`` or
            ``.safetensors``, a folder that ``push`` wrote, or ``user/name`` of a repository of the
            Hugging Face hub that holds such a folder.
        device: ``auto``, ``cpu`` or ``gpu``.
        precision: ``32-true``, or ``bf16-mixed``.
        protocol: a preset's name or a rule; None takes the one of the training's validation.

    Raises:
        ValueError: there is no such network, or the file is damaged or none of this project.
    """
    require_choice("precision", precision, PREDICTION_PRECISIONS)
    path, where = find(source, hub=True), choose_device(device)
    if path.suffix == ".onnx":
        if precision != "32-true" or device == "gpu":
            raise ValueError(
                f"{path} computes in float32 on the CPU: leave precision=32-true and the device."
            )
        return _load_onnx(path, protocol)
    checkpoint = read_checkpoint(path)
    net = rebuild(checkpoint).to(where)
    model = Model(net, *stored(checkpoint), where, precision, protocol)
    data = checkpoint.get("SegmentationData", {})
    if "root" in data:
        model.train_images = (data["meaning"]["train_names"], data["root"])
    return model


def rebuild(checkpoint: Checkpoint) -> CycleNet:
    """Rebuild the network of a checkpoint, on the CPU, in evaluation mode.

    The configuration comes with the file and may ask for a network of any size, so shapes are
    compared on the meta device before memory is taken.

    Raises:
        ValueError: its weights do not fit its configuration.
    """
    (cfg, classes, _), weights = stored(checkpoint), stored_weights(checkpoint)
    build = partial(build_model, cfg.model, len(classes), cfg.dataset.crop_size)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        try:
            with torch.device("meta"):
                wanted = {key: value.shape for key, value in build().state_dict().items()}
            if wanted != {key: value.shape for key, value in weights.items()}:
                raise RuntimeError("names or shapes differ")
            net = build()
            net.load_state_dict(weights)
        except RuntimeError as error:
            raise ValueError(
                "The checkpoint's weights do not fit this version of the model; use the version it "
                "was made by."
            ) from error
    return net.eval().requires_grad_(False)


def find(source: str | Path, hub: bool = False) -> Path:
    """Return the file that holds a network; with ``hub``, ``user/name`` may be one of the hub's.

    Raises:
        ValueError: there is none.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        for inner in (path / "checkpoints/last.ckpt", path / WEIGHTS):
            if inner.is_file():
                return inner
        raise ValueError(f"{path} holds no checkpoints/last.ckpt and no {WEIGHTS}.")
    if path.is_file():
        return path
    named = re.fullmatch(r"[\w.-]+/[\w.-]+", str(source)) is not None
    if hub and named and not path.parent.is_dir() and path.suffix not in (".ckpt", *EXPORTED):
        return _download(str(source))
    raise ValueError(
        f"There is no checkpoint {path}: give a run folder, the .ckpt file in a run's checkpoints "
        "folder, or an exported file."
    )


def run_of(path: str | Path) -> Path:
    """Return the run folder of a checkpoint, or the folder it lies in."""
    path = Path(path).resolve()
    return path.parents[1] if path.parent.name == "checkpoints" else path.parent


def _download(repo: str) -> Path:
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(repo, WEIGHTS))
    except Exception as error:  # The hub's errors have no common class.
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"There is no file {repo}, and the hub gave none ({reason}).") from error


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint, or what an export wrote, as the same kind of content.

    An ONNX file gives no weights.

    Raises:
        ValueError: it is damaged, or was not made by this project.
    """
    if path.suffix == ".onnx":
        return {"hyper_parameters": _hyper(_metadata_of_onnx(path), path), "state_dict": {}}
    if path.suffix == ".pt2":
        raise ValueError(
            f"{path} is run by torch.export.load (docs/python.md): give the checkpoint that it was "
            "made from."
        )
    if path.suffix != ".safetensors":
        return load_checkpoint(path)
    try:
        with safe_open(path, "pt") as file:
            hyper = _hyper(file.metadata() or {}, path)
            names = list(file.keys())
            weights = {f"net.{name}": file.get_tensor(name) for name in names}
    except SafetensorError as error:
        raise ValueError(f"{path} is not a whole file of weights ({error}).") from error
    return {
        "hyper_parameters": hyper,
        "state_dict": weights,
        "run": {"layout": hyper.get("layout", 2)},
    }


def find_weights(source: str | Path, hub: bool = False) -> Path:
    """Find a network whose weights are wanted. Raises `ValueError` as `find`, or for ONNX files."""
    path = find(source, hub)
    if path.suffix == ".onnx":
        raise ValueError(f"{path} gives no weights: give the checkpoint that it was made from.")
    return path


def read_weights(source: str | Path, hub: bool = False) -> tuple[Path, Checkpoint]:
    """Find and read a network; return its file and what it holds.

    Raises:
        ValueError: as `find_weights` and `read_checkpoint`.
    """
    path = find_weights(source, hub)
    return path, read_checkpoint(path)


def _hyper(metadata: dict[str, str], path: Path) -> dict[str, Any]:
    try:
        hyper = json.loads(metadata["cyclenet"])
        if not isinstance(hyper["cfg"]["model"], dict):
            raise ValueError
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} was not exported by this project.") from error
    return hyper


def open_session(path: Path) -> Any:
    """Open an ONNX file in onnxruntime. Raises `ValueError` where that cannot be done."""
    try:
        import onnxruntime
    except ImportError as error:
        raise ValueError("onnxruntime is not installed: pip install onnxruntime.") from error
    try:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors have no common class.
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{path} cannot be run ({reason}).") from error


def _metadata_of_onnx(path: Path) -> dict[str, str]:
    return open_session(path).get_modelmeta().custom_metadata_map


def _load_onnx(path: Path, protocol: ProtocolConfig | str | None) -> Model:
    session = open_session(path)
    metadata = session.get_modelmeta().custom_metadata_map
    cfg, classes, palette = stored({"hyper_parameters": _hyper(metadata, path), "state_dict": {}})
    if metadata.get("output") != "logits":
        raise ValueError(
            f"{path} gives {metadata.get('output')}: export it with gives=logits, so that views "
            "can be averaged."
        )

    return Model(
        OnnxNetwork(session, cfg.model.align_corners), cfg, classes, palette, protocol=protocol
    )
