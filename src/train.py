"""Train one configuration: ``python src/train.py [experiment=NAME] [KEY=VALUE ...]``."""

# Only light imports here: --help and a typo answer in a fraction of a second.
import json
import time
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from cyclenet.cli import check_train_arguments, sentence, user_errors
from cyclenet.config import TrainConfig, register, to_config

register()


@hydra.main(version_base="1.3", config_path="../conf", config_name="config")
def main(cfg: DictConfig) -> None:
    """Check the configuration, train, and leave ``result.json`` as the very last file of the run folder."""
    hydra_cfg = HydraConfig.get()
    arguments = Path(hydra_cfg.runtime.output_dir), list(hydra_cfg.overrides.task)
    if hydra_cfg.mode == RunMode.MULTIRUN:
        # An ordinary exception: Hydra goes on with the next job.
        options = cfg.trainer
        if options.strategy.startswith("ddp") or options.num_nodes > 1 or options.devices != "1":
            # Lightning's launcher leaves its environment behind: the second job would train on a part of the data.
            raise ValueError("A sweep (-m) runs its jobs in one process, where DDP goes wrong silently: set trainer.devices=1.")
        train(to_config(TrainConfig, cfg), *arguments)
    else:
        with user_errors():
            train(to_config(TrainConfig, cfg), *arguments)


def train(cfg: TrainConfig, folder: Path, overrides: list[str]) -> None:
    """Run training and validation in ``folder``; a run that has finished stands."""
    stored = folder / "result.json"
    if cfg.resume == "auto" and stored.exists() and json.loads(stored.read_text())["status"] == "finished":
        print(f"Finished before: {stored}. Train it anew with resume=never.")
        return

    import lightning as L

    from cyclenet.data.datamodule import SegmentationData
    from cyclenet.engine import BEST, build_trainer, close_loggers, is_first_process, peak_rss_mb, prepare_folder, quiet
    from cyclenet.pictures import score_table
    from cyclenet.task import SegmentationTask

    quiet()
    started = time.time()
    first = is_first_process()
    result: dict[str, Any] = {"status": "failed", "metrics": {}, "overrides": overrides}
    try:
        checkpoint = prepare_folder(cfg, folder, first)
        L.seed_everything(cfg.seed, verbose=False)
        trainer = build_trainer(cfg, folder, checkpoint)
        on_gpu = trainer.strategy.root_device.type == "cuda"
        data = SegmentationData(cfg.dataset, cfg.seed, cfg.trainer.num_workers, pin_memory=on_gpu)
        data.prepare_data()
        data.setup("fit")
        source = data.train_source
        task = SegmentationTask(cfg, source.classes, source.palette.tolist())
        trainer.print(f"{len(source)} training and {len(data.val_source)} validation images; run folder {folder}")
        trainer.fit(task, data, ckpt_path=checkpoint)
        metrics = {key: value.item() for key, value in trainer.callback_metrics.items()}
        if task.validated_at != trainer.global_step:  # trainer.max_steps ended an epoch early.
            trainer.validate(task, data, verbose=False)
            metrics |= {key: value.item() for key, value in trainer.callback_metrics.items()}
            if not (folder / BEST).exists():
                trainer.save_checkpoint(folder / BEST)
        trainer.print(f"{score_table(task.val_scores)}\nProtocol: {cfg.protocol.describe()}. Run folder: {folder}")
        result |= {
            "status": "finished",
            "metrics": metrics,
            "protocol": cfg.protocol.describe(),
            "epochs": trainer.current_epoch,
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
            result |= {"seconds": round(time.time() - started, 1), "peak_rss_mb": peak_rss_mb()}
            part = folder / "result.json.tmp"
            part.write_text(json.dumps(result, indent=1))
            part.replace(stored)


if __name__ == "__main__":
    check_train_arguments("config", TrainConfig)
    main()
