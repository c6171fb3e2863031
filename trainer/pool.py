"""Trains the purifiers of a pool: all that belong to one attack see the same adversarial batches."""

from collections.abc import Callable
from math import isfinite
from pathlib import Path
from typing import Annotated

import torch
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.lr_scheduler import OneCycleLR

from models.purifier import Purifier, PurifierConfig
from trainer.adversary import Attack
from trainer.augmentation import random_crop, random_flip
from trainer.errors import DivergedError
from trainer.images import LabeledImages

PlainName = Annotated[str, Field(pattern=r"^[A-Za-z0-9]+$", max_length=40)]
"""Letters and digits alone: an attack and an architecture are joined by a hyphen to the name of a purifier."""


class PoolTraining(BaseModel):
    """How a pool is trained: one purifier for each pair of an attack and an architecture.

    Attributes:
        attacks: by name.
        purifiers: architectures, by name.
        steps: optimizer steps of each purifier.
        adversarial: adversarial images in a batch.
        clean: clean images in a batch, which teach a purifier to leave an image alone.
        clean_after: share of the steps before the first clean image. A new purifier is the identity, and an L1 loss on
            clean images would keep it so: a correction has to pay on attacked images first.
        crop: side in pixels of the random crops that purifiers learn on; about the side of a served window.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    attacks: Annotated[dict[PlainName, Attack], Field(min_length=1)]
    purifiers: Annotated[dict[PlainName, PurifierConfig], Field(min_length=1)]
    steps: PositiveInt = 1000
    adversarial: PositiveInt = 64
    clean: NonNegativeInt = 32
    clean_after: Annotated[float, Field(ge=0, le=1)] = 0.2
    crop: PositiveInt = 20
    peak_learning_rate: PositiveFloat = 1e-3
    weight_decay: float = 1e-4


class PurifierTrainer:
    """Trains all purifiers of one attack together; can stop at a checkpoint and go on from it.

    Args:
        training: the settings of the pool.
        attack: the name of one of its attacks.
        surrogate: an undefended classifier, `(N, 3, H, W)` floats in [0, 1] to logits, that the attack is made against.
        data: the clean images and their labels.
        device: where it runs.
        seed: of the first weights, the order of the images, their augmentation and the attack.
    """

    def __init__(
        self,
        training: PoolTraining,
        attack: str,
        surrogate: nn.Module,
        data: LabeledImages,
        device: torch.device,
        seed: int,
    ) -> None:
        self.training = training
        self.attack = training.attacks[attack]
        self.surrogate = surrogate.to(device).eval().requires_grad_(False)
        self.data = data
        self.device = device
        self.steps_done = 0
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.purifiers = nn.ModuleDict({name: Purifier(config) for name, config in training.purifiers.items()})
        self.purifiers.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.generator = torch.Generator().manual_seed(seed)
        self.optimizer = torch.optim.AdamW(
            self.purifiers.parameters(), lr=training.peak_learning_rate, weight_decay=training.weight_decay
        )
        self.schedule = OneCycleLR(
            self.optimizer, max_lr=training.peak_learning_rate, total_steps=training.steps, cycle_momentum=False
        )

    def run(self, checkpoint: Path, report: Callable[[int, dict[str, float]], None], every: int = 100) -> None:
        """Trains what is left; every `every` steps writes `checkpoint` and reports the step and each mean L1 loss.

        Raises:
            DivergedError: a loss is no longer a number.
        """
        if checkpoint.exists():
            self._restore(checkpoint)
        totals = dict.fromkeys(self.purifiers, 0.0)
        reported = self.steps_done
        while self.steps_done < self.training.steps:
            for name, loss in self._step().items():
                totals[name] += loss
            self.steps_done += 1
            if self.steps_done % every == 0 or self.steps_done == self.training.steps:
                means = {name: total / (self.steps_done - reported) for name, total in totals.items()}
                if not all(map(isfinite, means.values())):
                    raise DivergedError(f"the losses are {means} at step {self.steps_done}")
                self._save(checkpoint)
                report(self.steps_done, means)
                totals = dict.fromkeys(self.purifiers, 0.0)
                reported = self.steps_done

    def _step(self) -> dict[str, float]:
        inputs, targets = self._batch()
        losses = {}
        self.optimizer.zero_grad(set_to_none=True)
        for name, purifier in self.purifiers.items():
            with torch.autocast(self.device.type, torch.bfloat16):
                purified = purifier(inputs)
            loss = functional.l1_loss(purified.float(), targets)
            loss.backward()  # type: ignore[no-untyped-call]
            losses[name] = loss.item()
        self.optimizer.step()
        self.schedule.step()
        return losses

    def _batch(self) -> tuple[Tensor, Tensor]:
        """Crops of attacked and of clean images, and the same crops clean (equation 2 of the paper, p = 1)."""
        count = self.training.adversarial + self.training.clean
        chosen = torch.randint(len(self.data), (count,), generator=self.generator)
        images = random_flip(self.data.images[chosen], self.generator).to(self.device).float().div_(255)
        images = images.contiguous(memory_format=torch.channels_last)
        warming_up = self.steps_done < self.training.clean_after * self.training.steps
        attacked = slice(count if warming_up else self.training.adversarial)
        with torch.autocast(self.device.type, torch.bfloat16):
            adversarial = self.attack.perturb(
                self.surrogate, images[attacked], self.data.labels[chosen[attacked]].to(self.device), self.generator
            )
        inputs = torch.cat([adversarial, images[attacked.stop :]])
        pairs = random_crop(torch.cat([inputs, images], dim=1), self.training.crop, 0, self.generator)
        inputs, targets = pairs.chunk(2, dim=1)
        return inputs.contiguous(memory_format=torch.channels_last), targets

    def _save(self, checkpoint: Path) -> None:
        partial = checkpoint.with_suffix(".partial")
        state = {
            "purifiers": self.purifiers.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "generator": self.generator.get_state(),
            "steps_done": self.steps_done,
        }
        torch.save(state, partial)
        partial.replace(checkpoint)

    def _restore(self, checkpoint: Path) -> None:
        state = torch.load(checkpoint, map_location=self.device, weights_only=True)
        self.purifiers.load_state_dict(state["purifiers"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.generator.set_state(state["generator"].cpu())
        self.steps_done = state["steps_done"]
