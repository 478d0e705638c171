"""The configuration schema: every key, with its meaning, unit, range and source.

The comment above a field is its explanation; ``--help`` prints it. The YAML files in ``conf/`` hold
only what differs from these defaults. Nothing heavy is imported, so that a typo is refused at once.
A bad value raises `ValueError` with one sentence that names the key.
"""

from dataclasses import dataclass, field, fields
from typing import Any

from cyclenet.config.choices import DATASETS, FOLDER_KEYS
from cyclenet.config.model import ModelConfig
from cyclenet.config.require import (
    require,
    require_above,
    require_at_most,
    require_choice,
    require_few,
    require_folder_name,
)

PREDICTION_PRECISIONS = ("32-true", "bf16-mixed")
TRAINING_PRECISIONS = ("auto", "32-true", "bf16-mixed", "16-mixed", "64-true")
FIGURES = (
    "figure4",
    "similarity",
    "gradcam",
    "offsets",
    "receptive_field",
    "probabilities",
    "feedback",
    "figure3",
)


def _require_fold(name: str, fold: int | None) -> None:
    if fold is not None:
        able = [key for key, choice in DATASETS.items() if choice.folds]
        require(name in able, f"dataset.fold is for {' and '.join(able)}, not for {name}.")
        require(0 <= fold < 1000, f"dataset.fold must be 0 or more; got {fold}.")


def _require_folder_keys(cfg: "DatasetConfig") -> None:
    usual = {each.name: each for each in fields(DatasetConfig) if each.name in FOLDER_KEYS}
    for key, each in usual.items():
        default = [] if key == "ids" else each.default
        require(
            cfg.name == "folder" or getattr(cfg, key) == default,
            f"dataset.{key} is for dataset=folder, not for {cfg.name}.",
        )
    require(0 <= cfg.val_share < 1, f"dataset.val_share must be in [0, 1); got {cfg.val_share}.")
    require(
        0 <= cfg.ignore_id <= 65535,
        f"dataset.ignore_id must be between 0 and 65535; got {cfg.ignore_id}.",
    )
    require(
        not (cfg.ids and cfg.reduce_zero_label),
        "dataset.ids says what 0 means, and dataset.reduce_zero_label too: give one of them.",
    )


