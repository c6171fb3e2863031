"""The `purigate-train` command."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Literal

import torch
import typer
from rich.console import Console

from models.bundle import BundleError
from trainer.bundling import Bundling, require_place, require_same_classes
from trainer.data import FolderData, Split, read_splits
from trainer.devices import Precision, open_fabric
from trainer.errors import FirstProcessError, TrainerError, first_line
from trainer.loop import Loop
from trainer.own_recipe import OwnRecipe
from trainer.progress import ProgressBar, TensorBoard
from trainer.recipe import Recipe, read_recipe
from trainer.report import print_measured
from trainer.run import Run
from trainer.tree import write_tree

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Train a classifier and a pool, and bundle them.")

RecipeOption = Annotated[str, typer.Option("--recipe", help="A shipped recipe by name, or a TOML file.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="KEY.KEY=VALUE, over what the recipe says; KEY.KEY= takes it out. May be repeated."),
]
TrainOption = Annotated[
    Path | None, typer.Option("--train", help="Training images, ROOT/<class>/<file>, instead of the recipe's.")
]
TestOption = Annotated[
    Path | None, typer.Option("--test", help="Images to measure on, ROOT/<class>/<file>, instead of the recipe's.")
]
RunOption = Annotated[
    Path | None,
    typer.Option(
        "--run", help="Folder of the checkpoints; goes on from those it has. runs/NAME by default, as the recipe's."
    ),
]
OutputOption = Annotated[Path, typer.Option("--output", help="Folder of the bundle.")]
DeviceOption = Annotated[str, typer.Option("--device", help="'cpu', 'cuda', 'cuda:N', or 'auto': CUDA if it is there.")]
ProcessesOption = Annotated[int, typer.Option("--processes", min=1, help="How many, each with a GPU of its own.")]
PrecisionOption = Annotated[
    Precision, typer.Option("--precision", help="Of the arithmetic; 'auto' is bf16-mixed where the device has it.")
]
Step = Literal["classifier", "pool", "bundle"]
STEPS: tuple[Step, ...] = ("classifier", "pool", "bundle")
DEFAULT_RECIPE = "cifar10-resnet18"
RUNS = Path("runs")
DEFAULT_PRECISION: Precision = "auto"


class Command:
    """One call of a step or of all: what its options say, read and checked before anything is trained.

    The images are read before other processes start, so that what is wrong with them is told once.

    Args:
        recipe: what is made.
        steps: which of it.
        folder: of the checkpoints; named after the recipe where there is none.
        output: of the bundle, where one is written.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        processes: how many.
        precision: of the arithmetic.
    """

    def __init__(
        self,
        recipe: Recipe,
        steps: Sequence[Step],
        folder: Path | None,
        output: Path | None = None,
        *,
        device: str,
        processes: int = 1,
        precision: Precision = DEFAULT_PRECISION,
    ) -> None:
        self.steps = steps
        self.output = output
        if output:
            require_place(output)
        splits: tuple[Split, ...] = ("train", "test") if "bundle" in steps else ("train",)
        data = read_splits(recipe.data, splits, recipe.preprocessing, processes)
        self.train, self.test = data["train"], data.get("test")
        if self.test:
            require_same_classes(self.train, self.test)
        fabric = open_fabric(device, processes, precision)
        self.first = fabric.is_global_zero
        self.console = Console(soft_wrap=True, highlight=False, markup=False, quiet=not self.first)
        for split, images in data.items():
            for name in images.skipped:
                self.console.print(f"{split} images: {name} is damaged and left out")
        folder = folder or RUNS / recipe.name
        watchers = (ProgressBar(self.console), TensorBoard(folder / "tensorboard"))
        self.run = Run(recipe, folder, Loop(fabric, watchers), self.console.print)
        self.run.check(self.train, pool=tuple(steps) != ("classifier",))

    def take(self) -> None:
        """Takes the steps; the bundle is written by the first process."""
        if "classifier" in self.steps:
            self.run.train_classifier(self.train)
        if "pool" in self.steps:
            self.run.train_pool(self.train)
        if self.first and self.test and self.output:
            measured = Bundling(self.run, self.run.fabric.device, self.train, self.test).write(self.output)
            print_measured(self.console, measured)
            self.console.print(f"{self.output}: written")


@app.command()
def init(
    recipe: Annotated[Path, typer.Argument(help="The TOML file to write.")],
    train: Annotated[Path, typer.Option("--train", help="Images to learn from, ROOT/<class>/<file>.")],
    test: Annotated[Path, typer.Option("--test", help="Images to measure on, ROOT/<class>/<file>.")],
    size: Annotated[int, typer.Option("--size", min=8, help="Side of the classifier's input, in pixels.")],
    classifier: Annotated[
        Path | None,
        typer.Option("--classifier", help="Your own: a state dict (.pt, .safetensors) or an exported program (.pt2)."),
    ] = None,
    architecture: Annotated[
        str | None, typer.Option("--architecture", help="Of the classifier: a name of torchvision's, or 'exported'.")
    ] = None,
) -> None:
    """Write a recipe for your own images, and your own classifier if you have one."""

    def steps() -> None:
        own = OwnRecipe(recipe.stem, train, test, size, classifier, architecture)
        text = own.text()
        try:
            with recipe.open("x", encoding="utf-8") as file:
                file.write(text)
        except FileExistsError:
            raise TrainerError(f"{recipe} is there already; name another file") from None
        typer.echo(
            f"{recipe}: written; edit it, then: purigate-train all --recipe {recipe} --output bundles/{recipe.stem}"
        )

    _guarded(steps)


@app.command()
def classifier(
    recipe: RecipeOption = DEFAULT_RECIPE,
    settings: SetOption = None,
    train: TrainOption = None,
    run: RunOption = None,
    device: DeviceOption = "auto",
    processes: ProcessesOption = 1,
    precision: PrecisionOption = DEFAULT_PRECISION,
) -> None:
    """Train the classifier that is served."""

    def steps() -> None:
        chosen = _recipe(recipe, settings, train, None)
        Command(chosen, ["classifier"], run, device=device, processes=processes, precision=precision).take()

    _guarded(steps)


@app.command()
def pool(
    recipe: RecipeOption = DEFAULT_RECIPE,
    settings: SetOption = None,
    train: TrainOption = None,
    run: RunOption = None,
    device: DeviceOption = "auto",
    processes: ProcessesOption = 1,
    precision: PrecisionOption = DEFAULT_PRECISION,
) -> None:
    """Train the surrogate and the purifiers."""

    def steps() -> None:
        chosen = _recipe(recipe, settings, train, None)
        Command(chosen, ["pool"], run, device=device, processes=processes, precision=precision).take()

    _guarded(steps)


@app.command()
def bundle(
    output: OutputOption,
    recipe: RecipeOption = DEFAULT_RECIPE,
    settings: SetOption = None,
    train: TrainOption = None,
    test: TestOption = None,
    run: RunOption = None,
    device: DeviceOption = "auto",
) -> None:
    """Write what was trained as a bundle, and measure it."""

    def steps() -> None:
        Command(_recipe(recipe, settings, train, test), ["bundle"], run, output, device=device).take()

    _guarded(steps)


@app.command(name="all")
def everything(  # noqa: PLR0913, PLR0917 - the options of all steps
    output: OutputOption,
    recipe: RecipeOption = DEFAULT_RECIPE,
    settings: SetOption = None,
    train: TrainOption = None,
    test: TestOption = None,
    run: RunOption = None,
    device: DeviceOption = "auto",
    processes: ProcessesOption = 1,
    precision: PrecisionOption = DEFAULT_PRECISION,
) -> None:
    """Train the classifier and the pool, and write the bundle."""

    def steps() -> None:
        chosen = _recipe(recipe, settings, train, test)
        Command(chosen, STEPS, run, output, device=device, processes=processes, precision=precision).take()

    _guarded(steps)


@app.command()
def images(
    output: Annotated[Path, typer.Argument(help="The folder to write, FOLDER/<class>/<number>.png.")],
    recipe: RecipeOption = DEFAULT_RECIPE,
    settings: SetOption = None,
    split: Annotated[Split, typer.Option(help="Images to learn from, or to measure on.")] = "test",
    skip: Annotated[int, typer.Option(min=0, help="So many of each class are left out, from the first on.")] = 0,
    per_class: Annotated[
        int | None, typer.Option(min=1, help="How many of each class, after these; all by default.")
    ] = None,
) -> None:
    """Write the images of a recipe as class folders, such as purigate-evaluate attacks."""

    def steps() -> None:
        chosen = _recipe(recipe, settings, None, None)
        data = read_splits(chosen.data, [split], chosen.preprocessing)[split]
        for name in data.skipped:
            typer.echo(f"{name} is damaged and left out")
        typer.echo(f"{output}: {write_tree(data, output, skip, per_class)} images")

    _guarded(steps, "no image was written")


def _recipe(name: str, settings: list[str] | None, train: Path | None, test: Path | None) -> Recipe:
    """The recipe with what the flags change."""
    recipe = read_recipe(name, settings or ())
    if train is None and test is None:
        return recipe
    data = recipe.data if isinstance(recipe.data, FolderData) else None
    if train is None and data is None:
        raise TrainerError("--test needs --train beside it: the recipe's images are not in folders")
    folders = {"kind": "folder", "train": train or (data and data.train), "test": test or (data and data.test)}
    kept = recipe.data.model_dump(include={"per_class", "labels"})
    return recipe.model_copy(update={"data": FolderData.model_validate({**kept, **folders})})


def _guarded(steps: Callable[[], None], interrupted: str = "the same command goes on from the last checkpoint") -> None:
    """Takes the steps; tells what stopped them in one line."""
    try:
        steps()
    except FirstProcessError:
        sys.exit(0)  # a fault here would make the launcher kill the first process before it has told its own
    except (TrainerError, BundleError, OSError) as error:
        typer.secho(f"error: {error}", err=True, fg=typer.colors.RED)
        sys.exit(1)
    except torch.OutOfMemoryError as error:
        told = f"the device has too little memory ({first_line(error)}); take smaller batches"
        typer.secho(f"error: {told}", err=True, fg=typer.colors.RED)
        sys.exit(1)
    except KeyboardInterrupt:
        typer.secho(f"interrupted; {interrupted}", err=True)
        sys.exit(130)
    finally:
        if torch.distributed.is_initialized():  # its threads, alive at the end of the process, can abort it
            torch.distributed.destroy_process_group()
