"""``result.json``, the last file that a run writes: what came of it."""

import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from omegaconf.errors import OmegaConfBaseException

from cyclenet.config.identity import differences
from cyclenet.config.restore import load_protocol, read_config
from cyclenet.config.schema import DatasetConfig, ProtocolConfig, TrainConfig
from cyclenet.files import read_json, safe_name, write_json, write_text

MARK = ".cyclenet-run"
"""Marks a folder as one that trainings write to: what they wrote there may be replaced."""


def mark(folder: Path) -> None:
    """Mark a folder as a run folder."""
    write_text(folder / MARK, "Trainings write to this folder, and replace what they wrote.\n")


def is_marked(folder: Path) -> bool:
    """Tell whether a folder is marked as a run folder."""
    return (folder / MARK).is_file()


@dataclass
class RunResult:
    """What came of a run. Keys that were never set are left out of the file.

    Attributes:
        status: finished, failed, interrupted, or unfinished where there is no result yet.
        metrics: the last value of everything that was logged.
        overrides: words of the command line.
        error: the sentence that a failed run ended with.
        warning: what makes the scores doubtful, a sentence or two.
        protocol: description of the protocol of the validations.
        evaluations: folders of the evaluations in the run folder, by the protocol's description.
        epochs: epochs that were trained.
        train_seconds: wall time, over all starts.
        cpu_seconds: time of all processors, over all starts.
        threads: threads of the last start. Threads, precision and version of torch change the last
            digits of a result.
        precision: precision of the training.
        torch: version of torch.
        seconds: wall time of the last start.
        finished_at: end, seconds since 1970.
        peak_rss_mb: peak memory, MiB.
        data_root: folder of the data, without links.
    """

    status: Literal["finished", "failed", "interrupted", "unfinished"] = "unfinished"
    metrics: dict[str, float] = field(default_factory=dict)
    overrides: list[str] = field(default_factory=list)
    error: str | None = None
    warning: str | None = None
    protocol: str | None = None
    evaluations: dict[str, str] = field(default_factory=dict)
    epochs: int | None = None
    train_seconds: float | None = None
    cpu_seconds: float | None = None
    threads: int | None = None
    precision: str | None = None
    torch: str | None = None
    seconds: float | None = None
    finished_at: float | None = None
    peak_rss_mb: float | None = None
    data_root: str | None = None

    @property
    def finished(self) -> bool:
        """Whether the run came to its end."""
        return self.status == "finished"

    @property
    def score(self) -> float | None:
        """The last val mIoU, in [0, 1]."""
        return self.metrics.get("val/mIoU")

    def write(self, folder: Path) -> None:
        """Replace the result file of a run folder as a whole."""
        values = {key: value for key, value in asdict(self).items() if value is not None}
        write_json(folder / "result.json", values)


def read_result(folder: Path) -> RunResult:
    """Read a run folder's result; an unfinished one where there is none that can be read."""
    return read_json(RunResult, folder / "result.json") or RunResult()


def wanted_protocols(cfg: TrainConfig) -> list[ProtocolConfig]:
    """Return the protocols by which a training is evaluated at its end; none without a split.

    Raises:
        ValueError: there is no preset of a name.
    """
    if cfg.dataset.validation_split is None:
        return []
    return [cfg.protocol, *(load_protocol(name, "extra_protocols") for name in cfg.extra_protocols)]


def job_result(cfg: TrainConfig, folder: Path) -> float | bool:
    """Return what a job of a sweep gives to the sweeper: its objective, or whether it succeeded.

    A job without the objective's value gives NaN, which sweepers take for a failure.
    """
    result, nan = read_result(folder), float("nan")
    if cfg.objective is None:
        return result.finished
    if result.finished and cfg.objective not in result.metrics:
        logged = ", ".join(result.metrics)
        text = f"error: objective={cfg.objective} was not logged; logged were {logged}."
        print(text, file=sys.stderr)
    return result.metrics.get(cfg.objective, nan) if result.finished else nan


def evaluation_folder(folder: Path, where: str) -> Path:
    """Return the folder of an evaluation that a run's result names.

    Raises:
        ValueError: it is not one of the run's own.
    """
    parts = Path(where).parts
    if len(parts) != 2 or parts[0] != "evaluate" or safe_name(parts[1]) != parts[1]:
        raise ValueError(f"{where!r} is no evaluation of the run")
    return folder / where


def missing_protocols(cfg: TrainConfig, folder: Path) -> list[ProtocolConfig]:
    """Return the protocols by which a finished run has no evaluation with the wanted boundaries."""
    done = set()
    for protocol, where in read_result(folder).evaluations.items():
        found = read_json(dict[str, Any], evaluation_folder(folder, where) / "scores.json") or {}
        boundary = found.get("boundary") or {"ratio": cfg.dataset.boundary_ratio}
        if found and boundary["ratio"] == cfg.dataset.boundary_ratio:
            done.add(protocol)
    return [each for each in wanted_protocols(cfg) if each.describe() not in done]


def is_complete(cfg: TrainConfig, folder: Path) -> bool:
    """Tell whether the same command would find nothing to do in a run folder."""
    result = read_result(folder)
    return cfg.resume == "auto" and result.finished and not missing_protocols(cfg, folder)


def announce_finished(cfg: TrainConfig, folder: Path) -> None:
    """Say that a run had finished before."""
    print(f"Finished before: {folder / 'result.json'}. Train it anew with resume=never.")
    if moved := describe_move(read_result(folder).data_root, cfg.dataset):
        print(moved)


def describe_move(before: str | None, dataset: DatasetConfig) -> str:
    """Say that a run's data lie elsewhere now; "" where they do not, or where it is not known.

    Args:
        before: the folder of the data, as `data_root` gave it.
        dataset: the data set today. $CAMVID_ROOT, or a link, may lead elsewhere.
    """
    now = data_root(dataset)
    if not before or not now or before == now:
        return ""
    return f"Note: it was trained on data in {before}, and the data are in {now} now."


def data_root(dataset: DatasetConfig) -> str | None:
    """Return the folder of a data set's files without links; None where there is none."""
    from cyclenet.data.open import find_root  # It imports readers of images.

    try:
        return str(find_root(dataset).resolve(strict=True))
    except (OSError, ValueError):
        return None


def check_finished(cfg: TrainConfig, folder: Path) -> None:
    """Refuse a folder in which a run of another configuration has finished.

    Raises:
        ValueError: naming what differs.
    """
    try:
        stored = read_config(folder / "config.yaml")
    except (OSError, ValueError, OmegaConfBaseException):
        return  # Another version wrote it: nothing can be told.
    if found := differences(stored, cfg):
        raise ValueError(
            f"{folder} holds a finished run with another {', '.join(found)}: give another "
            "hydra.run.dir, or resume=never to train there anew."
        )
