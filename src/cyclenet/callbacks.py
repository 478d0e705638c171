"""What happens around the training steps: seeds, pictures, progress."""

import random
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger

from cyclenet.data.loader import derive
from cyclenet.pictures import panel, save_png
from cyclenet.task import SegmentationTask


class SeedPerStep(L.Callback):
    """Seed the random generators from (seed, batch, process) before each batch.

    Dropout is then a function of the step alone, and a resumed run draws what an uninterrupted one draws.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(self, trainer: L.Trainer, module: L.LightningModule, batch: Any, batch_idx: int) -> None:
        epoch_loop = trainer.fit_loop.epoch_loop
        value = derive(self.seed, "step", epoch_loop.total_batch_idx, trainer.global_rank)
        random.seed(value)
        np.random.seed(value)
        torch.manual_seed(value)


class ValidateLastEpoch(L.Callback):
    """Validate the last epoch too, whatever the interval, so that the final weights compete for the best checkpoint."""

    def on_train_epoch_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        if trainer.current_epoch + 1 == trainer.max_epochs:
            trainer.check_val_every_n_epoch = 1


class Progress(RichProgressBar):
    """Rich's bar without Lightning's version number."""

    def get_metrics(self, trainer: L.Trainer, module: L.LightningModule) -> dict[str, Any]:
        items = super().get_metrics(trainer, module)
        items.pop("v_num", None)
        return items


def _epoch(trainer: L.Trainer) -> int:
    # From 1; after the fit, when `current_epoch` has gone past the end, the last.
    return min(trainer.current_epoch + 1, trainer.max_epochs or 1)


class PrintScores(L.Callback):
    """Print a line after each validation, for logs, where a progress bar shows nothing."""

    def on_validation_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        if isinstance(module, SegmentationTask) and not trainer.sanity_checking:
            protocol = module.cfg.protocol.name
            score, loss = module.val_scores["mIoU"], trainer.callback_metrics.get("train/loss", float("nan"))
            trainer.print(
                f"epoch {_epoch(trainer)}/{trainer.max_epochs}: loss {loss:.3f}, val mIoU {100 * score:.2f} % ({protocol})"
            )


class ValidationPictures(L.Callback):
    """Keep the predictions of a few validation images, as a PNG in the run folder and as images in the loggers.

    Args:
        folder: receives ``validation.png``, drawn anew after each validation.
        every_epochs: epochs between images in the loggers; 0: none.
        count: of images, spread evenly over the first process's share of the validation split.
    """

    def __init__(self, folder: Path, every_epochs: int, count: int = 4) -> None:
        self.folder, self.every_epochs, self.count = folder, every_epochs, count
        self.rows: list[tuple[np.ndarray, np.ndarray, list[np.ndarray]]] = []
        self.names: list[str] = []

    def on_validation_epoch_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self.rows, self.names = [], []
        length = int(trainer.num_val_batches[0])
        self.indices = set(np.linspace(0, length - 1, min(self.count, length)).round().astype(int).tolist())

    def on_validation_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if trainer.is_global_zero and batch_idx in self.indices:
            image = batch["image"][0].permute(1, 2, 0).cpu().numpy()
            prediction = outputs[0].to(torch.uint8).cpu().numpy()
            self.rows.append((image, batch["mask"][0].cpu().numpy(), [prediction]))
            self.names.append(batch["name"][0])

    def on_validation_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        if not self.rows or trainer.sanity_checking or not isinstance(module, SegmentationTask):
            return
        palette = np.array(module.palette, np.uint8)
        picture = panel(self.rows, [f"epoch {_epoch(trainer)}"], module.classes, palette)
        save_png(self.folder / "validation.png", picture)
        if not self.every_epochs or (_epoch(trainer) % self.every_epochs and _epoch(trainer) != trainer.max_epochs):
            return
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                self._log_wandb(logger, module, trainer.global_step)
            elif isinstance(logger, TensorBoardLogger):
                logger.experiment.add_image("val/pictures", picture, trainer.global_step, dataformats="HWC")

    def _log_wandb(self, logger: WandbLogger, module: SegmentationTask, step: int) -> None:
        import wandb

        labels = dict(enumerate(module.classes))
        images = [
            wandb.Image(
                image,
                caption=name,
                masks={
                    "prediction": {"mask_data": predictions[0], "class_labels": labels},
                    "ground_truth": {"mask_data": truth, "class_labels": labels},
                },
            )
            for (image, truth, predictions), name in zip(self.rows, self.names, strict=True)
        ]
        rows = [[name, value] for name, value in module.val_scores["IoU"].items()]
        table = wandb.Table(columns=["class", "IoU"], data=rows)
        logger.experiment.log({"val/pictures": images, "val/per_class": table, "trainer/global_step": step})
