"""Precisions: how fast a CPU classifies in each, and whether it says the same.

    python -m benchmarks.precisions [--images TREE]

Every precision runs the engine of `purigate serve` in a process of its own; in each round all take turns, while the
others wait. TREE is an ImageFolder tree whose folders are the bundle's labels: the bare classifier is asked about its
images in each precision.
"""

import json
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any, get_args

import torch
import typer
from torch import Tensor

from benchmarks.bodies import blots
from benchmarks.comparison import BATCHES, Figures, compare
from benchmarks.machine import Machine
from benchmarks.offline import running_offline
from benchmarks.systems import Served
from models.bundle import Bundle, read_bundle, read_manifest
from models.device import PlacementError, Precision, choose_placement
from models.inference.preparation import classifier_for_inference, require_precision
from service.settings import embedded_bundle
from trainer.adversary import LEVELS
from trainer.images import LabeledImages, read_image_folder
from trainer.inference import accuracy

REFERENCE: Precision = "float32"


def main(
    images: Annotated[Path | None, typer.Option(help="ImageFolder tree; without one, only speed is measured.")] = None,
    count: Annotated[int, typer.Option(help="How many of its images, spread evenly over it.")] = 2000,
    bundle: Annotated[Path | None, typer.Option(help="Folder of the bundle; the embedded one by default.")] = None,
    precisions: Annotated[str, typer.Option(help="With commas between.")] = ",".join(get_args(Precision)),
    rounds: Annotated[int, typer.Option(help="In each, every precision has a slice of every kind.")] = 5,
    seconds: Annotated[float, typer.Option(help="Length of a slice.")] = 1.0,
) -> None:
    """Prints JSON: images a second and their ratio to those in float32; accuracy and agreement with float32."""
    folder = bundle or embedded_bundle()
    names = list(dict.fromkeys([REFERENCE, *precisions.split(",")]))
    served = read_bundle(folder)
    try:
        for name in names:
            require_precision(served.classifier, choose_placement("cpu", name).precision)
    except PlacementError as error:
        raise typer.BadParameter(str(error), param_hint="--precisions") from error
    told: dict[str, Any] = {"machine": Machine.here().model_dump(), "rounds": rounds}
    if images:
        told["answers"] = _answers(served, images, count, names)
    told["images_per_second"] = _speeds(folder, names, rounds, seconds)
    typer.echo(json.dumps(told, indent=2))


def _speeds(folder: Path, names: list[str], rounds: int, seconds: float) -> Figures:
    size = read_manifest(folder).preprocessing
    contents = [content for content, _ in blots(size.height, size.width)]
    with ExitStack() as stack:
        engines = {
            name: stack.enter_context(running_offline(Served(folder, "cpu", precision=name), contents))
            for name in names
        }
        return compare(engines, REFERENCE, "over_float32", rounds, seconds)


def _answers(bundle: Bundle, images: Path, count: int, names: list[str]) -> dict[str, dict[str, float]]:
    """Of the bare classifier in each precision."""
    data = read_image_folder(images, bundle.manifest.preprocessing, classes=bundle.manifest.labels).spread(count)
    logits = {
        name: _logits(classifier_for_inference(bundle.classifier, choose_placement("cpu", name)), data)
        for name in names
    }
    expected = logits[REFERENCE]
    return {
        name: {
            "images": len(data),
            "accuracy": accuracy(found, data),
            "same_class": (found.argmax(1) == expected.argmax(1)).float().mean().item(),
            "mean_logit_change": (found - expected).abs().mean().item(),
            "largest_logit_change": (found - expected).abs().max().item(),
        }
        for name, found in logits.items()
    }


@torch.inference_mode()
def _logits(classifier: Callable[[Tensor], Tensor], data: LabeledImages) -> Tensor:
    return torch.cat([classifier(batch.float().div_(LEVELS)) for batch in torch.split(data.images, max(BATCHES))])


if __name__ == "__main__":
    typer.run(main)
