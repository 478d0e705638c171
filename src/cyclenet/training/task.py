"""The LightningModule: losses, optimizer, schedule and validation around the network."""

import math
import os
import time
from dataclasses import asdict
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from cyclenet.config import OptimConfig, ProtocolConfig, TrainConfig
from cyclenet.data.datamodule import SegmentationData
from cyclenet.models import build_model
from cyclenet.models.decoder import ADC
from cyclenet.scoring.inference import predict
from cyclenet.scoring.metrics import ConfusionMatrix, scores
from cyclenet.training.losses import SegmentationLoss


class SegmentationTask(L.LightningModule):
    """Train and validate one arm.

    Hyper-parameters are plain types (the config as a dict, class names, palette), so that a checkpoint loads with
    ``torch.load(weights_only=True)`` and rebuilds the task by itself (`cyclenet.training.checkpoint.load_task`).

    Args:
        cfg: the whole configuration.
        classes: class names, by train id.
        palette: RGB of each class.
    """

    def __init__(self, cfg: TrainConfig, classes: list[str], palette: list[list[int]]) -> None:
        super().__init__()
        self.save_hyperparameters({"cfg": asdict(cfg), "classes": classes, "palette": palette}, logger=False)
        self.cfg, self.classes, self.palette = cfg, classes, palette
        self.net = build_model(cfg.model, len(classes))
        self.loss = SegmentationLoss(cfg.loss, len(classes), cfg.model.align_corners)
        self.confusion = ConfusionMatrix(len(classes))
        self.val_scores: dict[str, Any] = {}
        self.validated_at = -1
        # Of the processes before this one, if the run was interrupted.
        self._earlier: dict[str, Any] = {"metrics": {}, "seconds": 0.0, "cpu_seconds": 0.0}
        self._began = time.monotonic()
        self._offset_stats: tuple[Tensor, Tensor] | None = None
        if isinstance(self.net.decoder, ADC):
            self.net.decoder.offset_conv.register_forward_hook(self._note_offsets)

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        logits, aux = self.net(batch["image"])
        loss = self.loss(logits, batch["mask"])
        self._note("train/loss_main", loss)
        if aux is not None:
            aux_loss = self.loss(aux, batch["mask"])
            self._note("train/loss_aux", aux_loss)
            loss = loss + self.cfg.loss.aux_weight * aux_loss
        self._note("train/loss", loss)
        if self._offset_stats is not None:
            # Pixels of the 1/4 features; a maximum that grows without bound is how deformable training diverges.
            self._note("train/offset_mean", self._offset_stats[0])
            self._note("train/offset_max", self._offset_stats[1])
        return loss

    def _note(self, name: str, value: Tensor) -> None:
        # For the progress bar, and for `cyclenet.training.callbacks.LogSteps`.
        self.log(name, value.detach(), prog_bar=name == "train/loss", logger=False)

    def _note_offsets(self, module: torch.nn.Module, args: Any, predicted: Tensor) -> None:
        decoder = self.net.decoder
        if self.training and isinstance(decoder, ADC):
            offset = predicted[:, : 2 * decoder.offset_groups * decoder.taps].detach().abs()
            self._offset_stats = offset.float().mean(), offset.max().float()

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Count one image, at its mask's own size; return its prediction (H, W)."""
        prediction = self.predict(batch["image"])
        self.confusion.update(prediction, batch["mask"])
        return prediction

    def predict(self, image: Tensor, protocol: ProtocolConfig | None = None, precision: str = "32-true") -> Tensor:
        """Return the predicted train ids (N, H, W), uint8, of images (N, 3, H, W), RGB in 0..255.

        Args:
            image: on the model's device.
            protocol: windows, scales and flip; None: those of the training's validation.
            precision: of the network, ``32-true`` or ``bf16-mixed``. In float32 unless one asks, whatever the training's: a
                number that is reported must not depend on it.
        """
        protocol, corners = protocol or self.cfg.protocol, self.cfg.model.align_corners
        # TF32, in which cuDNN computes float32 convolutions by default, has 10 bits of them.
        tf32, torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.allow_tf32, False
        try:
            with torch.autocast(self.device.type, torch.bfloat16, enabled=precision == "bf16-mixed"):
                # Not compiled: images differ in size.
                return predict(lambda view: self.net.forward(view)[0], image, protocol, corners)
        finally:
            torch.backends.cudnn.allow_tf32 = tf32

    def on_validation_epoch_end(self) -> None:
        self.val_scores = scores(self.confusion.compute().cpu(), self.classes)
        self.confusion.reset()
        self.validated_at = self.trainer.global_step
        # The matrix was summed over processes: the values are the same on all of them.
        self.log("val/mIoU", self.val_scores["mIoU"], prog_bar=True, rank_zero_only=True)
        self.log("val/pixel_accuracy", self.val_scores["pixel_accuracy"], rank_zero_only=True)
        for name, value in self.val_scores["IoU"].items():
            if value is not None:
                self.log(f"val/IoU/{name}", value, rank_zero_only=True)

    @property
    def metrics(self) -> dict[str, float]:
        """What was logged last, of each value."""
        return self._earlier["metrics"] | {key: value.item() for key, value in self.trainer.callback_metrics.items()}

    @property
    def seconds(self) -> float:
        """Time spent on the run, by the processes before this one too."""
        return self._earlier["seconds"] + time.monotonic() - self._began

    @property
    def cpu_seconds(self) -> float:
        """Time that processors spent on the run (of loader processes: those that have ended), and before this process too."""
        times = os.times()
        return self._earlier["cpu_seconds"] + times.user + times.system + times.children_user + times.children_system

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        progress = {"metrics": self.metrics, "seconds": self.seconds, "validated_at": self.validated_at}
        progress["cpu_seconds"] = self.cpu_seconds
        checkpoint["run"] = progress | {"precision": self.trainer.precision}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if "run" in checkpoint:  # Of an earlier version: not.
            self._earlier = self._earlier | checkpoint["run"]
            self.validated_at = checkpoint["run"]["validated_at"]

    def configure_optimizers(self) -> Any:
        cfg = self.cfg.optim
        # The fused step unscales 16-bit gradients itself, so clipping would see them scaled; Lightning refuses the pair.
        fused = self.cfg.trainer.gradient_clip_norm == 0
        groups = parameter_groups(self.net, cfg)
        optimizer = torch.optim.SGD(groups, cfg.lr, cfg.momentum, weight_decay=cfg.weight_decay, fused=fused)
        steps = self.total_steps
        schedule = LambdaLR(optimizer, lambda step: poly(step, steps, cfg))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_train_start(self) -> None:
        # A checkpoint brings the rates that it was made with; where force=true changed them, the configuration's count.
        optimizer, schedule = self.trainer.optimizers[0], self.trainer.lr_scheduler_configs[0].scheduler
        wanted = parameter_groups(self.net, self.cfg.optim)
        factor = poly(schedule.last_epoch, self.total_steps, self.cfg.optim)
        for group, new in zip(optimizer.param_groups, wanted, strict=True):
            group |= {"initial_lr": new["lr"], "lr": new["lr"] * factor}
            group |= {"weight_decay": new["weight_decay"], "momentum": self.cfg.optim.momentum}
        schedule.base_lrs = [new["lr"] for new in wanted]

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole training."""
        # Not `trainer.estimated_stepping_batches`, which makes all loaders to count their batches.
        options = self.cfg.trainer
        data: SegmentationData = self.trainer.datamodule  # type: ignore[attr-defined]
        steps = options.max_epochs * math.ceil(data.batches_per_epoch / options.accumulate_grad_batches)
        return min(steps, options.max_steps) if options.max_steps > 0 else steps


def poly(step: int, steps: int, cfg: OptimConfig) -> float:
    """Return the factor of the learning rate at ``step`` of ``steps``: (1 - step / steps) ** power, after a linear warm-up."""
    factor = max(1 - step / steps, 0.0) ** cfg.poly_power
    floor = cfg.min_lr / cfg.lr
    warmup = min((step + 1) / (cfg.warmup_steps + 1), 1.0)
    return warmup * (floor + (1 - floor) * factor)


def parameter_groups(net: torch.nn.Module, cfg: OptimConfig) -> list[dict[str, Any]]:
    """Split parameters into backbone and head (x ``head_lr_scale``), and by whether weight decay applies."""
    groups: dict[tuple[float, float], list[torch.nn.Parameter]] = {}
    for name, parameter in net.named_parameters():
        lr = cfg.lr * (1.0 if name.startswith("backbone.") else cfg.head_lr_scale)
        decay = cfg.weight_decay if cfg.decay_norm_and_bias or parameter.ndim > 1 else 0.0
        groups.setdefault((lr, decay), []).append(parameter)
    return [{"params": params, "lr": lr, "weight_decay": decay} for (lr, decay), params in groups.items()]
