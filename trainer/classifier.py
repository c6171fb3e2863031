"""Trains a classifier: SGD with Nesterov momentum on a one-cycle schedule, with progressive resizing."""

from typing import Annotated, cast

import torch
from lightning_fabric import Fabric
from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.lr_scheduler import OneCycleLR
from torch.optim.optimizer import Optimizer

from models.device import send
from trainer.adversarial_training import AdversarialTraining, Example
from trainer.augmentation import crop, draw_corners, draw_flips, flip, reflect
from trainer.batch_norm import share_batch_norms
from trainer.devices import share
from trainer.errors import TooFewImagesError
from trainer.images import LabeledImages
from trainer.loop import Stateful, Task
from trainer.sampling import Epochs, generator, seeded, step_seed

ALMOST = 1 - 1e-6


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
        momentum: that of Nesterov; 0 is plain SGD.
        weight_decay: of the weights; biases and batch norms have none.
        padding: the largest shift of an image, in pixels of its full size.
        adversarial: how it learns to resist attacks itself; none for a standard classifier.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    phases: Annotated[tuple[Phase, ...], Field(min_length=1)]
    batch_size: PositiveInt = 128
    peak_learning_rate: PositiveFloat = 0.1
    warmup: Annotated[float, Field(gt=0, lt=1)] = 0.2
    momentum: NonNegativeFloat = 0.9
    weight_decay: NonNegativeFloat = 5e-4
    label_smoothing: Annotated[float, Field(ge=0, le=1)] = 0.1
    padding: NonNegativeInt = 4
    adversarial: AdversarialTraining | None = None

    def resolutions(self) -> list[int]:
        """The resolution of every epoch, in order."""
        return [phase.resolution for phase in self.phases for _ in range(phase.epochs)]


def require_batch(name: str, training: ClassifierTraining, data: LabeledImages, fabric: Fabric) -> slice:
    """Checks that the images make a batch; gives the part of one that belongs to this process.

    Raises:
        TooFewImagesError: there are fewer images than one batch takes.
        DeviceError: a batch cannot be shared equally by the processes.
    """
    if len(data) < training.batch_size:
        raise TooFewImagesError(f"{name}: {len(data)} images are fewer than a batch of {training.batch_size}")
    return share(training.batch_size, fabric, f"{name}: a batch")


class ClassifierTask(Task):
    """The training of one classifier.

    Args:
        name: of the task.
        network: takes `(N, 3, H, W)` floats in [0, 1]; trained in place, on the device of `fabric`.
        training: its settings.
        data: what it learns from.
        fabric: where it runs.
        seed: of the order of the images, their augmentation and attacks, and of what the network itself draws.

    Raises:
        TooFewImagesError: there are fewer images than one batch takes.
        DeviceError: a batch cannot be shared equally by the processes.
    """

    def __init__(
        self,
        name: str,
        network: nn.Module,
        training: ClassifierTraining,
        data: LabeledImages,
        fabric: Fabric,
        seed: int,
    ) -> None:
        self.name = name
        self.training = training
        self.data = data
        self.fabric = fabric
        self.seed = seed
        self.own = require_batch(name, training, data, fabric)
        self.epochs = Epochs(len(data), training.batch_size, seed)
        self.resolutions = training.resolutions()
        self.steps = len(self.resolutions) * self.epochs.steps
        if fabric.world_size > 1:
            share_batch_norms(network)
        self.network = network.to(fabric.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimizer = self._optimizer()
        self.schedule = OneCycleLR(
            optimizer,
            max_lr=training.peak_learning_rate,
            total_steps=self.steps,
            pct_start=self._warmup(),
            anneal_strategy="linear",
            cycle_momentum=False,
        )
        self.trained = fabric.setup_module(self.network)
        self.optimizer = cast("Optimizer", fabric.setup_optimizers(optimizer))

    def parts(self) -> dict[str, Stateful]:
        """Network, optimizer and schedule."""
        return {"network": self.network, "optimizer": self.optimizer, "schedule": self.schedule}

    def step(self, number: int) -> dict[str, Tensor]:
        """One optimizer step on one batch."""
        images, labels = self._batch(number)
        images, labels = images[self.own], labels[self.own]
        # Dropout and stochastic depth draw from the global generator; each process drops what it likes.
        with seeded(self.fabric.device, step_seed(self.seed, f"forward/{self.fabric.global_rank}", number)):
            loss = self._loss(images, labels, number)
        self.optimizer.zero_grad(set_to_none=True)
        self.fabric.backward(loss)
        self.optimizer.step()
        self.schedule.step()
        return {"loss": loss.detach()}

    def _loss(self, images: Tensor, labels: Tensor, number: int) -> Tensor:
        smoothing = self.training.label_smoothing
        self.network.train()
        if self.training.adversarial is None:
            return functional.cross_entropy(self.trained(images).float(), labels, label_smoothing=smoothing)
        adversarial = self.training.adversarial
        shape = torch.Size([self.training.batch_size, *images.shape[1:]])
        draw = adversarial.attack.draw(shape, generator(self.seed, "attack", number)).part(self.own)
        example = Example(images, labels, draw, smoothing)
        with self.fabric.autocast():
            attacked = adversarial.attack_images(self.network, example)
        return adversarial.loss(self.trained, example, attacked)

    def _batch(self, number: int) -> tuple[Tensor, Tensor]:
        """The whole batch of a step, `(batch, 3, resolution, resolution)` in [0, 1], for all processes."""
        chosen = self.epochs.indices(number)
        random = generator(self.seed, "augmentation", number)
        size, padding = self.data.images.shape[-1], self.training.padding
        flips = draw_flips(len(chosen), random)
        corners = draw_corners(len(chosen), 2 * padding, random)
        images = flip(send(self.data.images[chosen], self.fabric.device), flips)
        images = crop(reflect(images, padding), corners, size).float().div_(255)
        resolution = self.resolutions[number // self.epochs.steps]
        if resolution != size:
            images = functional.interpolate(images, size=(resolution, resolution), mode="bilinear", antialias=True)
        images = images.contiguous(memory_format=torch.channels_last)
        return images, send(self.data.labels[chosen], self.fabric.device)

    def _warmup(self) -> float:
        """The share of the steps; a little less if it is just one step, which `OneCycleLR` divides by less one."""
        warmup = self.training.warmup
        return warmup * ALMOST if warmup * self.steps == 1 else warmup

    def _optimizer(self) -> Optimizer:
        weights = [parameter for parameter in self.network.parameters() if parameter.ndim > 1]
        others = [parameter for parameter in self.network.parameters() if parameter.ndim <= 1]
        groups = [
            {"params": weights, "weight_decay": self.training.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ]
        momentum = self.training.momentum
        return torch.optim.SGD(groups, lr=self.training.peak_learning_rate, momentum=momentum, nesterov=momentum > 0)
