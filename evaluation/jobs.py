"""What is to be measured: single jobs, and the suites that fill the tables and figures."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from evaluation.attacks import (
    APGD,
    NES,
    Attack,
    Boundary,
    HopSkipJump,
    Null,
    PopSkipJump,
    SimBA,
    Square,
    Transfer,
)
from evaluation.ball import Ball
from evaluation.trial import Stopping

FIRST_BUDGET = 200
"""The smaller one of the paper's two."""
SQUARES = (0.1, 0.3, 0.5)
SAMPLES = (1, 5, 10, 20)
SIGMAS = (0.01, 0.03, 0.1)
"""Of NES: the published 0.001 drowns in the draws; the last is longer than the radius of the ball."""
PROBES = (0.5, 4.0)
"""How far HopSkipJump asks around the boundary, at least, in levels a pixel: below and above what purification hides.
No factor on its published distance gives that. The probe is a vector of length reach / 3072 on 32x32 images in the
l-infinity ball, so reach / (3072 * sqrt(3072)) a pixel: at a reach of 8 levels half a level takes a factor of 10,600,
and the first probe, which has a length of 0.1 at any reach, is half a level without a factor."""
GRIDS = (1, 2, 3, 5)
POOL_SIZES = (1, 2, 3, 4, 6, 8, 10, 12)
TABLE_DEFENSES = (
    "none",
    "spatial-smoothing",
    "bit-reduction",
    "jpeg",
    "random-noise",
    "disco",
    "disco-ensemble",
    "puridefense",
)


@dataclass(frozen=True)
class Job:
    """One cell, without what it is measured on.

    Attributes:
        ball: how far the attack may go, if not as far as in the paper.
        grid: patches along each dimension, if not those of the bundle.
        pool: the purifiers that draws choose from; all of the bundle if empty.
    """

    defense: str
    attack: Attack
    queries: int
    stopping: Stopping = Stopping.CONFIRMED
    ball: Ball | None = None
    grid: int | None = None
    pool: tuple[str, ...] = ()


@dataclass(frozen=True)
class Subject:
    """What a suite attacks.

    Attributes:
        folder: of the bundle.
        purifiers: the names of all that it has.
    """

    folder: Path
    purifiers: tuple[str, ...]


Suite = Callable[[int, Subject], Iterator[Job]]
"""From the budget of each image and what is attacked."""


def table(queries: int, subject: Subject) -> Iterator[Job]:  # noqa: ARG001
    """Table 2: every defense against five attacks and the null attack, at the budget; then at 200 queries."""
    attacks: tuple[Attack, ...] = (NES(), SimBA(), Square(), Boundary(), HopSkipJump())
    for defense in TABLE_DEFENSES:
        for attack in (Null(), *attacks):
            yield Job(defense, attack, queries)
    if queries > FIRST_BUDGET:
        for defense, attack in product(TABLE_DEFENSES, attacks):
            yield Job(defense, attack, FIRST_BUDGET)


def adaptive(queries: int, subject: Subject) -> Iterator[Job]:
    """What was built against random defenses, on the pool: averaging, larger steps, noisy search, gradients.

    Those who bring a network bring the worst one: the classifier itself, and then the whole bundle.

    Raises:
        models.bundle.BundleError: the bundle is not there any more.
    """
    defense = "puridefense"
    yield Job(defense, Square(refresh=0), queries, Stopping.HIT)
    yield Job(defense, APGD(), queries)
    yield Job(defense, Transfer(surrogate=subject.folder).resolved(), queries)
    yield Job(defense, Transfer(surrogate=subject.folder, defense=defense).resolved(), queries)
    for p in SQUARES:
        yield Job(defense, Square(p=p), queries)
    for sigma in SIGMAS:
        yield Job(defense, NES(sigma=sigma), queries)
    for probe in PROBES:
        yield Job(defense, HopSkipJump(probe=probe), queries)
        yield Job(defense, PopSkipJump(probe=probe), queries)
    for samples in SAMPLES:
        for budget in sorted({queries, queries * samples}):
            yield Job(defense, Square(samples=samples), budget)
            yield Job(defense, SimBA(samples=samples), budget)
    for samples in SAMPLES[1:]:
        yield Job(defense, NES(points=100 * samples, sigma=SIGMAS[1]), queries * samples)


def pool(queries: int, subject: Subject) -> Iterator[Job]:
    """Figures 5, 6, 10 and 11: Square against heuristics, DISCO, the size of the pool, each purifier, the grid."""
    for defense in ("none", "spatial-smoothing", "random-noise", "disco", "puridefense"):
        yield Job(defense, Square(), queries)
    purifiers = subject.purifiers
    for size in POOL_SIZES:
        if size < len(purifiers):
            yield Job("puridefense", Square(), queries, pool=spread(purifiers, size))
    for grid in GRIDS:
        yield Job("puridefense", Square(), queries, grid=grid)
    for name in purifiers:
        yield Job("puridefense", Square(), queries, grid=1, pool=(name,))


SUITES: dict[str, Suite] = {"table": table, "adaptive": adaptive, "pool": pool}


def spread(names: tuple[str, ...], size: int) -> tuple[str, ...]:
    """`size` of the names, spread evenly, so that a small pool has purifiers of several kinds."""
    return tuple(names[index * len(names) // size] for index in range(size))
