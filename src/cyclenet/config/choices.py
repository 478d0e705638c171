"""The tables of context modules, decoders and data sets.

A new one is a class, a row here and a YAML file (docs/python.md). The schema, run folders, labels
and cost tables read these rows. Nothing heavy is imported: a row names its class, and `Choice.load`
imports it.
"""

from dataclasses import dataclass, field
from pkgutil import resolve_name
from typing import Any


@dataclass(frozen=True)
class Choice:
    """One value of ``model.context``, ``model.decoder`` or ``dataset.name``.

    Attributes:
        builder: the class, as ``module:name``.
        label: how tables and figures name it.
        keys: keys of the configuration that the class takes as arguments of the same names. Of
            these, ``atrous_rates``, ``feedback`` and ``mask_scale`` also show in names of arms and
            folders (`cyclenet.config.naming`).
        fixed: arguments that this choice gives a fixed value.
        wants: arguments that follow from the data: ``num_classes``, or ``crop_cells``, the (height,
            width) of the features of a training crop. A decoder may also want ``low_channels``
            (of the 1/4 features), ``level_channels``, and ``context_channels``, the width of the
            context features. A decoder whose output is as wide as these wants that width as
            ``head_channels``; among ``keys``, ``head_channels`` is the configuration's.
        guided: for a context module, whether it reads the auxiliary head's logits.
        how_to_get: for a data set, how a user gets the files that are missing.
        folds: for a data set, whether it has the splits ``fold<n>`` and ``not-fold<n>``.
    """

    builder: str
    label: str
    keys: tuple[str, ...] = ()
    fixed: dict[str, Any] = field(default_factory=dict)
    wants: tuple[str, ...] = ()
    guided: bool = False
    how_to_get: str = ""
    folds: bool = False

    def load(self) -> Any:
        """Import the class."""
        return resolve_name(self.builder)

    def arguments(self, cfg: Any) -> dict[str, Any]:
        """Return the arguments of the class that come from a part of the configuration."""
        return {key: getattr(cfg, key) for key in self.keys} | self.fixed

    def build(self, cfg: Any, known: dict[str, Any], *channels: int) -> Any:
        """Build the module, from a part of the configuration and what follows from the data.

        Args:
            cfg: the architecture.
            known: all that follows from the backbone and the data, of which it takes what it wants.
            channels: for a context module, those of the backbone's features.
        """
        wanted = {key: known[key] for key in self.wants}
        return self.load()(*channels, **self.arguments(cfg), **wanted)


_CONTEXTS = "cyclenet.models.contexts"
_DECODERS = "cyclenet.models.decoders"
_DATA = "cyclenet.data"

_ATROUS = f"{_CONTEXTS}.cycleaspp:CycleASPP"
_ATROUS_KEYS = (
    "atrous_rates",
    "reduce_channels",
    "bottleneck_channels",
    "growth_channels",
    "head_channels",
    "share_norm",
    "recompute",
)

_WIDTH = ("head_channels",)
_ALIGNED = (*_WIDTH, "align_corners")
_CORNERS = ("align_corners",)
_LOW = ("low_channels", "head_channels")
_LEVELS = ("level_channels", "context_channels")

CONTEXTS: dict[str, Choice] = {
    "none": Choice(f"{_CONTEXTS}.base:Baseline", "Baseline", _WIDTH),
    "aspp": Choice(f"{_CONTEXTS}.aspp:ASPP", "ASPP", ("atrous_rates", "head_channels")),
    "denseaspp": Choice(_ATROUS, "DenseASPP", _ATROUS_KEYS, {"feedback": 0}),
    "cycleaspp": Choice(_ATROUS, "CycleASPP", (*_ATROUS_KEYS, "feedback", "share_projections")),
    "pspnet": Choice(f"{_CONTEXTS}.pspnet:PSPNet", "PSPNet", _ALIGNED),
    "psanet": Choice(f"{_CONTEXTS}.psanet:PSANet", "PSANet", _ALIGNED, wants=("crop_cells",)),
    "encnet": Choice(f"{_CONTEXTS}.encnet:EncNet", "EncNet", _WIDTH, wants=("num_classes",)),
    "danet": Choice(
        f"{_CONTEXTS}.danet:DANet", "DANet", (*_WIDTH, "dropout"), wants=("num_classes",)
    ),
    "ccnet": Choice(f"{_CONTEXTS}.ccnet:CCNet", "CCNet", _WIDTH),
    "spnet": Choice(f"{_CONTEXTS}.spnet:SPNet", "SPNet", _ALIGNED),
    "identity": Choice(f"{_CONTEXTS}.base:Identity", "Backbone"),
    "ocrnet": Choice(f"{_CONTEXTS}.ocrnet:OCRNet", "OCRNet", _ALIGNED, guided=True),
    "deeplabv3plus": Choice(
        f"{_CONTEXTS}.deeplabv3plus:SeparableASPP",
        "Separable ASPP",
        (*_WIDTH, "output_stride"),
        {"rates_at_8": (12, 24, 36)},
    ),
    "aligncm": Choice(f"{_CONTEXTS}.aligncm:AlignCM", "AlignCM", _WIDTH),
    "denseaspp_net": Choice(
        f"{_CONTEXTS}.denseaspp_net:DenseASPPNet",
        "DenseASPP (pre-activation)",
        ("atrous_rates", "bottleneck_channels", "growth_channels", "dropout"),
    ),
    "reseg": Choice(f"{_CONTEXTS}.reseg:ReSeg", "ReSeg", _WIDTH),
}

