"""How arms are named in tables, figures and loggers, from the tables of choices."""

from collections.abc import Sequence

from cyclenet.config.choices import CONTEXTS, DECODERS
from cyclenet.config.model import ModelConfig


def context_name(context: str, rates: Sequence[int], feedback: int = 1) -> str:
    """Name a context module as the paper's Table 1 does: ``CycleASPP(3,6,12) k=2``.

    k stands only where it is read and differs from the paper's 1.
    """
    choice = CONTEXTS[context]
    name = choice.label
    if "atrous_rates" in choice.keys:
        name += f"({','.join(map(str, rates))})"
    if "feedback" in choice.keys and feedback != 1:
        name += f" k={feedback}"
    return name


def arm_label(model: ModelConfig) -> str:
    """Name an arm by what it is made of, for instance "CycleASPP(3,6,12) + ADC"."""
    name = context_name(model.context, model.atrous_rates, model.feedback)
    decoder = DECODERS[model.decoder]
    if decoder.label:
        name += f" + {decoder.label}"
    if "mask_scale" in decoder.keys and model.mask_scale == 0:
        name += " without modulation"
    return name


def arm_labels(models: list[ModelConfig]) -> list[str]:
    """Name models as `arm_label` does; those that are made of the same get their number too."""
    names = [arm_label(model) for model in models]
    return [
        name if names.count(name) == 1 else f"{name}, checkpoint {number}"
        for number, name in enumerate(names, 1)
    ]


def short_name(model: ModelConfig) -> str:
    """Name backbone, context and decoder for a run folder: ``resnet101s-cycleaspp_3.6_k1-adc``."""
    context = model.context
    # An unknown context has no keys: the job itself refuses it with a sentence.
    keys = CONTEXTS[context].keys if context in CONTEXTS else ()
    if "atrous_rates" in keys:
        context += "_" + ".".join(map(str, model.atrous_rates))
    if "feedback" in keys:
        context += f"_k{model.feedback}"
    return f"{model.backbone}-{context}-{model.decoder}"
