"""Train one configuration: ``python src/train.py [experiment=NAME] [KEY=VALUE ...]``."""

# Only light imports here: --help and a typo answer in a fraction of a second.
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from cyclenet.commands.cli import USER_ERRORS, check_train_arguments, sentence, user_errors
from cyclenet.config import CONF, EvaluateConfig, ProtocolConfig, TrainConfig, register, to_config
from cyclenet.processes import end_well
from cyclenet.runs.results import check_finished, missing, protocols, read_result, write_result

register()


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
def _job(cfg: DictConfig) -> bool:
    """Check the configuration, train, and leave ``result.json`` as the very last file of the run folder.

    Returns:
        Of a sweep's job, whether it succeeded; the next job goes on (`cyclenet.lab.sweeps.after` ends the program).
    """
    hydra_cfg = HydraConfig.get()
    folder, overrides = Path(hydra_cfg.runtime.output_dir), list(hydra_cfg.overrides.task)
    if hydra_cfg.mode == RunMode.RUN:
        with user_errors():
            train(to_config(TrainConfig, cfg), folder, overrides)
        return True
    began = False
    try:
        parallel = cfg.trainer.num_nodes > 1 or cfg.trainer.devices != "1"
        if parallel and "BasicLauncher" in hydra_cfg.launcher._target_:
            # Lightning's launcher leaves its environment behind: the second job would train on a part of the data.
            raise ValueError(
                "With hydra/launcher=basic all jobs share a process, where DDP goes wrong: use hydra/launcher=process."
            )
        checked = to_config(TrainConfig, cfg)
        began = True
        train(checked, folder, overrides)
    except Exception as error:
        if not isinstance(error, USER_ERRORS):
            traceback.print_exc()
        print(f"error: {hydra_cfg.job.override_dirname}: {sentence(error) or type(error).__name__}", file=sys.stderr)
        if not began and not (folder / "result.json").exists():  # A finished run of that folder stands.
            folder.mkdir(parents=True, exist_ok=True)
            write_result(folder, {"status": "failed", "error": sentence(error), "overrides": overrides})
        return False
    return True


def train(cfg: TrainConfig, folder: Path, overrides: list[str]) -> None:
    """Train, validate and evaluate in ``folder``; of a run that has finished, only evaluations that are missing are made."""
    wanted, before = protocols(cfg), read_result(folder)
    if cfg.resume == "auto" and before.get("status") == "finished":
        check_finished(cfg, folder)
        if todo := missing(cfg, before):
            from cyclenet.training.checkpoint import load_checkpoint, load_task
            from cyclenet.training.trainer import LAST, choose_device, is_first_process

            if not is_first_process():
                return
            task = load_task(load_checkpoint(folder / LAST))
            device = choose_device("cpu" if cfg.trainer.accelerator == "cpu" else "auto")
            before["evaluations"] = before.get("evaluations", {}) | evaluate_all(task, cfg, folder, todo, device)
            write_result(folder, before)
        print(f"Finished before: {folder / 'result.json'}. Train it anew with resume=never.")
        return

    import lightning as L
    import torch

    from cyclenet.data.datamodule import SegmentationData
    from cyclenet.training.loggers import ResumableWandb, close_loggers
    from cyclenet.training.task import SegmentationTask
    from cyclenet.training.trainer import build_trainer, check_saved, is_first_process, lock, peak_rss_mb, prepare_folder, quiet

    quiet()
    started = time.time()
    first = is_first_process()
    in_use = lock(folder) if first else None
    result: dict[str, Any] = {"status": "failed", "metrics": {}, "overrides": overrides}
    try:
        checkpoint, step, precision = prepare_folder(cfg, folder, first)
        L.seed_everything(cfg.seed, verbose=False)
        trainer = build_trainer(cfg, folder, step, precision)
        device = trainer.strategy.root_device
        data = SegmentationData(cfg.dataset, cfg.seed, cfg.trainer.num_workers, pin_memory=device.type == "cuda")
        data.prepare_data()
        data.setup("fit")
        source = data.train_source
        task = SegmentationTask(cfg, source.classes, source.palette.tolist())
        if cfg.model.compile:
            task.net.compile()
        trainer.print(f"{len(source)} training and {len(data.val_source)} validation images; run folder {folder}")
        if checkpoint:
            trainer.print(f"Going on from {checkpoint}, step {step}")
        trainer.print(f"Validated by {cfg.protocol.describe()}")
        trainer.fit(task, data, ckpt_path=checkpoint)
        if task.validated_at != trainer.global_step:  # trainer.max_steps ended an epoch early.
            trainer.validate(task, data, verbose=False)
            trainer.checkpoint_callback.consider(trainer, task.val_scores["mIoU"])  # type: ignore[union-attr]
        if first:
            check_saved(folder, trainer)
        evaluations = evaluate_all(task, cfg, folder, wanted, device, trainer.global_rank, trainer.world_size)
        for logger in trainer.loggers:
            if isinstance(logger, ResumableWandb):
                for where in evaluations.values():
                    logger.log_evaluation(folder / where, trainer.global_step)
        trainer.print(f"Run folder: {folder}")
        result |= {
            "status": "finished",
            "metrics": task.metrics,
            "protocol": cfg.protocol.describe(),
            "evaluations": evaluations,
            "epochs": trainer.current_epoch,
            "train_seconds": round(task.seconds, 1),
            "cpu_seconds": round(task.cpu_seconds, 1),
            # With others of these, other last digits: sums are ordered by threads, `auto` chooses the precision by the CPU.
            "threads": torch.get_num_threads(),
            "precision": str(precision),
            "torch": torch.__version__,
        }
    except (KeyboardInterrupt, SystemExit):
        result["status"] = "interrupted"
        raise
    except BaseException as error:
        result["error"] = sentence(error) or type(error).__name__
        raise
    finally:
        if first:
            close_loggers()
            result |= {"seconds": round(time.time() - started, 1), "finished_at": time.time(), "peak_rss_mb": peak_rss_mb()}
            write_result(folder, result)
        if in_use:
            in_use.close()


def evaluate_all(
    task: Any, cfg: TrainConfig, folder: Path, protocols: list[ProtocolConfig], device: Any, rank: int = 0, world_size: int = 1
) -> dict[str, str]:
    """Evaluate the last weights by each protocol; return the folders by the protocols' descriptions."""
    from cyclenet.plots.pictures import score_table
    from cyclenet.runs.evaluate import boundary_line, evaluate
    from cyclenet.training.trainer import LAST

    folders = {}
    for protocol in protocols:
        options = EvaluateConfig(str(folder / LAST), cfg.dataset, protocol)
        scores, where = evaluate(task, options, folder, device, rank, world_size)
        folders[scores["protocol"]] = where.relative_to(folder).as_posix()
        if rank == 0:
            print(f"{score_table(scores)}\n{boundary_line(scores)}\nProtocol: {scores['protocol']}")
    return folders


def main() -> None:
    """Check the command line, then train, or sweep."""
    end_well()
    check_train_arguments("config", TrainConfig)
    _job()


if __name__ == "__main__":
    main()
