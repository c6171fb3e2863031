"""`make bench`: the gateway, its engine alone, its pass, and what others serve the same classifier with, in one run.

    python -m benchmarks [--quick]

Writes `bench.json`, the record, and `bench.md`, its tables, to a folder after each part; prints the tables.
"""

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.bench import Bench
from benchmarks.bodies import IMAGES, SEED, blots, read_bodies
from benchmarks.client import running_client
from benchmarks.record import Plan, Record, Trial
from benchmarks.systems import MAX_BATCH, PEERS, Served, systems
from benchmarks.table import markdown
from benchmarks.termination import ending_on_sigterm
from benchmarks.tuning import chosen
from models.bundle import BundleError, read_manifest
from service.settings import ENVIRONMENT_PREFIX, embedded_bundle

REPORT = Path("bench-report")


def main(  # noqa: PLR0913 - each is a flag
    *,
    quick: Annotated[bool, typer.Option("--quick", help="A look: two short rounds, no settings tried.")] = False,
    rounds: Annotated[int | None, typer.Option(min=1, help="In each, every system has a slice.")] = None,
    seconds: Annotated[float | None, typer.Option(min=0.1, help="Length of a slice.")] = None,
    pass_rounds: Annotated[int | None, typer.Option(min=0, help="Of passes on the device; 0 for none.")] = None,
    connections: Annotated[int, typer.Option(min=1, help="That ask at once.")] = 64,
    max_batch: Annotated[int, typer.Option(min=1, help="Most images of a batch, of all systems.")] = MAX_BATCH,
    only: Annotated[str, typer.Option(help="Systems to serve, by name, with commas between; all by default.")] = "",
    settings: Annotated[Path | None, typer.Option(help="A record whose settings are taken; none are tried.")] = None,
    images: Annotated[Path | None, typer.Option(help="Folder of images to send, rather than drawn ones.")] = None,
    bundle: Annotated[Path | None, typer.Option(help="Folder of the bundle; the embedded one by default.")] = None,
    device: Annotated[str, typer.Option(help="As in 'purigate serve'.")] = "auto",
    precision: Annotated[str, typer.Option(help="As in 'purigate serve'.")] = "auto",
    output: Annotated[Path, typer.Option(help="Folder of the record and its tables.")] = REPORT,
) -> None:
    """Measures, writes and prints."""
    _forget_settings()
    folder = bundle or embedded_bundle()
    try:
        size = read_manifest(folder).preprocessing
        bodies = read_bodies(images) if images else blots(size.height, size.width)
    except (BundleError, ValueError) as error:
        raise typer.BadParameter(str(error)) from error
    drawn = f"{IMAGES} drawn images of {size.width} x {size.height} pixels as PNG"
    plan = Plan(
        rounds=rounds if rounds is not None else 2 if quick else 6,
        seconds=seconds if seconds is not None else 1 if quick else 3,
        warm_up=0.5,
        connections=connections,
        pass_rounds=pass_rounds if pass_rounds is not None else 5 if quick else 20,
        bodies=f"{len(bodies)} images of a folder" if images else drawn,
        seed=SEED,
    )
    present, absent = _present(only)
    tried = read_trials(settings, present) if settings else () if quick else None
    output.mkdir(parents=True, exist_ok=True)
    with ending_on_sigterm(), running_client() as client:
        for record in Bench(Served(folder, device, max_batch, precision), bodies, plan, client).records(
            present, absent, tried
        ):
            record.write(output / "bench.json")
            (output / "bench.md").write_text(markdown(record))
    typer.echo((output / "bench.md").read_text(), nl=False)


def _forget_settings() -> None:
    """Takes the settings of the gateway out of the environment: the engine alone would follow them, servers do not."""
    for name in [name for name in os.environ if name.startswith(ENVIRONMENT_PREFIX)]:
        del os.environ[name]


def read_trials(settings: Path, present: list[str]) -> tuple[Trial, ...]:
    """The trials of a record; what they chose for the systems that are present, there is here.

    Raises:
        typer.BadParameter: it is no record, or none of trials, or they chose what is not measured here, or they chose
            nothing for a system that has several settings.
    """
    try:
        trials = Record.read(settings).trials
        for name in present:
            chosen(systems()[name], trials)
            if trials and len(systems()[name]) > 1 and name not in {trial.name for trial in trials}:
                raise ValueError(f"no settings of {name} were tried in it")  # noqa: TRY301 - told like the others
    except (OSError, ValueError) as error:
        raise typer.BadParameter(f"{settings}: {error}", param_hint="--settings") from error
    if not trials:
        raise typer.BadParameter(f"{settings}: no settings were tried in it", param_hint="--settings")
    return trials


def _present(only: str) -> tuple[list[str], list[str]]:
    """Systems that can be started, and those that are not installed."""
    known = systems()
    asked = {name.strip() for name in only.split(",")} if only else set(known)
    unknown = sorted(asked - set(known))
    if unknown:
        raise typer.BadParameter(f"no system is called {', '.join(unknown)}; there are {', '.join(known)}")
    names = [name for name in known if name in asked]
    absent = [name for name in names if name in PEERS and find_spec(PEERS[name]) is None]
    return [name for name in names if name not in absent], absent


if __name__ == "__main__":
    typer.run(main)
