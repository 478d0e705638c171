"""Tell of keys that are given although nothing reads them."""

from collections.abc import Callable, Sequence

from cyclenet.config.choices import CONTEXTS, DECODERS
from cyclenet.config.schema import TrainConfig

OF_MODULES = (
    "atrous_rates",
    "bottleneck_channels",
    "feedback",
    "mask_scale",
    "offset_groups",
    "reduce_channels",
    "share_norm",
    "share_projections",
)
"""Keys of ``model`` that only some context modules and decoders read."""

NEEDED: dict[str, tuple[str, Callable[[TrainConfig], bool]]] = {
    "dataset.scale": ("dataset.views=[]", lambda cfg: not cfg.dataset.views),
    "dataset.train_split": ("dataset.fold=null", lambda cfg: cfg.dataset.fold is None),
    "dataset.val_split": ("dataset.fold=null", lambda cfg: cfg.dataset.fold is None),
    "logger.wandb_project": ("logger=wandb", lambda cfg: cfg.logger.wandb != "disabled"),
    "loss.aux_weight": ("model.aux_head=true", lambda cfg: cfg.model.aux_head),
    "loss.ohem_min_kept": ("loss.ohem_threshold", lambda cfg: bool(cfg.loss.ohem_threshold)),
    "model.backbone_weights": ("init_from=null", lambda cfg: not cfg.init_from),
    "model.freeze_norm": ("model.freeze_backbone=false", lambda cfg: not cfg.model.freeze_backbone),
    "optim.layer_decay": ("model.freeze_backbone=false", lambda cfg: not cfg.model.freeze_backbone),
    "optim.momentum": ("optim.optimizer=sgd", lambda cfg: cfg.optim.optimizer == "sgd"),
    "optim.poly_power": ("optim.schedule=poly", lambda cfg: cfg.optim.schedule == "poly"),
    "protocol.stride": ("protocol.window", lambda cfg: bool(cfg.protocol.window)),
} | {
    f"dataset.scenes_{key}": ("dataset=scenes", lambda cfg: cfg.dataset.name == "scenes")
    for key in ("seed", "train", "val", "size")
}
"""What a key needs in order to be read, and whether it is there."""


def describe_unread(cfg: TrainConfig, words: Sequence[str]) -> list[str]:
    """Say which keys of a command line change nothing, a sentence each.

    They are not refused: a sweep gives one key to all its arms.

    Args:
        cfg: the whole configuration.
        words: the command line's ``key=value``.
    """
    context, decoder = cfg.model.context, cfg.model.decoder
    read = {*CONTEXTS[context].keys, *DECODERS[decoder].keys}
    said = []
    for key in (word.partition("=")[0].lstrip("+") for word in words):
        part, _, name = key.partition(".")
        if part == "model" and name in OF_MODULES and name not in read:
            said.append(f"{key} changes nothing: neither {context} nor decoder {decoder} reads it.")
        elif key in NEEDED and not NEEDED[key][1](cfg):
            said.append(f"{key} changes nothing without {NEEDED[key][0]}.")
    return said
