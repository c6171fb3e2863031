"""The `purigate-evaluate` command."""

import sys
from collections.abc import Callable, Sequence
from enum import StrEnum
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import torch
import typer
from pydantic import ValidationError

from evaluation.attacks import ATTACKS, Attack
from evaluation.ball import Ball
from evaluation.errors import EvaluationError
from evaluation.http_target import HTTPTarget
from evaluation.images import Sample, read_sample
from evaluation.jobs import SUITES, Job, Subject
from evaluation.progress import watched
from evaluation.records import Merged, merge, read_records
from evaluation.report import tell
from evaluation.robustness import Campaign, MakeTarget
from evaluation.served import LocalServed, gateway_cell
from evaluation.speed import SpeedRecord, measure_speed, read_speed, write_speed
from evaluation.tables import diversity_table, speed_table, tables
from evaluation.theory import DiversityRecord, measure_diversity, read_diversity, write_diversity
from evaluation.trial import Stopping
from models.bundle import BundleError
from models.device import PlacementError
from models.preprocessing import Preprocessing

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Attack a defense, and tell what is left of it.")

DEFAULT_RECORDS = Path("runs/records")
EMBEDDED = Path(str(files("models"))) / "bundles" / "cifar10"
CPU = torch.device("cpu")
OF_A_BUNDLE = ("bundle", "suite", "defense", "grid", "purifier", "device", "precision")
OF_A_GATEWAY = ("key", "sticky", "setup")
OF_ONE_ATTACK = ("attack", "set", "defense", "grid", "purifier", "epsilon", "stopping")
"""Options that say nothing to the other kind of target, or to a suite."""


class Form(StrEnum):
    """What figures are written as."""

    SVG = "svg"
    PNG = "png"


BundleOption = Annotated[Path, typer.Option("--bundle", help="Folder of the bundle.")]
DataOption = Annotated[Path, typer.Option("--data", help="Images: an ImageFolder tree, its folders named by labels.")]
RecordsOption = Annotated[Path, typer.Option("--records", help="Folder of the records.")]
DeviceOption = Annotated[str, typer.Option("--device", help="'auto', 'cpu', 'cuda' or 'cuda:N'.")]
PrecisionOption = Annotated[str, typer.Option("--precision", help="'auto', 'float32', 'bfloat16' or 'int8'.")]


@app.command()
def robustness(  # noqa: PLR0913, PLR0917 - the options of the command
    context: typer.Context,
    data: DataOption,
    bundle: BundleOption = EMBEDDED,
    suite: Annotated[str | None, typer.Option(help=f"Many attacks at once: {', '.join(SUITES)}.")] = None,
    attack: Annotated[str, typer.Option(help=f"One of {', '.join(ATTACKS)}.")] = "square",
    setting: Annotated[
        list[str] | None, typer.Option("--set", help="A setting of the attack as NAME=VALUE; repeatable.")
    ] = None,
    defense: Annotated[str, typer.Option(help="What stands before the classifier.")] = "puridefense",
    grid: Annotated[int | None, typer.Option(min=1, help="Patches along each dimension, if not the bundle's.")] = None,
    purifier: Annotated[
        list[str] | None, typer.Option(help="A purifier of the pool; repeatable; all by default.")
    ] = None,
    url: Annotated[str | None, typer.Option(help="A running gateway to attack instead of a bundle.")] = None,
    key: Annotated[str | None, typer.Option(help="API key of that gateway.")] = None,
    sticky: Annotated[
        bool, typer.Option("--sticky", help="That gateway's draws are sticky: the same image is always answered alike.")
    ] = False,
    setup: Annotated[
        str,
        typer.Option(
            help="What of that gateway its /info does not tell, such as 'shadow'. Records of another setup "
            "are not taken for this one's."
        ),
    ] = "",
    queries: Annotated[int, typer.Option(min=1, help="Budget of each image.")] = 2500,
    images: Annotated[int, typer.Option(min=1, help="How many images, spread over the classes.")] = 100,
    epsilon: Annotated[float | None, typer.Option(min=0, help="Radius of the ball, if not the paper's.")] = None,
    stopping: Annotated[Stopping, typer.Option(help="When the attack is done with an image.")] = Stopping.CONFIRMED,
    seed: Annotated[int, typer.Option(help="Of the attack and of the draws.")] = 0,
    part: Annotated[int, typer.Option(min=1, help="Images attacked at once; each part has a record.")] = 100,
    records: RecordsOption = DEFAULT_RECORDS,
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
) -> None:
    """Attack images through a defense, within a budget of queries for each; what has a record is not done again."""

    def single() -> Job:
        chosen = _attack(attack, setting or []).resolved()
        ball = None if epsilon is None else Ball(chosen.ball.norm, epsilon)
        return Job(defense, chosen, queries, stopping, ball, grid, tuple(purifier or ()))

    def attack_gateway(address: str) -> None:
        job = single()
        with HTTPTarget(address, key, sticky=sticky) as target:
            size = target.information.input
            shape = Preprocessing(resize=max(size.height, size.width), height=size.height, width=size.width)
            sample = read_sample(data, target.information.labels, shape, images)
            cell = gateway_cell(target, job, seed, setup)
            version = target.information.bundle.version
            try:
                _run(Campaign(cell, version, lambda _: target, CPU, records, part), sample)
            finally:
                _warn_of_unanswered(target.unanswered)

    def attack_bundle() -> None:
        served = LocalServed(bundle, device, precision)
        manifest = served.bundle.manifest
        sample = read_sample(data, manifest.labels, manifest.preprocessing, images)
        subject = Subject(bundle, tuple(served.bundle.purifiers))
        for job in _suite(suite, queries, subject) if suite else [single()]:
            cell, make = served.cell(job, seed), _maker(served, job)
            _run(Campaign(cell, manifest.version, make, served.placement.device, records, part), sample)

    def attack_either() -> None:
        if url is not None:
            _require_none(context, OF_A_BUNDLE, "is of a bundle; the gateway at --url has its own")
            attack_gateway(url)
        else:
            _require_none(context, OF_A_GATEWAY, "is of a gateway; it needs --url")
            if suite:
                _require_none(context, OF_ONE_ATTACK, "is of one attack; a suite has its own")
            attack_bundle()

    _guarded(attack_either)


