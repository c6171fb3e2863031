"""Transfer: adversarial images made on networks of the attacker's own, sent until one is misread."""

import hashlib
import json
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import torch
from pydantic import PositiveInt, SerializerFunctionWrapHandler, model_serializer
from torch import Tensor

from evaluation.attacks.apgd import Climb
from evaluation.attacks.attack import LINF_EIGHT, Attack
from evaluation.attacks.send import send
from evaluation.ball import Ball
from evaluation.errors import EvaluationError
from evaluation.target import LocalTarget
from evaluation.trial import Trial
from models.bundle import Manifest, read_bundle, read_manifest
from models.defenses import build_defense
from models.device import Placement


class Transfer(Attack):
    """APGD on another bundle: on its bare classifier, or through its pool.

    Attributes:
        surrogate: folder of that bundle; its labels are those of the target. Where its networks are known by their
            hash, only the name of the folder is told and compared, for it may lie elsewhere on another machine.
        defense: what stands before its classifier.
        steps: of the ascent.
        draws: of that defense, averaged into each gradient.
        surrogate_sha256: of what the manifest says of the networks that the gradients go through; a bundle may be
            trained anew in the same folder. None in records of before this was noted.
    """

    ball: ClassVar[Ball] = LINF_EIGHT
    revision: ClassVar[int] = 2
    kind: Literal["transfer"] = "transfer"
    surrogate: Path
    defense: Literal["none", "puridefense"] = "none"
    steps: PositiveInt = 50
    draws: PositiveInt = 20
    surrogate_sha256: str | None = None

    @model_serializer(mode="wrap")
    def _told(self, plain: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leaves out the hash where there is none, so that older records keep their names."""
        told = plain(self)
        if self.surrogate_sha256:
            return {**told, "surrogate": self.surrogate.name}
        return {name: value for name, value in told.items() if name != "surrogate_sha256"}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Transfer) and self.model_dump_json() == other.model_dump_json()

    def __hash__(self) -> int:
        return hash(self.model_dump_json())

    def resolved(self) -> Self:
        """With the hash of the surrogate's networks, if it has none yet.

        Raises:
            models.bundle.BundleError: there is no such bundle.
        """
        found = self.surrogate_sha256 or self._networks_sha256(read_manifest(self.surrogate))
        return self.model_copy(update={"surrogate_sha256": found})

    def _networks_sha256(self, manifest: Manifest) -> str:
        classifier, pool, preprocessing = manifest.networks
        told = [classifier, preprocessing, *([pool] if self.defense != "none" else [])]
        said = json.dumps([one.model_dump(mode="json") for one in told], sort_keys=True)
        return hashlib.sha256(said.encode()).hexdigest()

    def run(self, trial: Trial, generator: torch.Generator) -> Tensor:
        """Spends one query on each clean image, and asks about what came of it until it is misread.

        Raises:
            EvaluationError: the surrogate has other networks than the settings say.
        """
        rows = trial.active()
        trial.wrong(rows, trial.images[rows, None])
        adversarial = trial.images.clone()
        rows = trial.active()
        if len(rows):
            bundle = read_bundle(self.surrogate)
            if self.surrogate_sha256 not in {None, self._networks_sha256(bundle.manifest)}:
                raise EvaluationError(f"{self.surrogate}: not the networks with SHA-256 {self.surrogate_sha256}")
            draws = torch.Generator().manual_seed(generator.initial_seed())
            defense = build_defense(self.defense, bundle)
            own = LocalTarget(bundle.classifier, defense, Placement(trial.images.device, "float32"), draws)
            count = 1 if own.deterministic else self.draws
            climb = Climb(own, trial.images[rows], trial.labels[rows], trial.ball, count)
            adversarial[rows] = climb.run(self.steps, generator)
            send(trial, rows, adversarial, generator)
        return adversarial