DECODERS: dict[str, Choice] = {
    "none": Choice(f"{_DECODERS}.base:NoDecoder", "", wants=("context_channels",)),
    "skip": Choice(f"{_DECODERS}.skip:SkipDecoder", "skip", _CORNERS, wants=_LOW),
    "wide_skip": Choice(
        f"{_DECODERS}.skip:SkipDecoder", "wide skip", _CORNERS, {"wide": True}, _LOW
    ),
    "adc": Choice(
        f"{_DECODERS}.adc:ADC", "ADC", (*_CORNERS, "offset_groups", "mask_scale"), wants=_LOW
    ),
    "deeplabv3plus": Choice(
        f"{_DECODERS}.deeplabv3plus:DeepLabV3Plus",
        "DeepLabV3+",
        _CORNERS,
        wants=(*_LEVELS, "head_channels"),
    ),
    "upernet": Choice(f"{_DECODERS}.upernet:UPerNet", "UPerNet", _CORNERS, wants=_LEVELS),
    "fapn": Choice(f"{_DECODERS}.fapn:FaPN", "FaPN", _CORNERS, wants=_LEVELS),
    "alignseg": Choice(
        f"{_DECODERS}.alignseg:AlignSeg",
        "AlignFA",
        (*_CORNERS, "dropout"),
        wants=(*_LEVELS, "num_classes"),
    ),
    "gff": Choice(f"{_DECODERS}.gff:GFF", "GFF", _ALIGNED, wants=_LEVELS),
    "refinenet": Choice(f"{_DECODERS}.refinenet:RefineNet", "RefineNet", _ALIGNED, wants=_LEVELS),
    "bisenet": Choice(
        f"{_DECODERS}.bisenet:BiSeNet",
        "BiSeNet",
        (*_ALIGNED, "dropout"),
        wants=(*_LEVELS, "num_classes"),
    ),
    "dupsampling": Choice(
        f"{_DECODERS}.dupsampling:DUpsampling",
        "DUpsampling",
        (*_ALIGNED, "output_stride"),
        wants=_LEVELS,
    ),
}

FOLDER_KEYS = (
    "images",
    "masks",
    "image_suffix",
    "mask_suffix",
    "classes",
    "ids",
    "ignore_id",
    "reduce_zero_label",
    "val_share",
)
"""Keys of ``dataset`` that only ``folder`` reads."""

DATASETS: dict[str, Choice] = {
    "cityscapes": Choice(
        f"{_DATA}.cityscapes:Cityscapes",
        "Cityscapes",
        ("root",),
        how_to_get="register at www.cityscapes-dataset.com, then `pip install cityscapesscripts` "
        "and `csDownload -d DIR leftImg8bit_trainvaltest.zip gtFine_trainvaltest.zip`, and unzip "
        "both there",
    ),
    "ade20k": Choice(
        f"{_DATA}.ade20k:ADE20K",
        "ADE20K",
        ("root",),
        how_to_get="add dataset.download=true to fetch it (0.9 GB)",
    ),
    "camvid": Choice(
        f"{_DATA}.camvid:CamVid",
        "CamVid",
        ("root",),
        how_to_get="add dataset.download=true to fetch it (0.2 GB)",
        folds=True,
    ),
    "folder": Choice(
        f"{_DATA}.folder:Folder",
        "Folder",
        ("root", *FOLDER_KEYS),
        how_to_get="lay out your data there as docs/data.md says",
        folds=True,
    ),
    "scenes": Choice(
        f"{_DATA}.scenes.source:Scenes",
        "Scenes",
        ("scenes_seed", "scenes_train", "scenes_val", "scenes_size"),
    ),
}