@app.command()
def speed(
    bundle: BundleOption = EMBEDDED,
    rounds: Annotated[int, typer.Option(min=3, help="Passes that are timed, of each.")] = 30,
    seed: Annotated[int, typer.Option(help="Of the draws.")] = 0,
    records: RecordsOption = DEFAULT_RECORDS,
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
) -> None:
    """Time a pass against the size of the pool, beside an ensemble and the bare classifier."""

    def measure() -> None:
        record = measure_speed(LocalServed(bundle, device, precision), rounds, seed)
        typer.echo(speed_table([record]))
        typer.echo(f"written to {write_speed(records, record)}")

    _guarded(measure)


@app.command()
def diversity(
    data: DataOption,
    bundle: BundleOption = EMBEDDED,
    images: Annotated[int, typer.Option(min=2, help="How many images, spread over the classes.")] = 50,
    seed: Annotated[int, typer.Option(help="Of the directions and draws.")] = 0,
    records: RecordsOption = DEFAULT_RECORDS,
    device: DeviceOption = "auto",
) -> None:
    """Measure nu, and how often the sign of a search direction turns, against the size of the pool."""

    def measure() -> None:
        served = LocalServed(bundle, device, "float32")
        manifest = served.bundle.manifest
        sample = read_sample(data, manifest.labels, manifest.preprocessing, images)
        record = measure_diversity(served, sample, seed)
        typer.echo(diversity_table([record]))
        typer.echo(f"written to {write_diversity(records, record)}")

    _guarded(measure)


@app.command()
def table(
    records: Annotated[list[Path], typer.Argument(help="Folders of records; they are merged.")],
    output: Annotated[Path | None, typer.Option(help="Markdown file; the terminal by default.")] = None,
) -> None:
    """Tell records as Markdown tables, the paper's numbers beside ours."""

    def write() -> None:
        merged, speeds, diversities = _read_all(records)
        parts = [tables(merged)] if merged else []
        parts += [speed_table(speeds)] if speeds else []
        parts += [diversity_table(diversities)] if diversities else []
        text = "\n".join(parts)
        if output:
            output.write_text(text)
        else:
            typer.echo(text)

    _guarded(write)


@app.command()
def plot(
    records: Annotated[list[Path], typer.Argument(help="Folders of records; they are merged.")],
    output: Annotated[Path, typer.Option(help="Folder of the figures.")] = Path("figures"),
    form: Annotated[Form, typer.Option("--format", help="Of the files.")] = Form.SVG,
) -> None:
    """Draw records as figures."""

    def draw() -> None:
        from evaluation.plots import draw_all  # noqa: PLC0415 - matplotlib takes as long to import as the rest

        merged, speeds, diversities = _read_all(records)
        for path in draw_all(merged, speeds, diversities, output, form):
            typer.echo(path)

    _guarded(draw)


def _run(campaign: Campaign, sample: Sample) -> None:
    with watched(f"{campaign.cell.attack.kind} on {campaign.cell.served.defense}") as watch:
        done = list(campaign.run(sample, watch))
    tell(campaign.cell, merge(done)[campaign.cell])


def _require_none(context: typer.Context, names: Sequence[str], reason: str) -> None:
    """Refuses options that would say nothing, rather than to let whoever gave one believe that it counted."""
    for name in names:
        source = context.get_parameter_source("setting" if name == "set" else name)
        if source and source.name == "COMMANDLINE":
            raise EvaluationError(f"--{name} {reason}")


def _read_all(folders: list[Path]) -> tuple[Merged, Sequence[SpeedRecord], Sequence[DiversityRecord]]:
    read = merge(read_records(folders)), read_speed(folders), read_diversity(folders)
    if not any(map(len, read)):
        raise EvaluationError("there are no records")
    return read


def _warn_of_unanswered(queries: int) -> None:
    if queries:
        told = f"warning: {queries} queries got no answer and were asked again; the gateway may have counted them too"
        typer.secho(told, err=True, fg=typer.colors.YELLOW)


def _maker(served: LocalServed, job: Job) -> MakeTarget:
    return lambda generator: served.target(job, generator)


def _suite(name: str, queries: int, subject: Subject) -> Sequence[Job]:
    if name not in SUITES:
        raise EvaluationError(f"no suite is called {name!r}; there are {', '.join(SUITES)}")
    return list(SUITES[name](queries, subject))


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


def _guarded(step: Callable[[], None]) -> None:
    torch.set_flush_denormal(True)
    try:
        step()
    except (EvaluationError, BundleError, PlacementError, OSError) as error:
        typer.secho(f"error: {error}", err=True, fg=typer.colors.RED)
        sys.exit(1)
