"""Accuracy over HTTP beside the same pool run offline: what the wire, the decoder and the batches cost, if anything.

    python -m benchmarks.accuracy --images TREE --count 2000

TREE is an ImageFolder tree whose folders are the bundle's labels. The images are sent as they lie on disk.
"""

import asyncio
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import httpx
import torch
import typer

from benchmarks.bodies import MEDIA_TYPES
from benchmarks.server import running_server
from models.bundle import read_bundle
from models.device import choose_precision
from service.settings import embedded_bundle
from trainer.accuracy import pool_accuracy
from trainer.errors import DataError
from trainer.images import ImageFolder, find_images, require_memory, spread_indices
from trainer.inference import accuracy, outputs

CLIENTS = 16
DRAWS = 5
SEED = 0


def main(
    images: Annotated[Path, typer.Option(help="ImageFolder tree; its folders are the bundle's labels.")],
    count: Annotated[int, typer.Option(help="How many of its images, spread evenly over it.")] = 2000,
    bundle: Annotated[Path | None, typer.Option(help="Folder of the bundle; the embedded one by default.")] = None,
) -> None:
    """Sends images to a real server, runs the same ones offline, and prints both accuracies."""
    folder = bundle or embedded_bundle()
    served = read_bundle(folder)
    try:
        chosen = choose_images(images, served.manifest.labels, count)
        require_memory(len(chosen.files), served.manifest.preprocessing)
    except DataError as error:
        raise typer.BadParameter(str(error), param_hint="--images") from error
    with running_server("--bundle", str(folder)) as server:
        outcomes = asyncio.run(ask_all(server.url, [(path, chosen.classes[index]) for path, index in chosen.files]))
    correct = outcomes["correct"] / len(chosen.files)
    typer.echo(f"over HTTP: {100 * correct:.2f} % of {len(chosen.files)} images; {dict(outcomes)}")
    data = chosen.read(served.manifest.preprocessing)
    cpu, generator = torch.device("cpu"), torch.Generator().manual_seed(SEED)
    mean, deviation = pool_accuracy(served, data, served.manifest.pool.grid, cpu, DRAWS, generator)
    typer.echo(
        f"offline, {choose_precision('auto', cpu)}: {100 * mean:.2f} +- {100 * deviation:.2f} % over {DRAWS} draws"
    )
    undefended = accuracy(outputs(served.classifier, data, cpu), data)
    typer.echo(f"offline, undefended: {100 * undefended:.2f} %")


def choose_images(images: Path, labels: Sequence[str], count: int) -> ImageFolder:
    """Images of a tree, spread evenly over it: the same for both sides.

    Raises:
        DataError: as `find_images` does.
    """
    found = find_images(images, classes=labels)
    return replace(found, files=tuple(found.files[at] for at in spread_indices(len(found.files), count).tolist()))


async def ask_all(url: str, files: list[tuple[Path, str]]) -> Counter[str]:
    """How many were answered with their label, with another, or with which status; each file comes with its label."""
    outcomes: Counter[str] = Counter()
    waiting = iter(files)
    async with httpx.AsyncClient(base_url=url, timeout=60) as http, asyncio.TaskGroup() as group:
        for _ in range(CLIENTS):
            group.create_task(_ask_some(http, waiting, outcomes))
    return outcomes


async def _ask_some(http: httpx.AsyncClient, waiting: Iterator[tuple[Path, str]], outcomes: Counter[str]) -> None:
    for file, label in waiting:
        suffix = file.suffix.lower()
        media_type = MEDIA_TYPES.get(suffix, f"image/{suffix[1:]}")
        answer = await http.post("/classify", content=file.read_bytes(), headers={"Content-Type": media_type})
        if answer.status_code != httpx.codes.OK:
            outcomes[str(answer.status_code)] += 1
        else:
            outcomes["correct" if answer.json()["label"] == label else "wrong"] += 1


if __name__ == "__main__":
    typer.run(main)
