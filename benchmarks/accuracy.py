"""Accuracy over HTTP beside the same pool run offline: what the wire, the decoder and the batches cost, if anything.

    python -m benchmarks.accuracy --images TREE --count 2000

TREE is an ImageFolder tree whose folders are the bundle's labels. The images are sent as they lie on disk.
"""

import asyncio
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import httpx
import torch
import typer

from benchmarks.server import running_server
from models.bundle import read_bundle
from models.device import choose_precision
from service.settings import embedded_bundle
from trainer.accuracy import pool_accuracy
from trainer.images import read_image_folder, spread_indices
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
    files = sorted(path for path in images.glob("*/*") if path.is_file())
    chosen = [files[index] for index in spread_indices(len(files), count).tolist()]
    with running_server("--bundle", str(folder)) as server:
        outcomes = asyncio.run(_ask_all(server.url, chosen))
    correct = outcomes["correct"] / len(chosen)
    typer.echo(f"over HTTP: {100 * correct:.2f} % of {len(chosen)} images; {dict(outcomes)}")
    served = read_bundle(folder)
    data = read_image_folder(images, served.manifest.preprocessing).spread(count)
    if data.classes != served.manifest.labels:
        raise SystemExit(f"the folders are {data.classes}, the labels of the bundle {served.manifest.labels}")
    cpu, generator = torch.device("cpu"), torch.Generator().manual_seed(SEED)
    mean, deviation = pool_accuracy(served, data, served.manifest.pool.grid, cpu, DRAWS, generator)
    typer.echo(
        f"offline, {choose_precision('auto', cpu)}: {100 * mean:.2f} +- {100 * deviation:.2f} % over {DRAWS} draws"
    )
    undefended = accuracy(outputs(served.classifier, data, cpu), data)
    typer.echo(f"offline, undefended: {100 * undefended:.2f} %")


async def _ask_all(url: str, files: list[Path]) -> Counter[str]:
    outcomes: Counter[str] = Counter()
    waiting = iter(files)
    async with httpx.AsyncClient(base_url=url, timeout=60) as http, asyncio.TaskGroup() as group:
        for _ in range(CLIENTS):
            group.create_task(_ask_some(http, waiting, outcomes))
    return outcomes


async def _ask_some(http: httpx.AsyncClient, waiting: Iterator[Path], outcomes: Counter[str]) -> None:
    for file in waiting:
        media_type = "image/jpeg" if file.suffix in {".jpg", ".jpeg"} else f"image/{file.suffix[1:]}"
        answer = await http.post("/classify", content=file.read_bytes(), headers={"Content-Type": media_type})
        if answer.status_code != httpx.codes.OK:
            outcomes[str(answer.status_code)] += 1
        else:
            outcomes["correct" if answer.json()["label"] == file.parent.name else "wrong"] += 1


if __name__ == "__main__":
    typer.run(main)
