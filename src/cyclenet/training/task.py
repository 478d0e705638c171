"""The LightningModule: loss, optimizer, schedule and validation around the network."""

import math
import os
import time
from dataclasses import asdict
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from cyclenet.config.schema import TrainConfig
from cyclenet.data.datamodule import SegmentationData
from cyclenet.data.views import Place, Views
from cyclenet.models.cyclenet import build_model
from cyclenet.models.stored import LAYOUT
from cyclenet.scoring.inference import as_input, computing, from_features, predict, view_features
from cyclenet.scoring.metrics import ConfusionMatrix, Scores, scores
from cyclenet.training.losses import SegmentationLoss, occurrence_loss
from cyclenet.training.optim import build_optimizer, parameter_groups, schedule


class SegmentationTask(L.LightningModule):
    """Train and validate one arm.

    Hyper-parameters are plain types (the configuration as a dict, class names, palette), so that a
    checkpoint loads with ``torch.load(weights_only=True)`` and rebuilds the network by itself
    (`cyclenet.deploy.load.rebuild`).

    Args:
        cfg: the whole configuration.
        classes: class names, by train id.
        palette: RGB of each class.

    Attributes:
        val_scores: scores of the last validation; None before the first.
        validated_at: optimizer step of the last validation; -1 before the first.
    """

    def __init__(self, cfg: TrainConfig, classes: list[str], palette: list[list[int]]) -> None:
        super().__init__()
        plain = {"cfg": asdict(cfg), "classes": classes, "palette": palette}
        self.save_hyperparameters(plain, logger=False)
        self.cfg, self.classes, self.palette = cfg, classes, palette
        self.net = build_model(cfg.model, len(classes), cfg.dataset.crop_size)
        self.loss = SegmentationLoss(cfg.loss, len(classes), self.net.grid)
        self.confusion = ConfusionMatrix(len(classes))
        self.val_scores: Scores | None = None
        self.validated_at = -1
        # What the processes before this one logged and spent, if the run was interrupted.
        self._earlier: dict[str, Any] = {"metrics": {}, "seconds": 0.0, "cpu_seconds": 0.0}
        self._began, self._cpu_before = time.monotonic(), _cpu_seconds()

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        logits, extras = self.outputs(batch)
        loss = self.loss(logits, batch["mask"])
        self._note("loss_main", loss)
        context, decoder = self.net.context, self.net.decoder
        weights = {"aux": self.cfg.loss.aux_weight, **context.extra_weights}
        weights |= decoder.extra_weights
        for name, value in extras.items():
            of_image = value.ndim == 2
            extra = (occurrence_loss if of_image else self.loss)(value, batch["mask"])
            self._note(f"loss_{name}", extra)
            loss = loss + weights[name] * extra
        self._note("loss", loss)
        for name, value in decoder.diagnostics.items():
            self._note(name, value)
        return loss * self._accumulation_correction(batch_idx)

    def outputs(self, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the network's outputs for images, for crops of views, or for their features."""
        if "image" in batch:
            return self.net(batch["image"])
        if "features" in batch:
            return self.net.segment(as_input(self.net, batch["features"]))
        maps = [
            self._crop(view_features(self.net, view[None]), view, Place(*place))
            for view, place in zip(batch["view"], batch["place"], strict=True)
        ]
        layout = torch.channels_last
        levels = zip(*maps, strict=True)
        return self.net.segment(
            [torch.cat(level).contiguous(memory_format=layout) for level in levels]
        )

    def _crop(self, maps: list[Tensor], view: Tensor, place: Place) -> list[Tensor]:
        views = Views(self.cfg.dataset, self.net.grid)
        padded = self.net.grid.padded(view.shape[-2:])
        windows = views.windows([(x.shape[-2], x.shape[-1]) for x in maps], padded, place)
        return [x[..., rows, columns] for x, (rows, columns) in zip(maps, windows, strict=True)]

    def _accumulation_correction(self, batch_idx: int) -> float:
        """Return a factor that makes a step's gradient the mean over the batches of the step.

        Lightning divides by ``accumulate_grad_batches``, also at the end of an epoch, where a step
        may have fewer batches.
        """
        full = self.cfg.trainer.accumulate_grad_batches
        left = self._data.batches_per_epoch - batch_idx // full * full
        return full / min(full, left)

    def _note(self, name: str, value: Tensor) -> None:
        # `cyclenet.training.callbacks` logs it, and shows it: Lightning's own way to the progress
        # bar waits for a GPU in each step.
        self.log(f"train/{name}", value.detach(), logger=False)

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Count one image, at its mask's own size; return its prediction (1, H, W)."""
        net, features = self.net, batch.get("features")
        network = net.logits if features is None else from_features(net, features)
        with computing("32-true", self.device):
            prediction = predict(network, batch["image"], self.cfg.protocol, net.grid)
        self.confusion.update(prediction, batch["mask"])
        return prediction

    def on_validation_epoch_end(self) -> None:
        found = scores(self.confusion.compute().cpu(), self.classes)
        self.val_scores = found
        self.confusion.reset()
        self.validated_at = self.trainer.global_step
        # The matrix was summed over processes: the values are the same on all of them.
        self.log("val/mIoU", found.mIoU, prog_bar=True, rank_zero_only=True)
        self.log("val/pixel_accuracy", found.pixel_accuracy, rank_zero_only=True)
        for name, value in found.IoU.items():
            if value is not None:
                self.log(f"val/IoU/{name}", value, rank_zero_only=True)

    def on_train_end(self) -> None:
        self._earlier["metrics"] = self.metrics  # A validation after the training forgets them.

    @property
    def metrics(self) -> dict[str, float]:
        """The last value of everything that was logged."""
        logged = {key: value.item() for key, value in self.trainer.callback_metrics.items()}
        return self._earlier["metrics"] | logged

    @property
    def seconds(self) -> float:
        """Time spent on the run, also by the processes before this one."""
        return float(self._earlier["seconds"] + time.monotonic() - self._began)

    @property
    def cpu_seconds(self) -> float:
        """Time that processors spent on the run, also for the processes before this one.

        Loader processes count once they have ended.
        """
        return float(self._earlier["cpu_seconds"] + _cpu_seconds() - self._cpu_before)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["run"] = {
            "metrics": self.metrics,
            "seconds": self.seconds,
            "cpu_seconds": self.cpu_seconds,
            "validated_at": self.validated_at,
            "precision": self.trainer.precision,
            "processes": self.trainer.world_size,
            "layout": LAYOUT,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self.trainer.precision == "64-true":  # Lightning would load float32 and convert it.
            self.double()
        # Checkpoints written before this key existed have no `run`.
        if "run" in checkpoint:
            kept = ("metrics", "seconds", "cpu_seconds")
            self._earlier = {key: checkpoint["run"][key] for key in kept}
            self.validated_at = checkpoint["run"]["validated_at"]

    def configure_optimizers(self) -> Any:
        cfg = self.cfg.optim
        # The fused step unscales 16-bit gradients itself, so clipping would see them scaled;
        # Lightning refuses the pair.
        fused = self.cfg.trainer.gradient_clip_norm == 0
        optimizer, steps = build_optimizer(self.net, cfg, fused), self.total_steps
        scheduler = LambdaLR(optimizer, lambda step: schedule(step, steps, cfg))
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

    def on_fit_start(self) -> None:
        model, modules = self.cfg.model, self.net.backbone.modules()
        if model.freeze_norm and not any(hasattr(each, "running_mean") for each in modules):
            raise ValueError(f"model.freeze_norm: {model.backbone} has no batch norm: leave it.")

    def on_train_start(self) -> None:
        # Rates always follow the configuration. A checkpoint brings those that it was made with,
        # which differ where force=true changed them.
        cfg, optimizer = self.cfg.optim, self.trainer.optimizers[0]
        scheduler = self.trainer.lr_scheduler_configs[0].scheduler
        wanted = parameter_groups(self.net, cfg)
        factor = schedule(scheduler.last_epoch, self.total_steps, cfg)
        for group, new in zip(optimizer.param_groups, wanted, strict=True):
            group |= {"initial_lr": new["lr"], "lr": new["lr"] * factor}
            group["weight_decay"] = new["weight_decay"]
            if cfg.optimizer == "sgd":
                group["momentum"] = cfg.momentum
        scheduler.base_lrs = [new["lr"] for new in wanted]

    @property
    def _data(self) -> SegmentationData:
        return self.trainer.datamodule  # type: ignore[attr-defined]

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole training."""
        # Lightning's `estimated_stepping_batches` would build all loaders only to count batches.
        options = self.cfg.trainer
        an_epoch = math.ceil(self._data.batches_per_epoch / options.accumulate_grad_batches)
        steps = options.max_epochs * an_epoch
        return min(steps, options.max_steps) if options.max_steps > 0 else steps


def _cpu_seconds() -> float:
    """Return the time that processors spent on this process and its children that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
