"""Trains the purifiers of a pool: all that belong to one attack see the same adversarial batches."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Self, cast

import torch
from lightning_fabric import Fabric
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)
from torch import Tensor, nn
from torch.optim.lr_scheduler import OneCycleLR
from torch.optim.optimizer import Optimizer

from models.device import send
from models.purifier import Purifier, PurifierConfig
from trainer.adversary import LEVELS, Attack
from trainer.augmentation import crop, draw_corners, draw_flips, flip
from trainer.devices import share
from trainer.guidance import Guidance, Guide
from trainer.images import LabeledImages
from trainer.loop import Stateful, Task
from trainer.query_noise import QueryNoise
from trainer.sampling import generator
from trainer.start import first_weights

PlainName = Annotated[str, Field(pattern=r"^[A-Za-z0-9]+$", max_length=40)]
"""Letters and digits alone: an attack and an architecture are joined by a hyphen to the name of a purifier."""


class PoolTraining(BaseModel):
    """How a pool is trained: one purifier for each pair of an attack and an architecture.

    The loss is equation (2) of PuriDefense with p = 1: the mean absolute error of purified attacked images, noisy ones
    among them, and `clean_weight` (lambda) times that of purified clean images.

    Attributes:
        attacks: by name.
        purifiers: architectures, by name.
        steps: optimizer steps of each purifier; 0 takes the pool of `start` as it is, for another classifier.
        adversarial: adversarial images in a batch.
        clean: clean images in a batch, which teach a purifier to leave an image alone.
        noise: noisy images in a batch, as query attacks make them; none by default, as in the paper.
        clean_weight: lambda.
        clean_after: share of the steps before the first clean image. A new purifier is the identity, and an L1 loss on
            clean images would keep it so: a correction has to pay on attacked images first.
        crop: side in pixels of the random crops that purifiers learn on, whose borders their convolutions see as zeros;
            where there is none, the side of a served window, which has such borders too.
        start: folder of a bundle whose purifiers of the same names and architectures give the first weights; new ones
            where there is none.
        guidance: a second term, that looks at the answers of the served classifier.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    attacks: Annotated[dict[PlainName, Attack], Field(min_length=1)]
    purifiers: Annotated[dict[PlainName, PurifierConfig], Field(min_length=1)]
    steps: NonNegativeInt = 1000
    adversarial: PositiveInt = 64
    clean: NonNegativeInt = 32
    noise: QueryNoise | None = None
    clean_weight: NonNegativeFloat = 0.5
    clean_after: Annotated[float, Field(ge=0, le=1)] = 0.2
    crop: PositiveInt | None = None
    peak_learning_rate: PositiveFloat = 1e-3
    weight_decay: NonNegativeFloat = 1e-4
    start: Path | None = None
    guidance: Guidance | None = None

    @model_validator(mode="after")
    def _begins_with_something(self) -> Self:
        if not self.steps and self.start is None:
            raise ValueError("steps is 0: name the bundle whose pool is taken as it is as `start`")
        return self

    @model_validator(mode="after")
    def _guided_images_are_there(self) -> Self:
        there = {"adversarial": self.adversarial, "clean": self.clean, "noise.images": self.noisy}
        for name, count in there.items():
            if self.guidance and 0 < count < self.guidance.images:
                raise ValueError(f"guidance.images: {self.guidance.images} of each sort, but {name} is {count}")
        return self

    @property
    def noisy(self) -> int:
        """Noisy images in a batch."""
        return self.noise.images if self.noise else 0

    def batches(self) -> tuple[int, ...]:
        """The sizes of the batches that a surrogate and a guide are shown."""
        attacked = (self.adversarial, self.adversarial + self.clean)
        if not self.guidance:
            return attacked
        sorts = [count for count in (self.adversarial, self.noisy, self.clean) if count]
        return (*attacked, self.guidance.images * len(sorts))


def require_shares(training: PoolTraining, fabric: Fabric) -> None:
    """Checks that several processes can share a batch.

    Raises:
        DeviceError: a part of it cannot be shared equally.
    """
    parts = {"adversarial": training.adversarial, "clean": training.clean, "noise.images": training.noisy}
    if training.guidance:
        parts["guidance.images"] = training.guidance.images
    for name, count in parts.items():
        share(count, fabric, f"pool.training.{name}")