@dataclass
class DatasetConfig:
    """Images, masks and the paper's augmentation (section 4.1)."""

    # Data set: cityscapes, ade20k, camvid, folder (your own), or scenes (drawn, no download).
    name: str = "scenes"
    # Folder of the data. Where it is not set, $CITYSCAPES_ROOT, $ADE20K_ROOT, $CAMVID_ROOT or
    # $FOLDER_ROOT counts, then data/<name>.
    root: str | None = None
    # Cache of the training split's decoded pixels (Cityscapes: 25 GB). `auto` writes it on first
    # use where it leaves as much room again, `always` insists, `never` neither makes nor uses it.
    cache: str = "auto"
    # Folder of the caches. Where it is not set, $CYCLENET_CACHE counts, then data/cache. A local
    # SSD is best.
    cache_root: str | None = None
    # Fetch ADE20K (0.9 GB) or CamVid (0.2 GB) into the root where it is missing.
    download: bool = False
    # Name of the split that is trained on, or several as [train,val]. Cityscapes' train_extra has
    # the coarse masks.
    train_split: Any = "train"
    # Name of the split that is validated on; null validates and evaluates nothing.
    val_split: str | None = "val"
    # Cross-validation: train on all folds but this one, and validate on it. CamVid has 0 to 4, by
    # drive; `folder` has those of its folds.csv. null takes the splits.
    fold: int | None = None
    # folder: folder of the images in the root. The split's folder follows, or stands in it as
    # {split}, such as {split}/images.
    images: str = "images"
    # folder: folder of the masks in the root, likewise.
    masks: str = "masks"
    # folder: end of an image's name before its ending that its mask has not, such as _img.
    image_suffix: str = ""
    # folder: end of a mask's name before its ending that its image has not, such as _mask.
    mask_suffix: str = ""
    # folder: file of the class names, in the root or anywhere; a line may have a colour (R G B).
    classes: str = "classes.txt"
    # folder: what the numbers of masks mean, as [0:ignore,7:road,8:road]. It replaces the file of
    # the class names.
    ids: list[str] = field(default_factory=list)
    # folder: number of the pixels that do not count.
    ignore_id: int = 255
    # folder: whether 0 does not count, and the classes begin with 1.
    reduce_zero_label: bool = False
    # folder: share of the images that are validated on where there is neither a folder nor a list
    # of the split. Whole subfolders are held out, the same ones every time.
    val_share: float = 0.0
    # Use only the first N training images, for trials; 0 uses all.
    train_limit: int = 0
    # Use only the first N validation images, for trials; 0 uses all.
    val_limit: int = 0
    # Scenes: seed of the data set, not of the run.
    scenes_seed: int = 0
    # Scenes: number of training images.
    scenes_train: int = 1000
    # Scenes: number of validation images.
    scenes_val: int = 100
    # Scenes: height and width of an image, pixels; at most 1024 x 2048.
    scenes_size: list[int] = field(default_factory=lambda: [256, 512])
    # Height and width of a training crop, pixels. The paper prints "796796"; Table 1 and the prior
    # work say 769 x 769.
    crop_size: list[int] = field(default_factory=lambda: [256, 256])
    # Images in one step over all processes, so that results do not depend on their number.
    batch_size: int = 8
    # Lowest and highest random scaling factor of the image's own size, drawn uniformly.
    scale: list[float] = field(default_factory=lambda: [0.75, 2.0])
    # Probability of a horizontal flip.
    flip: float = 0.5
    # Random brightness, contrast and saturation, by factors in 1 - x to 1 + x, and hue by a fourth
    # of x; 0 for none.
    color_jitter: float = 0.0
    # Boundary IoU: reach of a boundary as a share of the image's diagonal. Cheng et al. have 0.02,
    # their Cityscapes code 0.005.
    boundary_ratio: float = 0.02
    # RGB that fills a crop beyond a small image (ImageNet's mean, as in semseg). Its mask is 255.
    pad_value: list[int] = field(default_factory=lambda: [124, 116, 104])
    # With a frozen backbone: scales of whole images whose features the crops are windows of. They
    # replace `scale`. [] crops images as usual.
    views: list[float] = field(default_factory=list)
    # Whether a frozen backbone's features of the views are written once to the folder of the caches
    # and read from there.
    cache_features: bool = False

    def __post_init__(self) -> None:
        require_choice("dataset.name", self.name, DATASETS)
        require_choice("dataset.cache", self.cache, ("auto", "always", "never"))
        for key in ("crop_size", "scenes_size"):
            size = list(getattr(self, key))
            require(
                len(size) == 2 and min(size) >= 32,
                f"dataset.{key} must be [height, width], each at least 32; got {size}.",
            )
        height, width = self.scenes_size
        require(
            height <= 1024 and width <= 2048,
            f"dataset.scenes_size must be at most [1024, 2048]; got {self.scenes_size}.",
        )
        scale = list(self.scale)
        require(
            len(scale) == 2 and 0 < scale[0] <= scale[1],
            f"dataset.scale must be [low, high] with 0 < low <= high; got {scale}.",
        )
        require(
            0 < self.boundary_ratio < 1,
            f"dataset.boundary_ratio must be between 0 and 1; got {self.boundary_ratio}.",
        )
        require(
            0 <= self.color_jitter < 1,
            f"dataset.color_jitter must be in [0, 1); got {self.color_jitter}.",
        )
        require(
            not (self.views and self.color_jitter),
            "dataset.color_jitter would change images whose features are views: set it to 0.",
        )
        require(0 <= self.flip <= 1, f"dataset.flip must be in [0, 1]; got {self.flip}.")
        require(
            len(self.pad_value) == 3 and all(0 <= v <= 255 for v in self.pad_value),
            f"dataset.pad_value must be three integers in 0..255; got {list(self.pad_value)}.",
        )
        require_above(self, "dataset", ("batch_size", "scenes_train", "scenes_val"), 1)
        limits = {"crop_size": 16384, "batch_size": 65536, "scale": 16}
        limits |= {"scenes_train": 10_000_000, "scenes_val": 10_000_000, "scenes_seed": 2**32 - 1}
        require_at_most(self, "dataset", limits)
        require_few("dataset.views", self.views, 8)
        require(
            all(0 < view <= 16 for view in self.views),
            f"dataset.views must be scales between 0 and 16; got {list(self.views)}.",
        )
        require(
            not self.cache_features or len(self.views) > 0,
            "dataset.cache_features=true needs dataset.views, the scales that features are kept "
            "of: for instance [1,1.5].",
        )
        _require_fold(self.name, self.fold)
        _require_folder_keys(self)
        if not isinstance(self.train_split, str):
            self.train_split = list(self.train_split or [""])
        names = [self.train_split] if isinstance(self.train_split, str) else self.train_split
        for name in names:
            require_folder_name("dataset.train_split", name)
        require(len(set(names)) == len(names), "dataset.train_split names a split twice.")
        if self.val_split is not None:
            require_folder_name("dataset.val_split", self.val_split)
        for key in ("train_limit", "val_limit"):
            value = getattr(self, key)
            require(value >= 0, f"dataset.{key} must be 0 (all) or more; got {value}.")

    @property
    def training_split(self) -> str:
        """The split that is trained on; with a fold, all the others."""
        if self.fold is not None:
            return f"not-fold{self.fold}"
        several = not isinstance(self.train_split, str)
        return "+".join(self.train_split) if several else str(self.train_split)

    @property
    def validation_split(self) -> str | None:
        """The split that is validated on, if any; with a fold, that one."""
        return self.val_split if self.fold is None else f"fold{self.fold}"

    def split_or_usual(self, wanted: str | None) -> str:
        """Return a split that was asked for, else the one that is validated on.

        Raises:
            ValueError: there is none.
        """
        split = wanted or self.validation_split
        if split is None:
            raise ValueError("dataset.val_split is null: give the split to look at (split=NAME).")
        return split


