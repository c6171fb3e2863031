"""Which defenses answer at random."""

from collections.abc import Collection

from models.defenses.bit_reduction import BitReduction
from models.defenses.disco import DISCO, DISCOEnsemble
from models.defenses.jpeg import JPEG
from models.defenses.none import NoDefense
from models.defenses.spatial_smoothing import SpatialSmoothing

WITHOUT_DRAWS = frozenset(
    defense.name for defense in (NoDefense, SpatialSmoothing, BitReduction, JPEG, DISCO, DISCOEnsemble)
)
"""The defenses that answer the same image always the same; any other may draw."""


def draws_differ(defense: str, purifiers: Collection[str]) -> bool:
    """Whether a defense may answer the same image in several ways.

    Args:
        defense: its name; one that nobody knows may.
        purifiers: that it draws from; from one, every draw is the same.
    """
    return defense not in WITHOUT_DRAWS and len(purifiers) != 1
