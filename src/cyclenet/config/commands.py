"""The schemas of the commands beside ``train``; each key's comment is its explanation."""

import re
from dataclasses import dataclass, field

from omegaconf import MISSING

from cyclenet.config.model import ModelConfig
from cyclenet.config.require import require, require_choice, require_within
from cyclenet.config.schema import PREDICTION_PRECISIONS, DatasetConfig, ProtocolConfig

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
"""Figures of ``visualize``."""

SAVED_KINDS = ("label", "color", "overlay", "confidence", "probability")
"""What ``predict`` can write, and the folders of its output."""


@dataclass
class EvaluateConfig:
    """All keys of ``evaluate``. Data set and protocol are the checkpoint's unless overridden."""

    # A run folder, a checkpoint, or an exported .onnx or .safetensors file.
    ckpt_path: str = MISSING
    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    protocol: ProtocolConfig = field(default_factory=ProtocolConfig)
    # Split to evaluate; null takes dataset.val_split.
    split: str | None = None
    # Whether boundary IoU and scores near edges are computed too.
    boundary: bool = True
    # Precision of the network: 32-true, or bf16-mixed, which is faster (with a trained model, four
    # labels in a thousand differed).
    precision: str = "32-true"
    # Device: auto, cpu or gpu.
    accelerator: str = "auto"
    # Folder for scores.json, counts and pictures; null makes one in evaluate/ of the run.
    output: str | None = None

    def __post_init__(self) -> None:
        require_choice("precision", self.precision, PREDICTION_PRECISIONS)


@dataclass
class PredictConfig:
    """All keys of ``predict``. A file that cannot be read is skipped; the exit code is then 1."""

    # A run folder, a checkpoint, or an exported .onnx or .safetensors file.
    ckpt_path: str = MISSING
    # An image, a folder of images, or a video.
    input: str = MISSING
    # Folder that receives a folder of each kind, with files under the inputs' names.
    output: str = MISSING
    # What is written: label (train ids), color, overlay; confidence (the label's probability, 16
    # bits: 65535 is 1), probability (of all classes, float16, as arr_0 of an .npz).
    save: list[str] = field(default_factory=lambda: ["label", "color", "overlay"])
    protocol: ProtocolConfig = field(default_factory=ProtocolConfig)
    # Precision of the network: 32-true or bf16-mixed.
    precision: str = "32-true"
    # Device: auto, cpu or gpu.
    accelerator: str = "auto"

    def __post_init__(self) -> None:
        require_choice("precision", self.precision, PREDICTION_PRECISIONS)
        require(len(self.save) > 0, f"save names nothing; choose from {', '.join(SAVED_KINDS)}.")
        for kind in self.save:
            require_choice("save", kind, SAVED_KINDS)


@dataclass
class SubmitConfig:
    """All keys of ``submit``, which writes and checks PNGs for a test server and zips them."""

    # A run folder, or a checkpoint.
    ckpt_path: str = MISSING
    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    protocol: ProtocolConfig = field(default_factory=ProtocolConfig)
    # Split to predict. ADE20K's is testing, for the folder images/testing.
    split: str = "test"
    # Device: auto, cpu or gpu.
    accelerator: str = "auto"
    # Folder for the PNGs, beside which the .zip is written; null makes one in submit/ of the run.
    output: str | None = None


@dataclass
class VisualizeConfig:
    """All keys of ``visualize``. Without ``image`` it measures over a whole split."""

    # A run folder, or a checkpoint.
    ckpt_path: str = MISSING
    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    # An image, a folder of images, or the name of an image of the split; null measures over the
    # split. An image of the data set brings its truth.
    image: str | None = None
    # Pixels x,y from the upper left corner; several as 10,20/30,40. null takes one in the middle
    # of an object and one near an edge.
    point: str | None = None
    # A CSV file with the columns image (a name without its ending), x and y.
    points: str | None = None
    # Figures, as figure4,gradcam: figure4, similarity, gradcam, offsets, receptive_field,
    # probabilities, feedback, figure3. Of a split: feedback, similarity, offsets,
    # receptive_field. Empty takes all that the model has.
    what: list[str] = field(default_factory=list)
    # Further checkpoints in figure3, in the order of its rows.
    compare: list[str] = field(default_factory=list)
    # Split of the data set; null takes dataset.val_split.
    split: str | None = None
    # Formats of the figures: png, pdf, svg.
    formats: list[str] = field(default_factory=lambda: ["png", "pdf"])
    # Device: auto, cpu or gpu.
    accelerator: str = "auto"
    # Folder for the figures; null takes visualize/ of the run, and for an analysis that is not the
    # run's own a folder inside it.
    output: str | None = None

    def __post_init__(self) -> None:
        for name in self.what:
            require_choice("what", name, FIGURES)
        for name in self.formats:
            require_choice("formats", name, ("png", "pdf", "svg"))
        require(not (self.point and self.points), "Give point=x,y or points=FILE, not both.")
        require(
            bool(self.image) or not (self.point or self.points),
            "A point belongs to an image: give image=FILE too.",
        )


@dataclass
class ExploreConfig:
    """All keys of ``explore``, which serves a page to look into a network until Ctrl-C."""

    # A run folder, or a checkpoint.
    ckpt_path: str = MISSING
    # A second checkpoint with the same classes, which is shown beside the first.
    compare: str | None = None
    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    # Folder of images that the page offers; null offers the data set's split where it is found.
    images: str | None = None
    # Split of the data set; null takes dataset.val_split.
    split: str | None = None
    # Address to listen on. The default is this machine alone; 0.0.0.0 lets everyone in who reaches
    # the machine, without a password.
    host: str = "127.0.0.1"
    # Port to listen on; 0 takes any that is free.
    port: int = 7860
    # Largest upload, megabytes.
    max_megabytes: float = 20.0
    # Largest image, pixels.
    max_pixels: int = 4_000_000
    # Device: auto, cpu or gpu.
    accelerator: str = "auto"

    def __post_init__(self) -> None:
        bounds = {"port": "[0, 65535]", "max_megabytes": "(0, inf]", "max_pixels": "(0, inf]"}
        require_within(self, "", bounds)