@dataclass
class OptimConfig:
    """SGD and the poly schedule, which is stepped every iteration (section 4.1; CCNet, semseg).

    Beside the paper's there are AdamW, a cosine and averaged weights (conf/recipe/modern.yaml).
    """

    # Optimizer: sgd (the paper) or adamw.
    optimizer: str = "sgd"
    # Learning rate of the backbone at the start.
    lr: float = 1e-2
    # Momentum of SGD.
    momentum: float = 0.9
    # Weight decay (L2).
    weight_decay: float = 1e-4
    # Whether weight decay applies to batch-norm weights and biases too. All prior works but
    # CSAIL's say yes.
    decay_norm_and_bias: bool = True
    # Learning rate of everything but the backbone, as a multiple. CCNet and AlignSeg have 1,
    # semseg and Encoding 10.
    head_lr_scale: float = 1.0
    # Factor of the learning rate from each block of the backbone to the one before it; 1 for none.
    # BEiT and ConvNeXt finetune with 0.65 to 0.9.
    layer_decay: float = 1.0
    # Schedule: poly (the paper) or cosine.
    schedule: str = "poly"
    # Decay of the moving average of the weights, which is then validated, kept and evaluated; 0 for
    # none. It begins lower: at step n it is at most (1 + n) / (10 + n).
    ema_decay: float = 0.0
    # Exponent of the poly schedule, (1 - step / steps) ** power.
    poly_power: float = 0.9
    # Iterations of linear warm-up.
    warmup_steps: int = 0
    # Floor of the schedule (mmsegmentation: 1e-4).
    min_lr: float = 0.0

    def __post_init__(self) -> None:
        require_choice("optim.optimizer", self.optimizer, ("sgd", "adamw"))
        require_choice("optim.schedule", self.schedule, ("poly", "cosine"))
        require(
            0 < self.layer_decay <= 1,
            f"optim.layer_decay must be in (0, 1]; got {self.layer_decay}.",
        )
        require(
            0 <= self.ema_decay < 1, f"optim.ema_decay must be in [0, 1); got {self.ema_decay}."
        )
        require(self.lr > 0, f"optim.lr must be positive; got {self.lr}.")
        require(0 <= self.momentum < 1, f"optim.momentum must be in [0, 1); got {self.momentum}.")
        require(
            0 <= self.min_lr <= self.lr,
            f"optim.min_lr must be between 0 and optim.lr; got {self.min_lr}.",
        )
        keys = ("weight_decay", "head_lr_scale", "poly_power", "warmup_steps")
        require_above(self, "optim", keys, 0)


@dataclass
class LossConfig:
    """Cross entropy on logits that are upsampled to the crop. Mask value 255 is ignored."""

    # Weight of the auxiliary head's loss (semseg, SPNet: 0.4; Encoding: 0.2).
    aux_weight: float = 0.4
    # Online hard example mining (semseg, CCNet): keep the pixels whose true class has a
    # probability below this; null switches it off.
    ohem_threshold: float | None = None
    # With mining, the least number of pixels kept of the batch over all processes (CCNet and
    # semseg: 100,000 on each GPU).
    ohem_min_kept: int = 100_000
    # One weight a class; null for none.
    class_weights: list[float] | None = None

    def __post_init__(self) -> None:
        require_above(self, "loss", ("aux_weight",), 0)
        threshold = self.ohem_threshold
        require(
            threshold is None or 0 < threshold <= 1,
            f"loss.ohem_threshold must be in (0, 1] or null; got {threshold}.",
        )
        require_above(self, "loss", ("ohem_min_kept",), 1)


