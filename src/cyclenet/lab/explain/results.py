"""What an analysis over a split finds, as it is written to ``analysis.json``."""

from dataclasses import dataclass

from cyclenet.scoring.metrics import ByClass

Numbers = list[float | None]  # Numbers, with None where there is nothing to measure.

Change = list[float] | None
"""A difference and the bounds of its 95 % interval over images; None for too few images."""


@dataclass
class FeedbackFound:
    """Each part's prediction: its features, read by the network's own last layers.

    Attributes:
        mIoU: score of each part.
        IoU: scores of each part by class.
        gain: mIoU of the last part minus the first's.
        accuracy: share of right pixels of each part, by distance to the nearest true edge.
        accuracy_gain: the last part's minus the first's, by distance.
        pixels: number of pixels by distance.
    """

    mIoU: list[float]
    IoU: list[ByClass]
    gain: Change
    accuracy: list[Numbers]
    accuracy_gain: list[Change]
    pixels: list[int]


@dataclass
class Alikeness:
    """Mean cosine similarity of features, the mean over images.

    Attributes:
        within: of each part, the mean over classes of the similarity within a class.
        between: of each part, the mean over pairs of classes.
        gap: their difference.
        change: of the three by name, the last part's minus the first's.
        classes: of each part, the similarity within each class.
    """

    within: Numbers
    between: Numbers
    gap: Numbers
    change: dict[str, Change]
    classes: list[ByClass]


@dataclass
class Probe:
    """Features labelled by the nearest class mean: mIoU of each part, and the last's gain."""

    mIoU: list[float]
    gain: Change


@dataclass
class SimilarityFound:
    """Whether features of one class are more alike than those of different classes.

    Attributes:
        raw: the cosine of Fig. 4, of the concatenated layers.
        centred: the same after the image's mean feature is subtracted.
        layers: within and between (raw) of each part and layer.
        probe: None for a single image.
    """

    raw: Alikeness
    centred: Alikeness
    layers: list[list[Numbers]]
    probe: Probe | None = None


@dataclass
class OffsetsFound:
    """ADC's displacements by distance to the nearest true edge.

    Attributes:
        length: mean length of a displacement, pixels of the image.
        mean_length: the same over all pixels.
        near: length in the first bin minus that in the last.
        modulation: mean modulation; None where there is none.
    """

    length: Numbers
    mean_length: float
    near: Change
    modulation: Numbers | None = None


@dataclass
class FieldPoint:
    """One measured receptive field: of which pixel, in which part, how wide, how foreign."""

    image: str
    where: str
    x: int
    y: int
    part: str
    radius_50: float
    radius_90: float
    foreign: float


@dataclass
class FieldsFound:
    """Receptive fields near edges and in the middle of objects.

    Attributes:
        points: each that was measured.
        edge: of each part, the mean of each measure near edges.
        middle: the same in the middle of objects.
        edge_change: the last part's minus the first's, by measure.
        middle_change: the same in the middle of objects.
    """

    points: list[FieldPoint]
    edge: list[dict[str, float]]
    middle: list[dict[str, float]]
    edge_change: dict[str, Change]
    middle_change: dict[str, Change]


@dataclass
class SplitAnalysis:
    """What ``analysis.json`` holds.

    Attributes:
        parts: names of the context module's parts.
        layers: names of a part's layers.
        classes: names of the classes.
        images: number of images.
        bins: names of the distances to the nearest true edge.
        finished_at: when the run had ended, seconds since 1970; 0 where it had not. An analysis of
            earlier weights is known by it. None where the checkpoint lies in no run.
    """

    parts: list[str]
    layers: list[str]
    classes: list[str]
    images: int
    bins: list[str]
    dataset: str = ""
    split: str = ""
    checkpoint: str = ""
    finished_at: float | None = None
    feedback: FeedbackFound | None = None
    similarity: SimilarityFound | None = None
    offsets: OffsetsFound | None = None
    receptive_field: FieldsFound | None = None
