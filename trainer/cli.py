"""The `purigate-train` command."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import torch
import typer

from models.bundle import BundleError
from trainer.accuracy import Accuracy
from trainer.errors import RunError, TrainerError
from trainer.images import LabeledImages, read_image_folder
from trainer.recipe import read_recipe
from trainer.run import Run

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Train a classifier and a pool, and bundle them.")

RecipeOption = Annotated[str, typer.Option("--recipe", help="A shipped recipe by name, or a TOML file.")]
TrainOption = Annotated[Path, typer.Option("--train", help="Training images: an ImageFolder tree.")]
TestOption = Annotated[Path, typer.Option("--test", help="Images for measuring: an ImageFolder tree.")]
RunOption = Annotated[Path, typer.Option("--run", help="Folder of the checkpoints; goes on from those it has.")]
OutputOption = Annotated[Path, typer.Option("--output", help="Folder of the bundle.")]
DeviceOption = Annotated[
    str, typer.Option("--device", help="'cpu', 'cuda' or 'cuda:N'; by default CUDA if it is there.")
]
DEFAULT_RECIPE = "cifar10-resnet18"
DEFAULT_RUN = Path("runs/default")
DEFAULT_DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@app.command()
def classifier(
    train: TrainOption,
    recipe: RecipeOption = DEFAULT_RECIPE,
    run: RunOption = DEFAULT_RUN,
    device: DeviceOption = DEFAULT_DEVICE,
) -> None:
    """Train the classifier that is served."""
    _guarded(lambda: _run(recipe, run, device).train_classifier(_images(train, recipe)))


@app.command()
def pool(
    train: TrainOption,
    recipe: RecipeOption = DEFAULT_RECIPE,
    run: RunOption = DEFAULT_RUN,
    device: DeviceOption = DEFAULT_DEVICE,
) -> None:
    """Train the surrogate and the purifiers."""
    _guarded(lambda: _run(recipe, run, device).train_pool(_images(train, recipe)))


@app.command()
def bundle(
    train: TrainOption,
    test: TestOption,
    output: OutputOption,
    recipe: RecipeOption = DEFAULT_RECIPE,
    run: RunOption = DEFAULT_RUN,
    device: DeviceOption = DEFAULT_DEVICE,
) -> None:
    """Write what was trained as a bundle, and measure it."""
    _guarded(
        lambda: _tell(_run(recipe, run, device).write_bundle(output, _images(train, recipe), _images(test, recipe)))
    )


@app.command(name="all")
def everything(
    train: TrainOption,
    test: TestOption,
    output: OutputOption,
    recipe: RecipeOption = DEFAULT_RECIPE,
    run: RunOption = DEFAULT_RUN,
    device: DeviceOption = DEFAULT_DEVICE,
) -> None:
    """Train the classifier and the pool, and write the bundle."""

    def steps() -> None:
        training = _run(recipe, run, device)
        images = _images(train, recipe)
        training.train_classifier(images)
        training.train_pool(images)
        _tell(training.write_bundle(output, images, _images(test, recipe)))

    _guarded(steps)


def _run(recipe: str, folder: Path, device: str) -> Run:
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise RunError(f"device {device}: {str(error).splitlines()[0]}") from error
    return Run(read_recipe(recipe), folder, torch.device(device), typer.echo)


def _images(root: Path, recipe: str) -> LabeledImages:
    return read_image_folder(root, read_recipe(recipe).preprocessing)


def _tell(accuracy: Accuracy) -> None:
    typer.echo(f"on {accuracy.images} images: classifier {100 * accuracy.classifier:.2f} %")
    for name, value in accuracy.purifiers.items():
        typer.echo(f"behind {name} alone: {100 * value:.2f} %")
    undefended, defended = accuracy.attacked
    typer.echo(f"on attacked images: undefended {100 * undefended:.2f} %, behind the pool {100 * defended:.2f} %")
    for grid, (mean, deviation) in accuracy.grids.items():
        spread = f"{100 * mean:.2f} +- {100 * deviation:.2f} %"
        typer.echo(f"behind the pool, grid {grid}x{grid}: {spread} over {accuracy.draws} draws")


def _guarded(step: Callable[[], None]) -> None:
    torch.set_flush_denormal(True)
    try:
        step()
    except (TrainerError, BundleError, OSError) as error:
        typer.secho(f"error: {error}", err=True, fg=typer.colors.RED)
        sys.exit(1)
