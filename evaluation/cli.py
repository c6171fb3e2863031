"""The `purigate-evaluate` command."""

import sys
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import torch
import typer
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from evaluation.attacks import ATTACKS, Attack
from evaluation.ball import Ball
from evaluation.device import choose_device, choose_precision
from evaluation.errors import EvaluationError
from evaluation.images import read_sample
from evaluation.progress import watched
from evaluation.records import Cell, merge
from evaluation.robustness import Campaign
from evaluation.served import build, describe
from evaluation.summary import summarize
from evaluation.target import LocalTarget
from evaluation.trial import Stopping
from evaluation.verdict import Outcome
from models.bundle import BundleError, read_bundle

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Attack a defense, and tell what is left of it.")

DEFAULT_RECORDS = Path("runs/records")
EMBEDDED = Path(str(files("models"))) / "bundles" / "cifar10"


@app.callback()
def _subcommands() -> None:
    """Keeps `robustness` a subcommand while it is the only one."""


@app.command()
def robustness(  # noqa: PLR0913, PLR0917 - the options of the command
    data: Annotated[Path, typer.Option(help="Images: an ImageFolder tree, its folders the bundle's labels.")],
    bundle: Annotated[Path, typer.Option(help="Folder of the bundle.")] = EMBEDDED,
    attack: Annotated[str, typer.Option(help=f"One of {', '.join(ATTACKS)}.")] = "square",
    setting: Annotated[
        list[str] | None, typer.Option("--set", help="A setting of the attack as NAME=VALUE; repeatable.")
    ] = None,
    defense: Annotated[str, typer.Option(help="What stands before the classifier.")] = "puridefense",
    grid: Annotated[int | None, typer.Option(help="Patches along each dimension, if not the bundle's.")] = None,
    purifier: Annotated[
        list[str] | None, typer.Option(help="A purifier of the pool; repeatable; all by default.")
    ] = None,
    queries: Annotated[int, typer.Option(min=1, help="Budget of each image.")] = 2500,
    images: Annotated[int, typer.Option(min=1, help="How many images, spread over the classes.")] = 100,
    epsilon: Annotated[float | None, typer.Option(help="Radius of the ball, if not the paper's.")] = None,
    stopping: Annotated[Stopping, typer.Option(help="When the attack is done with an image.")] = Stopping.CONFIRMED,
    seed: Annotated[int, typer.Option(help="Of the attack and of the draws.")] = 0,
    part: Annotated[int, typer.Option(min=1, help="Images attacked at once; each part has a record.")] = 100,
    records: Annotated[
        Path, typer.Option(help="Folder of the records; what it has is not done again.")
    ] = DEFAULT_RECORDS,
    device: Annotated[str, typer.Option(help="'auto', 'cpu', 'cuda' or 'cuda:N'.")] = "auto",
    precision: Annotated[str, typer.Option(help="'auto', 'float32' or 'bfloat16'.")] = "auto",
) -> None:
    """Attack images through a defense, within a budget of queries for each."""

    def attack_all() -> None:
        place = choose_device(device)
        arithmetic = choose_precision(precision, place)
        served = read_bundle(bundle)
        stands = build(defense, served, grid, tuple(purifier or ()))
        chosen = _attack(attack, setting or [])
        cell = Cell(
            served=describe(bundle, served, stands, arithmetic),
            attack=chosen,
            ball=chosen.ball if epsilon is None else Ball(chosen.ball.norm, epsilon),
            queries=queries,
            stopping=stopping,
            seed=seed,
        )
        sample = read_sample(data, served.manifest, images)

        def target(generator: torch.Generator) -> LocalTarget:
            return LocalTarget(served.classifier, stands, place, arithmetic, generator)

        campaign = Campaign(cell, target, place, records, part)
        with watched(f"{attack} on {defense}") as watch:
            done = list(campaign.run(sample, watch))
        _tell(cell, merge(done)[cell])

    _guarded(attack_all)


def _attack(name: str, settings: list[str]) -> Attack:
    """An attack by its name, with its defaults but for what `settings` say."""
    if name not in ATTACKS:
        raise EvaluationError(f"no attack is called {name!r}; there are {', '.join(ATTACKS)}")
    changes = {key: value for key, _, value in (setting.partition("=") for setting in settings)}
    try:
        return ATTACKS[name].model_validate_strings(changes)
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()]
        raise EvaluationError(f"{name}: {'; '.join(lines)}") from error


def _tell(cell: Cell, outcomes: tuple[Outcome, ...]) -> None:
    summary = summarize(outcomes)
    ball = f"{cell.ball.norm} {cell.ball.epsilon:.4g}"
    title = f"{cell.attack.kind}, {ball}, {cell.queries} queries, on {cell.served.defense}: {summary.images} images"
    table = Table("accuracy", "95 % interval over images", title=title)
    table.add_row("clean", str(summary.clean))
    table.add_row("any-hit", str(summary.any_hit))
    table.add_row("confirmed (majority of 9)", str(summary.confirmed))
    table.add_row("mean of 20 fresh draws", str(summary.mean))
    table.add_row("queries spent an image", f"{summary.queries:.0f}")
    Console().print(table)


def _guarded(step: Callable[[], None]) -> None:
    torch.set_flush_denormal(True)
    try:
        step()
    except (EvaluationError, BundleError, OSError) as error:
        typer.secho(f"error: {error}", err=True, fg=typer.colors.RED)
        sys.exit(1)
