"""From a bundle to what is attacked: a defense of that bundle, with another pool or grid where that is the question."""

import hashlib
import json
import re
from pathlib import Path

import torch

from evaluation.errors import EvaluationError
from evaluation.http_target import HTTPTarget
from evaluation.jobs import Job
from evaluation.records import Cell, Served
from evaluation.target import LocalTarget
from models.bundle import read_bundle
from models.defenses import Defense, build_defense
from models.defenses.puridefense import PuriDefense
from models.device import choose_placement
from models.pool import PurifierPool

SETUP_SIGNS = ".,;=+-_()"
SETUP = re.compile(rf"[\w {re.escape(SETUP_SIGNS)}]*")


class LocalServed:
    """A bundle on a device.

    Args:
        folder: of the bundle.
        device: as `choose_placement` takes it.
        precision: as `choose_placement` takes it.

    Raises:
        models.device.PlacementError: there is no such device, or it cannot compute in the precision.
        models.bundle.BundleError: the bundle cannot be served.
    """

    def __init__(self, folder: Path, device: str, precision: str) -> None:
        self.placement = choose_placement(device, precision)
        self.bundle = read_bundle(folder)

    def defense(self, name: str, grid: int | None = None, pool: tuple[str, ...] = ()) -> Defense:
        """The defense called `name`, with the grid and the purifiers of the bundle if no others are named.

        Raises:
            EvaluationError: there is no such defense or purifier, or the defense has no pool to choose from.
        """
        if name != PuriDefense.name:
            if grid or pool:
                raise EvaluationError(f"{name} has neither a grid nor a choice of purifiers")
            try:
                return build_defense(name, self.bundle)
            except ValueError as error:
                raise EvaluationError(str(error)) from error
        purifiers, served = self.bundle.purifiers, self.bundle.manifest.pool
        unknown = sorted(set(pool) - set(purifiers))
        if unknown:
            raise EvaluationError(f"the bundle has no purifier {', '.join(unknown)}")
        chosen = PurifierPool({one: purifiers[one] for one in pool or purifiers})
        return PuriDefense(chosen, grid or served.grid, served.halo)

    def cell(self, job: Job, seed: int) -> Cell:
        """What a record says of a job on this bundle."""
        defense = self.defense(job.defense, job.grid, job.pool)
        served = Served(
            bundle=self.bundle.manifest.name,
            networks_sha256=self._networks_sha256(defense),
            defense=job.defense,
            grid=defense.grid if isinstance(defense, PuriDefense) else None,
            purifiers=defense.purifiers,
            precision=self.placement.precision,
        )
        return _cell(served, job, seed)

    def _networks_sha256(self, defense: Defense) -> str:
        """Of the classifier, the purifiers that the defense has, and the halo where it has one."""
        manifest, parts = self.bundle.manifest, set(defense.modules())
        purifiers = [one for one in manifest.pool.purifiers if self.bundle.purifiers[one.name] in parts]
        halo = defense.halo if isinstance(defense, PuriDefense) else None
        told = [manifest.classifier, *sorted(purifiers, key=lambda one: one.name)]
        said = json.dumps([halo, *(one.model_dump(mode="json") for one in told)], sort_keys=True)
        return hashlib.sha256(said.encode()).hexdigest()

    def target(self, job: Job, generator: torch.Generator) -> LocalTarget:
        """What a job attacks, drawing from a CPU generator."""
        defense = self.defense(job.defense, job.grid, job.pool)
        return LocalTarget(self.bundle.classifier, defense, self.placement, generator)


def gateway_cell(target: HTTPTarget, job: Job, seed: int, setup: str = "") -> Cell:
    """What a record says of a job on a running gateway.

    What the key is told, unless that is all scores, and the setup stand behind the name of the bundle.

    Args:
        target: the gateway.
        job: what is done.
        seed: of the attack.
        setup: what tells the gateway from others with the same `/info`.

    Raises:
        EvaluationError: the setup has signs that a table, or the name of a file, cannot have.
    """
    if not SETUP.fullmatch(setup):
        raise EvaluationError(f"{setup!r} is no setup: use letters, digits, spaces and any of {SETUP_SIGNS}")
    told = target.information
    words = [f"{told.bundle.name} {told.bundle.version}"]
    words += [] if target.policy.whole else [str(target.policy)]
    words += [f"setup {setup}"] if setup else []
    served = Served(
        bundle=", ".join(words),
        networks_sha256=None,
        defense=told.defense,
        grid=None,
        purifiers=told.purifiers,
        precision=told.precision,
        over_http=True,
        sticky=target.sticky,
    )
    return _cell(served, job, seed)


def _cell(served: Served, job: Job, seed: int) -> Cell:
    return Cell(
        served=served,
        attack=job.attack,
        ball=job.ball or job.attack.ball,
        queries=job.queries,
        stopping=job.stopping,
        seed=seed,
    )
