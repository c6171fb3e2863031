"""Defenses by name."""

from collections.abc import Callable

from models.bundle import Bundle
from models.defenses.bit_reduction import BitReduction
from models.defenses.defense import Defense
from models.defenses.disco import DISCO, DISCOEnsemble
from models.defenses.jpeg import JPEG
from models.defenses.none import NoDefense
from models.defenses.puridefense import PuriDefense
from models.defenses.random_noise import RandomNoise
from models.defenses.spatial_smoothing import SpatialSmoothing
from models.pool import PurifierPool
from models.purifier import Purifier

DEFENSES = (
    "none",
    "puridefense",
    "spatial-smoothing",
    "bit-reduction",
    "jpeg",
    "random-noise",
    "disco",
    "disco-ensemble",
)

DISCO_ATTACK = "pgd"
"""The attack that DISCO trains on."""

__all__ = ["DEFENSES", "Defense", "build_defense"]


def build_defense(name: str, bundle: Bundle) -> Defense:
    """The defense called `name`, out of what `bundle` holds.

    Raises:
        ValueError: no defense has that name.
    """
    pool, size = bundle.manifest.pool, bundle.manifest.preprocessing
    builders: dict[str, Callable[[], Defense]] = {
        NoDefense.name: NoDefense,
        PuriDefense.name: lambda: PuriDefense(PurifierPool(bundle.purifiers), pool.grid, pool.halo),
        SpatialSmoothing.name: SpatialSmoothing,
        BitReduction.name: BitReduction,
        JPEG.name: JPEG,
        RandomNoise.name: lambda: RandomNoise(size.height, size.width),
        DISCO.name: lambda: DISCO(_one_purifier(bundle)),
        DISCOEnsemble.name: lambda: DISCOEnsemble(bundle.purifiers.values()),
    }
    if name not in builders:
        raise ValueError(f"no defense is called {name!r}; there are {', '.join(DEFENSES)}")
    return builders[name]()


def _one_purifier(bundle: Bundle) -> Purifier:
    """The first that was trained on what DISCO trains on; the first of all where there is none."""
    entries = bundle.manifest.pool.purifiers
    chosen = next((entry for entry in entries if entry.attack == DISCO_ATTACK), entries[0])
    return bundle.purifiers[chosen.name]
