"""What the paper reports for CIFAR-10 (PuriDefense, table 2): percent of images, at 200 and at 2,500 queries."""

import re
from dataclasses import dataclass

PAPER_BUDGETS = (200, 2500)
PAPER_ATTACKS = ("nes", "simba", "square", "boundary", "hopskipjump")


CIFAR10 = re.compile(r"(?<![a-z0-9])cifar-?10(?![0-9])", re.IGNORECASE)


@dataclass(frozen=True)
class PaperRow:
    """One defense.

    Attributes:
        clean: accuracy without an attack.
        attacks: by attack, robust accuracy at the two budgets; a single noisy draw decides on each image.
    """

    clean: float
    attacks: dict[str, tuple[float, float]]


def _row(clean: float, *cells: tuple[float, float]) -> PaperRow:
    return PaperRow(clean, dict(zip(PAPER_ATTACKS, cells, strict=True)))


PAPER = {
    "none": _row(94.8, (83.4, 11.9), (49.1, 3.0), (26.6, 0.9), (88.4, 60.0), (72.0, 72.6)),
    "none-at": _row(85.5, (83.8, 78.8), (83.0, 74.9), (77.5, 67.3), (84.7, 84.2), (85.3, 84.0)),
    "spatial-smoothing": _row(76.4, (50.7, 7.6), (42.7, 5.2), (5.7, 0.0), (70.7, 39.8), (64.6, 62.7)),
    "random-noise": _row(77.1, (74.7, 71.1), (71.5, 66.0), (64.1, 60.5), (74.4, 76.4), (71.0, 74.1)),
    "disco": _row(86.3, (83.0, 34.7), (77.7, 15.7), (21.0, 2.1), (84.1, 66.0), (81.0, 81.7)),
    "puridefense": _row(84.1, (84.2, 81.8), (81.1, 74.4), (77.3, 67.8), (82.9, 82.9), (82.5, 84.8)),
    "puridefense-at": _row(84.6, (83.7, 81.1), (83.3, 80.6), (81.5, 78.7), (84.4, 84.1), (84.3, 84.1)),
}
"""By the names of the defenses; `-at` is on adversarially trained weights."""


def is_cifar10(bundle: str) -> bool:
    """Whether a bundle is one of the paper's images and classes, by its name: records tell nothing else of it."""
    return CIFAR10.search(bundle) is not None
