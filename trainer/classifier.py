"""Trains a classifier from nothing: SGD with Nesterov momentum on a one-cycle schedule, with progressive resizing."""

from collections.abc import Callable, Iterator
from math import isfinite
from pathlib import Path
from typing import Annotated

import torch
from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.lr_scheduler import OneCycleLR
from torch.optim.optimizer import Optimizer

from trainer.augmentation import random_crop, random_flip
from trainer.errors import DivergedError, TooFewImagesError
from trainer.images import LabeledImages


class Phase(BaseModel):
    """Some epochs at one resolution; cheap small images first, the full size last."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: PositiveInt
    resolution: Annotated[int, Field(ge=8)]


class ClassifierTraining(BaseModel):
    """How a classifier is trained.

    Attributes:
        phases: resolutions in the order in which they are trained; the last should be the one that is served.
        peak_learning_rate: reached after `warmup` of all steps, then annealed to zero.
        weight_decay: of the weights; biases and batch norms have none.
        padding: the largest shift of an image, in pixels of its full size.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    phases: Annotated[tuple[Phase, ...], Field(min_length=1)]
    batch_size: PositiveInt = 128
    peak_learning_rate: PositiveFloat = 0.1
    warmup: Annotated[float, Field(gt=0, lt=1)] = 0.2
    momentum: NonNegativeFloat = 0.9
    weight_decay: NonNegativeFloat = 5e-4
    label_smoothing: NonNegativeFloat = 0.1
    padding: NonNegativeInt = 4

    def resolutions(self) -> list[int]:
        """The resolution of every epoch, in order."""
        return [phase.resolution for phase in self.phases for _ in range(phase.epochs)]


class ClassifierTrainer:
    """One training run, which can stop after any epoch and go on from its checkpoint.

    Args:
        network: takes `(N, 3, H, W)` floats in [0, 1]; trained in place.
        training: the settings of the run.
        data: what it learns from.
        device: where it runs.
        seed: of the order of the images and their augmentation.

    Raises:
        TooFewImagesError: there are fewer images than one batch takes.
    """

    def __init__(
        self,
        network: nn.Module,
        training: ClassifierTraining,
        data: LabeledImages,
        device: torch.device,
        seed: int,
    ) -> None:
        if len(data) < training.batch_size:
            raise TooFewImagesError(f"{len(data)} images are fewer than a batch of {training.batch_size}")
        self.network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.training = training
        self.data = data
        self.device = device
        self.generator = torch.Generator().manual_seed(seed)
        self.epochs_done = 0
        self.optimizer = self._optimizer()
        self.schedule = OneCycleLR(
            self.optimizer,
            max_lr=training.peak_learning_rate,
            total_steps=len(training.resolutions()) * (len(data) // training.batch_size),
            pct_start=training.warmup,
            anneal_strategy="linear",
            cycle_momentum=False,
        )

    def run(self, checkpoint: Path, report: Callable[[int, float], None]) -> None:
        """Trains the epochs that are left; after each writes `checkpoint` and reports its number and mean loss.

        Raises:
            DivergedError: the loss is no longer a number.
        """
        if checkpoint.exists():
            self._restore(checkpoint)
        for resolution in self.training.resolutions()[self.epochs_done :]:
            loss = self._epoch(resolution)
            if not isfinite(loss):
                raise DivergedError(f"the loss is {loss} in epoch {self.epochs_done + 1}")
            self.epochs_done += 1
            self._save(checkpoint)
            report(self.epochs_done, loss)

    def _epoch(self, resolution: int) -> float:
        self.network.train()
        total = torch.zeros((), device=self.device)
        batches = 0
        for images, labels in self._batches(resolution):
            with torch.autocast(self.device.type, torch.bfloat16):
                logits = self.network(images)
            loss = functional.cross_entropy(logits.float(), labels, label_smoothing=self.training.label_smoothing)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            self.schedule.step()
            total += loss.detach()
            batches += 1
        return float(total) / batches

    def _batches(self, resolution: int) -> Iterator[tuple[Tensor, Tensor]]:
        size = self.data.images.shape[-1]
        order = torch.randperm(len(self.data), generator=self.generator)
        for start in range(0, len(order) - self.training.batch_size + 1, self.training.batch_size):
            chosen = order[start : start + self.training.batch_size]
            images = random_flip(self.data.images[chosen], self.generator)
            images = random_crop(images, size, self.training.padding, self.generator)
            images = images.to(self.device).float().div_(255)
            if resolution != size:
                images = functional.interpolate(images, size=(resolution, resolution), mode="bilinear", antialias=True)
            images = images.contiguous(memory_format=torch.channels_last)
            yield images, self.data.labels[chosen].to(self.device)

    def _optimizer(self) -> Optimizer:
        weights = [parameter for parameter in self.network.parameters() if parameter.ndim > 1]
        others = [parameter for parameter in self.network.parameters() if parameter.ndim <= 1]
        groups = [
            {"params": weights, "weight_decay": self.training.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ]
        return torch.optim.SGD(
            groups, lr=self.training.peak_learning_rate, momentum=self.training.momentum, nesterov=True
        )

    def _save(self, checkpoint: Path) -> None:
        partial = checkpoint.with_suffix(".partial")
        state = {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "generator": self.generator.get_state(),
            "epochs_done": self.epochs_done,
        }
        torch.save(state, partial)
        partial.replace(checkpoint)

    def _restore(self, checkpoint: Path) -> None:
        state = torch.load(checkpoint, map_location=self.device, weights_only=True)
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.generator.set_state(state["generator"].cpu())
        self.epochs_done = state["epochs_done"]