def new_purifiers(training: PoolTraining, attack: str, seed: int) -> nn.ModuleDict:
    """The purifiers of one attack before their first step, by the name of their architecture.

    Raises:
        NetworkError: the bundle to start from has other purifiers.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator(seed, f"{attack}/weights", 0).initial_seed())
        purifiers = nn.ModuleDict({name: Purifier(config) for name, config in training.purifiers.items()})
    if training.start:
        first_weights(training.start, attack, purifiers)
    return purifiers


@dataclass(frozen=True)
class Victims:
    """The networks that a pool learns from, frozen: `(N, 3, H, W)` floats in [0, 1] to logits.

    Attributes:
        surrogate: undefended, attacked to make adversarial images.
        classifier: the one that is served; needed only where it guides the purifiers.
    """

    surrogate: nn.Module
    classifier: nn.Module | None = None


@dataclass(frozen=True)
class Batch:
    """One process's part of the images of a step: adversarial ones, then noisy ones, then clean ones.

    Attributes:
        inputs: `(N, 3, H, W)` float32 in [0, 1], what a purifier is shown, whole.
        targets: the same images, clean.
        sorts: how many of them are adversarial, noisy and clean.
        corners: `(N, 2)`, of the crops that the pixel loss looks at.
        side: of these crops, in pixels.
    """

    inputs: Tensor
    targets: Tensor
    sorts: list[int]
    corners: Tensor
    side: int

    @cached_property
    def crops(self) -> tuple[Tensor, Tensor]:
        """Inputs and targets, cut; the same for every purifier."""
        inputs, targets = (crop(images, self.corners, self.side) for images in (self.inputs, self.targets))
        return inputs.contiguous(memory_format=torch.channels_last), targets

    @property
    def attacked(self) -> int:
        """How many are not clean; they come first."""
        return sum(self.sorts[:-1])

    def some(self, each: int) -> tuple[Tensor, Tensor]:
        """Inputs and targets of the first `each` of every sort."""
        inputs, targets = (torch.split(images, self.sorts) for images in (self.inputs, self.targets))
        return torch.cat([sort[:each] for sort in inputs]), torch.cat([sort[:each] for sort in targets])


class PurifierTask(Task):
    """The training of all purifiers of one attack, together.

    Args:
        training: the settings of the pool.
        attack: the name of one of its attacks.
        victims: the networks that it learns from; moved to the device of `fabric`.
        data: the clean images and their labels.
        fabric: where it runs.
        seed: of the first weights, the order of the images, their augmentation and the attack.

    Raises:
        DeviceError: a batch cannot be shared equally by the processes.
        NetworkError: the bundle to start from has other purifiers.
    """

    def __init__(
        self, training: PoolTraining, attack: str, victims: Victims, data: LabeledImages, fabric: Fabric, seed: int
    ) -> None:
        self.name = attack
        self.steps = training.steps
        self.training = training
        self.attack = training.attacks[attack]
        self.crop = training.crop or data.images.shape[-1]
        self.surrogate = victims.surrogate.to(fabric.device)
        self.guide: Guide | None = None
        if training.guidance:
            assert victims.classifier
            self.guide = Guide(training.guidance, victims.classifier, fabric)
        self.data = data
        self.fabric = fabric
        self.seed = seed
        require_shares(training, fabric)
        self.purifiers = new_purifiers(training, attack, seed).to(fabric.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimizer = torch.optim.AdamW(
            self.purifiers.parameters(), lr=training.peak_learning_rate, weight_decay=training.weight_decay
        )
        self.schedule = OneCycleLR(
            optimizer, max_lr=training.peak_learning_rate, total_steps=training.steps, cycle_momentum=False
        )
        self.trained = {name: fabric.setup_module(purifier) for name, purifier in self.purifiers.items()}
        self.optimizer = cast("Optimizer", fabric.setup_optimizers(optimizer))

    def parts(self) -> dict[str, Stateful]:
        """Networks, optimizer and schedule."""
        return {"purifiers": self.purifiers, "optimizer": self.optimizer, "schedule": self.schedule}

    def step(self, number: int) -> dict[str, Tensor]:
        """One optimizer step of every purifier, on one batch of attacked and clean images."""
        batch = self._batch(number)
        metrics = {}
        self.optimizer.zero_grad(set_to_none=True)
        for name, purifier in self.trained.items():
            attacked, clean = self._errors(purifier, batch)
            loss = attacked + self.training.clean_weight * clean
            metrics[f"{name}/l1_levels"] = LEVELS * loss.detach()
            if self.guide:
                guidance = self._guidance(self.guide, purifier, batch, number)
                metrics[f"{name}/guidance"] = guidance.detach()
                loss = loss + guidance
            self.fabric.backward(loss)
        self.optimizer.step()
        self.schedule.step()
        return metrics

    def _guidance(self, guide: Guide, purifier: nn.Module, batch: Batch, number: int) -> Tensor:
        """The second term; 0 before it begins."""
        if number < guide.guidance.after * self.steps:
            return batch.inputs.new_zeros(())
        return guide.loss(purifier, *batch.some(guide.images))

    def _errors(self, purifier: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """Mean absolute error on crops of the attacked and of the clean images; 0 where there are none of these."""
        inputs, targets = batch.crops
        errors = (purifier(inputs).float() - targets).abs()
        attacked, clean = errors[: batch.attacked].mean(), errors[batch.attacked :]
        return attacked, clean.mean() if len(clean) else attacked.new_zeros(())

    def _batch(self, number: int) -> Batch:
        """Draws for the whole batch and makes this process's part of it."""
        random = generator(self.seed, f"{self.name}/batch", number)
        count = self.training.adversarial + self.training.noisy + self.training.clean
        warming_up = number < self.training.clean_after * self.steps
        clean = 0 if warming_up else self.training.clean
        sorts = [count - self.training.noisy - clean, self.training.noisy, clean]
        chosen = torch.randint(len(self.data), (count,), generator=random)
        flips = draw_flips(count, random)
        shape = self.data.images.shape[1:]
        corners = draw_corners(count, shape[-1] - self.crop, random)
        attack = self.attack.draw(torch.Size([sorts[0], *shape]), random)
        own = [share(sort, self.fabric, "images of one sort") for sort in sorts]
        mine = torch.cat([part[one] for part, one in zip(torch.split(torch.arange(count), sorts), own, strict=True)])
        images = flip(send(self.data.images[chosen[mine]], self.fabric.device), flips[mine]).float().div_(LEVELS)
        images = images.contiguous(memory_format=torch.channels_last)
        labels = send(self.data.labels[chosen[mine]], self.fabric.device)
        held = [len(range(*one.indices(sort))) for sort, one in zip(sorts, own, strict=True)]
        adversarial, noisy, untouched = torch.split(images, held)
        with self.fabric.autocast():
            adversarial = attack.part(own[0]).perturb(self.surrogate, adversarial, labels[: held[0]])
        if self.training.noise:
            noisy = self.training.noise.draw(torch.Size([sorts[1], *shape]), random).part(own[1]).add(noisy)
        return Batch(torch.cat([adversarial, noisy, untouched]), images, held, corners[mine], self.crop)
