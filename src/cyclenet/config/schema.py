"""The configuration schema: every key, with its meaning, unit, range and source.

The comment above a field is its explanation; ``--help`` prints it. The YAML files in ``conf/`` hold
only what differs from these defaults. Nothing heavy is imported, so that a typo is refused at once.
A bad value raises `ValueError` with one sentence that names the key.
"""

from dataclasses import dataclass, field

from cyclenet.config.dataset import DatasetConfig
from cyclenet.config.model import ModelConfig
from cyclenet.config.require import require, require_choice, require_few, require_within

PREDICTION_PRECISIONS = ("32-true", "bf16-mixed")
TRAINING_PRECISIONS = ("auto", "32-true", "bf16-mixed", "16-mixed", "64-true")


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
    # Each block of the backbone learns at this factor times the rate of the block after it; with 1
    # all learn alike. BEiT and ConvNeXt finetune with 0.65 to 0.9.
    layer_decay: float = 1.0
    # Schedule: poly (the paper) or cosine.
    schedule: str = "poly"
    # Decay of the moving average of the weights, which is then validated, kept and evaluated; 0 for
    # none. It begins lower: at step n it is at most (1 + n) / (10 + n). Not with 64-true.
    ema_decay: float = 0.0
    # Exponent of the poly schedule, (1 - step / steps) ** power.
    poly_power: float = 0.9
    # Iterations of linear warm-up.
    warmup_steps: int = 0
    # Floor of the schedule (mmsegmentation: 1e-4), for `lr`; another rate (head_lr_scale,
    # layer_decay) has it in proportion.
    min_lr: float = 0.0

    def __post_init__(self) -> None:
        require_choice("optim.optimizer", self.optimizer, ("sgd", "adamw"))
        require_choice("optim.schedule", self.schedule, ("poly", "cosine"))
        bounds = {"lr": "(0, inf]", "layer_decay": "(0, 1]", "ema_decay": "[0, 1)"}
        keys = ("weight_decay", "head_lr_scale", "poly_power", "warmup_steps")
        bounds |= {"momentum": "[0, 1)"} | dict.fromkeys(keys, "[0, inf]")
        require_within(self, "optim.", bounds)
        require(
            0 <= self.min_lr <= self.lr,
            f"optim.min_lr must be between 0 and optim.lr; got {self.min_lr}.",
        )


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
        bounds = {"aux_weight": "[0, inf]", "class_weights": "[0, inf); 0 or more, and finite"}
        bounds |= {"ohem_threshold": "(0, 1]; in (0, 1] or null", "ohem_min_kept": "(0, inf]"}
        require_within(self, "loss.", bounds)


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
        require_within(
            self,
            "protocol.",
            {"window": "[0, 16384]; 0 (whole image) to 16384", "scales": "(0, 8]"},
        )
        require(
            self.window == 0 or 0 < self.stride <= self.window,
            f"protocol.stride must be between 1 and protocol.window ({self.window}); "
            f"got {self.stride}.",
        )
        require(len(self.scales) > 0, "protocol.scales must name a scale, as [1].")
        require_few("protocol.scales", self.scales, 32)
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
    """Where and how long to train: keys of lightning.Trainer, the loaders and the checkpoints."""

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
        keys = ["num_nodes", "max_epochs", "accumulate_grad_batches", "val_every_epochs"]
        bounds = dict.fromkeys(keys, "(0, inf]") | {
            "num_workers": "[-1, inf]; -1 (automatic) or more"
        }
        keys = ["limit_train_batches", "patience", "gradient_clip_norm", "log_images_every_epochs"]
        keys += ["checkpoint_every_steps", "checkpoint_every_minutes"]
        require_within(self, "trainer.", bounds | dict.fromkeys(keys, "[0, inf]"))
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
        require_within(self, "logger.", {"every_n_steps": "(0, inf]"})


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
    # Logged value that a job of a sweep returns to the sweeper, such as val/mIoU, for Optuna and
    # others. null gives whether the job succeeded.
    objective: str | None = None
    # Continue from a checkpoint although its configuration differs in what changes the result, or
    # its images have other names now.
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

    def require_trainable(self) -> None:
        """Check what matters to a training alone: a stored configuration must not fail for it.

        Raises:
            ValueError: keys contradict each other.
        """
        data, objective = self.dataset, self.objective or "train/"
        weights = self.loss.class_weights
        require(
            not weights or any(weights),
            "loss.class_weights are all 0, so there is nothing to learn: give a class a weight.",
        )
        require(
            not (self.model.strip_pooling and self.model.freeze_norm),
            "model.strip_pooling has batch norms of its own inside the backbone, which "
            "model.freeze_norm would leave untrained.",
        )
        usual = data.training_split == "train" and data.val_split == "val"
        require(
            not data.val_share or usual,
            "dataset.val_share divides all images, or the split train, into train and val: leave "
            "dataset.train_split, dataset.val_split and dataset.fold as they are. Where only one "
            "folder of images is meant, give it as dataset.images (images/mine).",
        )
        require(
            data.fold is None or "{split}" not in data.images + data.masks,
            "dataset.fold reads the images of all splits, so dataset.images and dataset.masks "
            "cannot have {split} in them.",
        )
        require(
            not (self.optim.ema_decay and self.trainer.precision == "64-true"),
            "optim.ema_decay keeps its average in float32: give another trainer.precision than "
            "64-true.",
        )
        require(
            not (data.cache_features and self.trainer.precision == "64-true"),
            "dataset.cache_features keeps features that were computed in float32: give another "
            "trainer.precision than 64-true.",
        )
        require(
            objective.startswith(("train/", "val/IoU/"))
            or objective in ("val/mIoU", "val/pixel_accuracy"),
            "objective must be val/mIoU, val/pixel_accuracy, val/IoU/<class> or a training loss "
            f"such as train/loss; got {self.objective!r}.",
        )
        require(
            objective.startswith("train/") or bool(data.validation_split),
            "objective needs validations: set dataset.val_split.",
        )
