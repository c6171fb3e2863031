"""mosec with dynamic batching: images are decoded by processes of their own, or by that which runs the network.

python -m benchmarks.peers.mosec_batches --port 8000 --workers 1 --decoders 1 --wait-ms 10
"""

import os
from collections.abc import Sequence
from typing import Annotated

import mosec
import typer

from benchmarks.peers.classifier import Answer, UndefendedClassifier
from benchmarks.peers.network import Network
from models.bundle import read_manifest
from models.preprocessing import Pixels
from service.images import ImageDecoder
from service.settings import Settings

WORKERS, NETWORK = "BENCH_WORKERS", "BENCH_NETWORK"
"""How many processes run the network, and what it is; mosec makes its workers itself and passes them nothing."""


class Decode(mosec.Worker):
    """A file to pixels, one at a time."""

    def __init__(self) -> None:
        super().__init__()
        settings = Settings()
        self._decoder = ImageDecoder(read_manifest(settings.bundle).preprocessing, settings.max_pixels)

    def deserialize(self, data: bytes) -> bytes:
        """The file is the body."""
        return data

    def forward(self, data: bytes) -> Pixels:
        """Its pixels."""
        return self._decoder.decode(data)


class Classify(mosec.Worker):
    """A batch of pixels to answers."""

    def __init__(self) -> None:
        super().__init__()
        self._classifier = UndefendedClassifier(Network(os.environ[NETWORK]), int(os.environ[WORKERS]))

    def forward(self, data: Sequence[Pixels]) -> list[Answer]:
        """An answer for each."""
        return self._classifier.classify(data)


class DecodeAndClassify(Classify):
    """A batch of files to answers."""

    def deserialize(self, data: bytes) -> bytes:
        """The file is the body."""
        return data

    def forward(self, data: Sequence[bytes]) -> list[Answer]:  # type: ignore[override]
        """An answer for each."""
        return super().forward([self._classifier.decode(one) for one in data])


def main(
    port: Annotated[int, typer.Option(help="Port to listen on; mosec reads it, too.")],
    workers: Annotated[int, typer.Option(help="Processes with the network.")] = 1,
    decoders: Annotated[int, typer.Option(help="Processes that decode; with 0 the others do.")] = 1,
    wait_ms: Annotated[int, typer.Option(help="How long a batch waits to be full.")] = 10,
    network: Annotated[Network, typer.Option(help="What computes.")] = Network.ENGINE,
) -> None:
    """Serves until it is told to stop."""
    os.environ |= {"MOSEC_PORT": str(port), "MOSEC_ADDRESS": "127.0.0.1", "MOSEC_LOG_LEVEL": "warning"}
    server = mosec.Server()
    os.environ |= {WORKERS: str(workers), NETWORK: network}
    if decoders:
        server.append_worker(Decode, num=decoders, route="/classify")
    classify, most = Classify if decoders else DecodeAndClassify, Settings().max_batch
    server.append_worker(classify, workers, most, wait_ms, route="/classify")
    server.run()


if __name__ == "__main__":
    typer.run(main)
