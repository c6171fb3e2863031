"""From a bundle to what is attacked: a defense of that bundle, with another pool or grid where that is the question."""

import hashlib
from pathlib import Path

from evaluation.errors import EvaluationError
from evaluation.records import Served
from models.bundle import Bundle
from models.bundle.manifest import MANIFEST_FILE
from models.defenses import Defense, build_defense
from models.defenses.puridefense import PuriDefense
from models.pool import PurifierPool


def build(name: str, bundle: Bundle, grid: int | None, pool: tuple[str, ...]) -> Defense:
    """The defense called `name`.

    Args:
        name: of the defense.
        bundle: what it is made of.
        grid: patches along each dimension, if not those of the bundle.
        pool: the purifiers that draws choose from, if not all of the bundle.

    Raises:
        EvaluationError: there is no such defense or purifier, or the defense has no pool to choose from.
    """
    if name != PuriDefense.name:
        if grid or pool:
            raise EvaluationError(f"{name} has neither a grid nor a choice of purifiers")
        try:
            return build_defense(name, bundle)
        except ValueError as error:
            raise EvaluationError(str(error)) from error
    unknown = sorted(set(pool) - set(bundle.purifiers))
    if unknown:
        raise EvaluationError(f"the bundle has no purifier {', '.join(unknown)}")
    chosen = {one: bundle.purifiers[one] for one in pool or bundle.purifiers}
    return PuriDefense(PurifierPool(chosen), grid or bundle.manifest.pool.grid, bundle.manifest.pool.halo)


def describe(folder: Path, bundle: Bundle, defense: Defense, precision: str) -> Served:
    """What a record says of a defense built out of the bundle in `folder`."""
    return Served(
        bundle=f"{bundle.manifest.name} {bundle.manifest.version}",
        manifest_sha256=hashlib.sha256((folder / MANIFEST_FILE).read_bytes()).hexdigest(),
        defense=defense.name,
        grid=defense.grid if isinstance(defense, PuriDefense) else None,
        purifiers=defense.purifiers,
        precision=precision,
    )