@dataclass
class ProtocolConfig:
    """How an image becomes a prediction. Its description is printed beside every number."""

    # Name of the protocol, which begins its description.
    name: str = "whole"
    # Side of the square windows, pixels; 0 predicts the whole image at once.
    window: int = 0
    # Step between windows, pixels. The last of a row or column is shifted back into the image.
    stride: int = 0
    # What is averaged over windows and mirror images: class probabilities (probs), or logits as in
    # CCNet. Over scales it is always probabilities.
    window_average: str = "probs"
    # Factors that the image is resized by.
    scales: list[float] = field(default_factory=lambda: [1.0])
    # Whether to average with the prediction of the mirrored window.
    flip: bool = False

    def __post_init__(self) -> None:
        require_choice("protocol.window_average", self.window_average, ("probs", "logits"))
        require(
            self.window >= 0,
            f"protocol.window must be 0 (whole image) or more; got {self.window}.",
        )
        require(
            self.window == 0 or 0 < self.stride <= self.window,
            f"protocol.stride must be between 1 and protocol.window ({self.window}); "
            f"got {self.stride}.",
        )
        require(
            len(self.scales) > 0 and min(self.scales) > 0,
            f"protocol.scales must be positive factors; got {list(self.scales)}.",
        )
        require_few("protocol.scales", self.scales, 32)
        require_at_most(self, "protocol", {"scales": 8, "window": 16384})
        area = sum(scale**2 for scale in self.scales)
        require(
            area <= 100, f"protocol.scales make {area:g} images of one; at most 100 are allowed."
        )

    @property
    def looks_once(self) -> bool:
        """Whether the network sees each image once, as it is."""
        return not self.window and list(self.scales) == [1.0] and not self.flip

    def describe(self) -> str:
        """State the rule from its values: a changed value cannot hide behind a preset's name."""
        how = f"windows {self.window}/{self.stride}" if self.window else "whole image"
        if self.window or self.window_average != "probs":
            how += f", {self.window_average}"
        scales = "/".join(f"{scale:g}" for scale in self.scales)
        return f"{self.name} ({how}; scale {scales}; {'flip' if self.flip else 'no flip'})"


@dataclass
class TrainerConfig:
    """Where and how long to train. The values are handed to lightning.Trainer."""

    # Hardware: auto, cpu, gpu, or another name that Lightning knows.
    accelerator: str = "auto"
    # Devices of one node: a number, or auto for all. More than one trains with DDP.
    devices: str = "auto"
    # Number of machines.
    num_nodes: int = 1
    # Precision: auto, 32-true, bf16-mixed, 16-mixed or 64-true. `auto` is bf16-mixed where the GPU
    # or the CPU (AVX-512 BF16, AMX) has bfloat16, 16-mixed on older GPUs, else 32-true. A resumed
    # run keeps the precision that it began with.
    precision: str = "auto"
    # Passes over the training split.
    max_epochs: int = 10
    # Optimizer steps; training ends when they or max_epochs are reached. -1 for no limit.
    max_steps: int = -1
    # Batches of an epoch; 0 takes all. Each epoch draws others.
    limit_train_batches: int = 0
    # Validations in a row without a better val/mIoU after which training stops; 0 for never.
    patience: int = 0
    # Batches whose gradients are averaged for one optimizer step.
    accumulate_grad_batches: int = 1
    # Largest gradient norm; 0 for no clipping.
    gradient_clip_norm: float = 0.0
    # Whether batch norm takes its statistics over all processes, on GPUs and on CPU.
    sync_batchnorm: bool = True
    # Epochs between validations. The last epoch is always validated.
    val_every_epochs: int = 1
    # Loader processes of each device; -1 takes the device's share of the cores, 4 at most.
    num_workers: int = -1
    # Optimizer steps between saves of last.ckpt within an epoch; 0 for none.
    checkpoint_every_steps: int = 0
    # Minutes between saves of last.ckpt within an epoch; 0 for none.
    checkpoint_every_minutes: float = 10.0
    # Epochs between validation images in the loggers; 0 for none.
    log_images_every_epochs: int = 10
    # Whether a terminal shows a progress bar.
    progress_bar: bool = True

    def __post_init__(self) -> None:
        require_choice("trainer.precision", self.precision, TRAINING_PRECISIONS)
        require(
            self.devices == "auto" or (self.devices.isdigit() and int(self.devices) > 0),
            f"trainer.devices must be a positive number or auto; got {self.devices!r}.",
        )
        keys = ("num_nodes", "max_epochs", "accumulate_grad_batches", "val_every_epochs")
        require_above(self, "trainer", keys, 1)
        saves = ("checkpoint_every_steps", "checkpoint_every_minutes")
        require_above(self, "trainer", ("limit_train_batches", "patience"), 0)
        keys = ("gradient_clip_norm", *saves, "log_images_every_epochs")
        require_above(self, "trainer", keys, 0)
        require(
            self.num_workers >= -1,
            f"trainer.num_workers must be -1 (automatic) or more; got {self.num_workers}.",
        )
        require(
            self.max_steps == -1 or self.max_steps > 0,
            f"trainer.max_steps must be -1 (no limit) or positive; got {self.max_steps}.",
        )


