"""Transfer: adversarial images made on networks of the attacker's own, sent once."""

from pathlib import Path
from typing import ClassVar, Literal

import torch
from pydantic import PositiveInt
from torch import Tensor

from evaluation.attacks.apgd import Climb
from evaluation.attacks.attack import LINF_EIGHT, Attack
from evaluation.ball import Ball
from evaluation.target import LocalTarget
from evaluation.trial import Trial
from models.bundle import read_bundle
from models.defenses import build_defense
from models.device import Placement


class Transfer(Attack):
    """APGD on another bundle: on its bare classifier, or through its pool.

    Attributes:
        surrogate: folder of that bundle; its labels are those of the target.
        defense: what stands before its classifier.
        steps: of the ascent.
        draws: of that defense, averaged into each gradient.
    """

    ball: ClassVar[Ball] = LINF_EIGHT
    kind: Literal["transfer"] = "transfer"
    surrogate: Path
    defense: Literal["none", "puridefense"] = "none"
    steps: PositiveInt = 50
    draws: PositiveInt = 20

    def run(self, trial: Trial, generator: torch.Generator) -> Tensor:
        """Spends one query on each clean image, and one on what came of it."""
        rows = trial.active()
        trial.wrong(rows, trial.images[rows, None])
        adversarial = trial.images.clone()
        rows = trial.active()
        if len(rows):
            bundle = read_bundle(self.surrogate)
            draws = torch.Generator().manual_seed(generator.initial_seed())
            defense = build_defense(self.defense, bundle)
            own = LocalTarget(bundle.classifier, defense, Placement(trial.images.device, "float32"), draws)
            count = 1 if own.deterministic else self.draws
            climb = Climb(own, trial.images[rows], trial.labels[rows], trial.ball, count)
            adversarial[rows] = climb.run(self.steps, generator)
            trial.wrong(rows, adversarial[rows, None])
        return adversarial
