"""A folder that others can load: weights, configuration, and a card that says what they are."""

import os
import subprocess
from pathlib import Path

from cyclenet.config.commands import PushConfig
from cyclenet.config.naming import arm_label
from cyclenet.config.schema import TrainConfig
from cyclenet.deploy.export import without_places, write_weights
from cyclenet.deploy.load import WEIGHTS, read_weights, run_of
from cyclenet.files import read_json, write_json, write_text
from cyclenet.lab.markdown import code, markdown_table, percent, plain
from cyclenet.models.stored import stored
from cyclenet.runs.evaluate import SCORES
from cyclenet.scoring.results import EvaluationResult

FILES = (WEIGHTS, "config.json", "README.md")  # What a shared folder consists of.

PAPER = "Learning More Accurate Features for Semantic Segmentation in CycleNet"


def push(cfg: PushConfig) -> list[str]:
    """Write the folder ``cfg.output``, and upload it unless it is a dry run.

    Returns:
        Sentences that say what was done.

    Raises:
        ValueError: the checkpoint cannot be used, or the hub refuses the folder.
    """
    source, checkpoint = read_weights(cfg.ckpt_path)
    trained, classes, _ = stored(checkpoint)
    folder = Path(cfg.output)
    if not (folder / WEIGHTS).is_file():
        for name in FILES:
            if (folder / name).exists():
                raise ValueError(f"{folder / name} would be replaced: give another output.")
    write_weights(checkpoint, folder / WEIGHTS)
    write_json(folder / "config.json", without_places(trained))
    steps = checkpoint.get("global_step")
    write_text(folder / "README.md", write_card(cfg.repo, trained, classes, source, steps))
    said = [
        f"{folder}: {WEIGHTS}, config.json, README.md. cyclenet.load({str(folder)!r}) reads it."
    ]
    dry = cfg.dry_run if cfg.dry_run is not None else not _token()
    if dry:
        return [*said, "Nothing was uploaded: give dry_run=false and set HF_TOKEN to do so."]
    from huggingface_hub import HfApi

    try:
        api = HfApi()
        api.create_repo(cfg.repo, exist_ok=True)
        api.upload_folder(repo_id=cfg.repo, folder_path=folder, allow_patterns=list(FILES))
    except Exception as error:  # The hub's errors have no common class.
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{cfg.repo} could not be uploaded ({reason}); {folder} stays.") from error
    return [*said, f"Uploaded to {cfg.repo}."]


def write_card(
    repo: str, cfg: TrainConfig, classes: list[str], source: Path, steps: int | None
) -> str:
    """Return the model card: data, protocol, scores, how to load it, what it was made by.

    Args:
        repo: ``user/name``.
        cfg: what it was trained with.
        classes: class names.
        source: the checkpoint, whose own evaluations are listed.
        steps: optimizer steps that it was trained for, where they are known.
    """
    evaluations = [
        found
        for path in sorted(run_of(source).glob(f"evaluate/*/{SCORES}"))
        if path.stat().st_mtime >= source.stat().st_mtime  # Older ones are of earlier weights.
        and (found := read_json(EvaluationResult, path)) is not None
        and Path(found.checkpoint).name == source.name
    ]
    lines = [
        [
            f"{one.dataset} {one.split}, {one.images} images{_doubts(one)}",
            f"{one.protocol}, {one.precision}",
            percent(one.mIoU),
        ]
        for one in evaluations
    ]
    scores = "No evaluation of these weights is at hand."
    if lines:
        scores = markdown_table(["data", "protocol", "mIoU, %"], lines)
    front = "---\nlibrary_name: cyclenet\npipeline_tag: image-segmentation\n---"
    name = plain(arm_label(cfg.model))
    parts = [
        front,
        f"# {name} on {plain(cfg.dataset.name)}",
        f"Semantic segmentation in {len(classes)} classes: {plain(', '.join(classes))}.",
        "```python\nimport cyclenet\n\n"
        f'model = cyclenet.load("{repo}")\nresult = model.predict("street.jpg")\n'
        'result.save("labels.png")\n```',
        "## Scores",
        scores,
        "## Training",
        f"Backbone {plain(cfg.model.backbone)} at 1/{cfg.model.output_stride}; data "
        f"{plain(cfg.dataset.name)}, split {plain(cfg.dataset.training_split)}; crops of "
        f"{' x '.join(map(str, cfg.dataset.crop_size))}; {f'{steps} steps; ' if steps else ''}seed "
        f"{cfg.seed}. All keys are in config.json. Shared from {_commit()}.",
        f'The architecture is from the paper "{PAPER}", or compared with it there.',
        "The terms of the training data and of the pretrained backbone apply to the weights.",
    ]
    return "\n\n".join(parts) + "\n"


def _doubts(one: EvaluationResult) -> str:
    doubts = ", in another folder than in the training" if one.elsewhere else ""
    if one.trained_on is None:
        return doubts + ", of which some may be training images"
    return doubts + (f", {one.trained_on} of them training images" if one.trained_on else "")


def _token() -> str | None:
    from huggingface_hub import get_token

    return os.environ.get("HF_TOKEN") or get_token()


def _commit() -> str:
    here = Path(__file__)
    try:
        # An installed package may lie in the folder of another repository.
        _git(here.parent, "ls-files", "--error-unmatch", here.name)
        return str(code(_git(here.parent, "rev-parse", "HEAD")))
    except (OSError, subprocess.SubprocessError):
        return "an installed package"


def _git(folder: Path, *words: str) -> str:
    command = ["git", "-C", str(folder), *words]
    found = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    return found.stdout.strip()