@dataclass
class LoggerConfig:
    """What is written beside the metrics.csv that every run leaves."""

    # wandb: offline (nothing leaves the machine), online, disabled, or auto, which is online where
    # WANDB_API_KEY is set and else offline.
    wandb: str = "disabled"
    # Project of the wandb runs.
    wandb_project: str = "cyclenet"
    # Whether to write TensorBoard files.
    tensorboard: bool = False
    # Optimizer steps between logged values.
    every_n_steps: int = 10

    def __post_init__(self) -> None:
        require_choice("logger.wandb", self.wandb, ("auto", "offline", "online", "disabled"))
        require_above(self, "logger", ("every_n_steps",), 1)


@dataclass
class TrainConfig:
    """All keys of ``train``."""

    model: ModelConfig = field(default_factory=ModelConfig)
    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    protocol: ProtocolConfig = field(default_factory=ProtocolConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    logger: LoggerConfig = field(default_factory=LoggerConfig)
    # Seed of the weights, the order of the images, the augmentation and dropout.
    seed: int = 0
    # First part of the run folder's name.
    name: str = "train"
    # auto continues from the run folder's last checkpoint where there is one, never starts afresh,
    # must refuses to start afresh.
    resume: str = "auto"
    # What a job of a sweep gives to the sweeper: a logged value such as val/mIoU, for Optuna and
    # others. null gives whether the job succeeded.
    objective: str | None = None
    # Continue from a checkpoint although its configuration differs in what changes the result.
    force: bool = False
    # Presets of conf/protocol by which the last checkpoint is evaluated at the end, beside
    # `protocol` itself.
    extra_protocols: list[str] = field(default_factory=list)
    # Begin with the weights of a trained network that fit: of a run folder, a checkpoint, an
    # exported .safetensors, or user/name of the hub. Classes of the same name keep theirs.
    init_from: str | None = None
    # Continue from this checkpoint: its weights, optimizer and position. The run folder's own last
    # checkpoint is newer and wins.
    ckpt_path: str | None = None

    def __post_init__(self) -> None:
        require_choice("resume", self.resume, ("auto", "never", "must"))
        require(0 <= self.seed < 2**32, f"seed must be in 0..2**32 - 1; got {self.seed}.")
        require(
            not self.model.aux_head or self.loss.aux_weight > 0,
            "loss.aux_weight is 0, so the auxiliary head would never learn: "
            "set model.aux_head=false.",
        )
        require(
            self.model.freeze_backbone or not self.dataset.views,
            "dataset.views are for frozen features: set model.freeze_backbone=true, or "
            "dataset.views=[].",
        )
        require(
            not (self.init_from and self.ckpt_path),
            "init_from begins a training and ckpt_path continues one: give one of them.",
        )
        if self.init_from:  # The backbone's weights are in it.
            self.model.backbone_weights = "none"
        extra, stride = int(self.model.align_corners), self.model.output_stride
        require(
            not self.dataset.views
            or all((side - extra) % stride == 0 for side in self.dataset.crop_size),
            f"dataset.crop_size must be multiples of model.output_stride ({stride})"
            f"{' plus 1' if extra else ''} where there are dataset.views, because crops are "
            f"windows of features; got {list(self.dataset.crop_size)}.",
        )
        require(
            self.dataset.validation_split is not None or not self.trainer.patience,
            "trainer.patience needs validations: set dataset.val_split, or trainer.patience=0.",
        )
        compiled = self.model.compile and self.dataset.views
        require(not compiled, "model.compile=true does not compile heads on dataset.views.")