@dataclass
class ReportConfig:
    """All keys of ``report``, which compares runs in Markdown, CSV and one HTML page."""

    # Run folders, or folders that hold them, as runs/a,runs/b.
    runs: list[str] = MISSING
    # Folder of the report; null takes report/ beside the runs.
    output: str | None = None
    # Title of the page; null takes the folder's name.
    title: str | None = None
    # Part of the name of the arm that the others are compared with; null takes the first arm.
    baseline: str | None = None
    # Names of the protocols that are compared; empty takes all.
    protocols: list[str] = field(default_factory=list)
    # Images in the panel of predictions; 0 for none.
    images: int = 3
    # A YAML list of claims (claim, arm, than, score, seeds and others; docs/ablations.md) that the
    # report judges.
    plan: str | None = None
    # Claims get a second interval by stretches of so many neighbouring images; 1 for none.
    block: int = 1
    # Write the page again and again while runs are in progress.
    watch: bool = False
    # Seconds between two writings of the page, with watch.
    every: float = 60.0

    def __post_init__(self) -> None:
        bounds = {"every": "(0, inf]", "block": "(0, inf]", "images": "[0, inf]"}
        require_within(self, "", bounds)


@dataclass
class PublishConfig:
    """All keys of ``publish``, which keeps what a report needs of runs, and no more."""

    # Run folders, or folders that hold them, as runs/a,runs/b.
    runs: list[str] = MISSING
    # Folder of the published runs, such as results/camvid.
    output: str = MISSING
    # Write nothing; tell whether the runs have the published numbers to the last digit.
    check: bool = False


@dataclass
class PrepareConfig:
    """All keys of ``prepare``, which writes or verifies the cache of a data set's pixels."""

    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    # Splits to write, as train,val; null takes the training split, which training reads from it.
    splits: list[str] | None = None


@dataclass
class CheckConfig:
    """All keys of ``check_data``, which reads every pair and names each bad file."""

    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    # Splits to read, as train,val; null takes the training and the validation split.
    splits: list[str] | None = None
    # Processes that read; -1 takes one a core.
    num_workers: int = -1
    # Folder of the proposal for data of your own (dataset=folder) that cannot be read as they are:
    # a picture of pairs, and a list of class names where there is none.
    output: str = "check_data"


@dataclass
class ComplexityConfig:
    """All keys of ``complexity``, which counts parameters, multiply-adds and memory."""

    model: ModelConfig = field(default_factory=ModelConfig)
    # What to print: model (the cost of `model` by component), table1 (the paper's Table 1 beside
    # our counts), or run (a cost model of the paper's run on GPUs, no measurement).
    table: str = "model"
    # Height x width of the image, pixels.
    input: str = "769x769"
    # Channels of the logits.
    num_classes: int = 19

    def __post_init__(self) -> None:
        require_choice("table", self.table, ("model", "table1", "run"))
        sides = self.input.split("x")
        require(
            len(sides) == 2 and all(side.isdigit() and int(side) >= 32 for side in sides),
            "input must be HEIGHTxWIDTH in pixels, each at least 32, as 769x769; "
            f"got {self.input!r}.",
        )
        require_within(self, "", {"num_classes": "(0, inf]"})


@dataclass
class ExportConfig:
    """All keys of ``export``."""

    # A run folder, a checkpoint, or an exported .safetensors file.
    ckpt_path: str = MISSING
    # The file that is written.
    output: str = MISSING
    # onnx (runs in onnxruntime and others), torch_export (a .pt2 that torch.export.load reads) or
    # safetensors (weights and configuration).
    format: str = "onnx"
    # What the file gives for an image, at the image's size: logits, probabilities or labels. Only
    # logits can be evaluated.
    gives: str = "logits"
    # What ADC and FaPN sample with: operator is ONNX's DeformConv or torchvision's; grid_sample is
    # for runtimes that have none.
    deformable: str = "operator"

    def __post_init__(self) -> None:
        endings = {"onnx": ".onnx", "torch_export": ".pt2", "safetensors": ".safetensors"}
        require_choice("format", self.format, endings)
        require_choice("gives", self.gives, ("logits", "probabilities", "labels"))
        require_choice("deformable", self.deformable, ("operator", "grid_sample"))
        require(
            self.format != "safetensors" or (self.gives, self.deformable) == ("logits", "operator"),
            "gives and deformable are for format=onnx and torch_export: safetensors has no graph.",
        )
        ending = endings[self.format]
        require(self.output.endswith(ending), f"output must end in {ending}; got {self.output!r}.")


@dataclass
class PushConfig:
    """All keys of ``push``."""

    # A run folder, a checkpoint, or an exported .safetensors file.
    ckpt_path: str = MISSING
    # The repository of the hub, as user/name.
    repo: str = MISSING
    # The folder that is written; its files of these names are replaced.
    output: str = MISSING
    # Whether to write the folder only. By default it is uploaded where there is a token (HF_TOKEN).
    dry_run: bool | None = None

    def __post_init__(self) -> None:
        require(
            re.fullmatch(r"[\w.-]+/[\w.-]+", self.repo) is not None,
            f"repo must be user/name; got {self.repo!r}.",
        )
