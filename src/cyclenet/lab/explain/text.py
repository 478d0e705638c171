"""An analysis over a split, as Markdown: tables, and a sentence for what changed."""

from cyclenet.lab.explain.analysis import ENOUGH
from cyclenet.lab.explain.results import (
    Change,
    FeedbackFound,
    FieldsFound,
    OffsetsFound,
    SimilarityFound,
    SplitAnalysis,
)
from cyclenet.lab.markdown import interval, markdown_table, number, percent


def describe_analysis(result: SplitAnalysis) -> str:
    """Write an analysis as Markdown."""
    few = f" Below {ENOUGH} images there is none." if result.images < ENOUGH else ""
    text = [
        f"# Analysis over {result.images} images",
        "Each image is seen as a whole, at a single scale, in float32. Intervals are 95 % "
        "bootstrap intervals over images, which are taken as independent: where they are frames "
        f"of one video, the intervals are too narrow.{few}",
    ]
    if result.feedback:
        text += _describe_feedback(result, result.feedback)
    if result.similarity:
        text += _describe_similarity(result, result.similarity)
    if result.offsets:
        text += _describe_offsets(_bins(result), result.offsets)
    if result.receptive_field:
        text += _describe_fields(result.parts, result.receptive_field)
    return "\n\n".join(text) + "\n"


def _bins(result: SplitAnalysis) -> list[str]:
    return [f"{name} px" for name in result.bins]


def _describe_feedback(result: SplitAnalysis, found: FeedbackFound) -> list[str]:
    parts, several = result.parts, len(result.parts) > 1
    rows = [
        [part, percent(miou), *(percent(value, 1) for value in accuracy)]
        for part, miou, accuracy in zip(parts, found.mIoU, found.accuracy, strict=True)
    ]
    note = "Pixels are told apart by their distance to the nearest true edge."
    if several:
        changes = [interval(change) for change in (found.gain, *found.accuracy_gain)]
        rows.append([f"{parts[-1]} minus {parts[0]}", *changes])
        note += (
            f" All parts but {parts[-1]} are read by layers that were trained on {parts[-1]} alone."
        )
    head = ["part", "mIoU, %", *(f"right {name}, %" for name in _bins(result))]
    names = [[name, *(percent(part[name]) for part in found.IoU)] for name in result.classes]
    return [
        "## Prediction from each part",
        markdown_table(head, rows),
        note,
        markdown_table(["class", *(f"IoU {part}, %" for part in parts)], names),
    ]


def _describe_similarity(result: SplitAnalysis, found: SimilarityFound) -> list[str]:
    parts, several = result.parts, len(result.parts) > 1
    kinds = {"raw": found.raw, "centred": found.centred}
    rows = [
        [f"{part}, {kind}", *(number(v[i], 3) for v in (each.within, each.between, each.gap))]
        for kind, each in kinds.items()
        for i, part in enumerate(parts)
    ]
    head = ["part", "within a class", "between classes", "gap"]
    text = ["## Cosine similarity of features", markdown_table(head, rows)]
    for kind, each in kinds.items() if several else ():
        change = each.change
        signed = {key: interval(value, 1, 3) for key, value in change.items()}
        text.append(
            f"{kind}: features of one class are {_more_alike(change['within'])} in {parts[-1]} "
            f"({signed['within']}), those of different classes {_more_alike(change['between'])} "
            f"({signed['between']}); the gap changes by {signed['gap']}."
        )
    if len(result.layers) > 1:
        rows = [
            [part, *(f"{number(w, 3)} / {number(b, 3)}" for w, b in layers)]
            for part, layers in zip(parts, found.layers, strict=True)
        ]
        text.append(markdown_table(["within / between, raw", *result.layers[:-1]], rows))
    if found.probe:
        pairs = zip(parts, found.probe.mIoU, strict=True)
        scores = ", ".join(f"{part} {percent(miou)}" for part, miou in pairs)
        note = (
            "Features labelled by the nearest class mean (cosine, centred) of the other images "
            f"score, in % mIoU: {scores}."
        )
        if several:
            note += f" The change is {interval(found.probe.gain)}."
        text.append(note)
    return text


def _describe_offsets(bins: list[str], found: OffsetsFound) -> list[str]:
    rows = [["displacement, px", *(number(value, 2) for value in found.length)]]
    if found.modulation:
        rows.append(["modulation", *(number(value, 3) for value in found.modulation)])
    return [
        "## ADC by distance to the nearest edge",
        markdown_table(["", *bins], rows),
        f"Displacement within {bins[0]} of an edge minus that in the last column, mean over images "
        f"(the table pools all pixels): {interval(found.near, 1)} px.",
    ]


def _describe_fields(parts: list[str], found: FieldsFound) -> list[str]:
    rows = []
    for where, means in (("edge", found.edge), ("middle", found.middle)):
        for part, v in zip(parts, means, strict=False):
            radii = [f"{v['radius_50']:.1f}", f"{v['radius_90']:.1f}"]
            rows.append([f"{part}, {where}", *radii, percent(v["foreign"], 1)])
    head = ["of a pixel", "half within, px", "nine tenths within, px", "on other classes, %"]
    text = [
        "## Effective receptive field",
        markdown_table(head, rows),
        "The pixels are the middle of the largest object of an image, and one of its class near "
        "an edge.",
    ]
    places = (
        ("near an edge", found.edge_change),
        ("in the middle of an object", found.middle_change),
    )
    for name, change in places if len(parts) > 1 else ():
        text.append(
            f"From {parts[0]} to {parts[-1]}, {name}: half within "
            f"{interval(change['radius_50'], 1)} px, on other classes "
            f"{interval(change['foreign'])} points."
        )
    return text


def _more_alike(change: Change) -> str:
    if change is None:
        return "perhaps more or less alike"
    if change[1] > 0:
        return "more alike"
    return "less alike" if change[2] < 0 else "as alike as one can tell"
