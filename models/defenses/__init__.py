"""Defenses by name."""

from models.bundle import Bundle
from models.defenses.defense import Defense
from models.defenses.none import NoDefense
from models.defenses.puridefense import PuriDefense
from models.pool import PurifierPool

DEFENSES = ("none", "puridefense")

__all__ = ["DEFENSES", "Defense", "build_defense"]


def build_defense(name: str, bundle: Bundle) -> Defense:
    """The defense called `name`, out of what `bundle` holds.

    Raises:
        ValueError: no defense has that name.
    """
    if name == NoDefense.name:
        return NoDefense()
    if name == PuriDefense.name:
        pool = bundle.manifest.pool
        return PuriDefense(PurifierPool(bundle.purifiers), pool.grid, pool.halo)
    raise ValueError(f"no defense is called {name!r}; there are {', '.join(DEFENSES)}")
