"""Tells a person what a finished bundle is worth."""

from rich.console import Console

from trainer.accuracy import Accuracy
from trainer.bundling import Data, Measured
from trainer.cost import Cost
from trainer.diversity import TWINS, Diversity

SHOWN_TWINS = 6


def print_measured(console: Console, measured: Measured) -> None:
    """Prints the figures that the manifest holds, and warns of test images that were trained on and of twins."""
    _warn_of_overlap(console, measured.data)
    _print_accuracy(console, measured.accuracy)
    _print_cost(console, measured.cost)
    if measured.diversity:
        _print_diversity(console, measured.diversity)


def _warn_of_overlap(console: Console, data: Data) -> None:
    if data.test.overlap:
        console.print(
            f"warning: {data.test.overlap} of the {data.test.images} test images are training images too; "
            "the figures are too good"
        )


def _print_accuracy(console: Console, accuracy: Accuracy) -> None:
    console.print(f"on {accuracy.images} images, in {accuracy.precision}: classifier {100 * accuracy.classifier:.2f} %")
    for name, value in accuracy.purifiers.items():
        console.print(f"behind {name} alone: {100 * value:.2f} %")
    for grid, (mean, deviation) in accuracy.grids.items():
        spread = f"{100 * mean:.2f} +- {100 * deviation:.2f} %"
        console.print(f"behind the pool, grid {grid}x{grid}: {spread} over {accuracy.draws} draws")
    undefended, defended = accuracy.attacked
    attacked = (
        f"{accuracy.attacked_images} images, attacked ({accuracy.attack.kind}) by way of the {accuracy.attacked_by}"
    )
    console.print(f"on {attacked}: undefended {100 * undefended:.2f} %, behind the pool {100 * defended:.2f} %")


def _print_cost(console: Console, cost: Cost) -> None:
    share = cost.pool / cost.classifier
    console.print(
        f"cost: classifier {cost.classifier / 1e9:.3f} GFLOP an image, pool {cost.pool / 1e9:.3f} ({share:.0%})"
    )


def _print_diversity(console: Console, diversity: Diversity) -> None:
    for name, values in (
        ("distance of purified images", diversity.distance),
        ("variance of logits", diversity.logit_variance),
        ("answers that a draw changes", diversity.flip_rate),
    ):
        clean, attacked = values
        console.print(f"{name}: {clean:.4g} on clean, {attacked:.4g} on attacked images")
    console.print(f"nu {diversity.nu:.4g}, correlation of errors {diversity.error_correlation:.3f}")
    _warn_of_twins(console, diversity)


def _warn_of_twins(console: Console, diversity: Diversity) -> None:
    closest_first = sorted(diversity.twins, key=lambda pair: -pair[2])
    for one, other, correlation in closest_first[:SHOWN_TWINS]:
        console.print(
            f"warning: {one} and {other} are twins: their errors correlate by {correlation:.3f}, over {TWINS}"
        )
    if len(closest_first) > SHOWN_TWINS:
        console.print(f"warning: {len(closest_first) - SHOWN_TWINS} more pairs of twins; the manifest names them")
