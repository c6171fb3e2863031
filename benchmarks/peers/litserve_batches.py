"""LitServe with dynamic batching: images are decoded by threads of the worker that runs the network.

    python -m benchmarks.peers.litserve_batches --port 8000 --workers 1 --batch-timeout-ms 10

Images come as base64 in JSON, its own way for them.
"""

import base64
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any

import litserve
import typer

from benchmarks.peers.classifier import Answer, UndefendedClassifier
from benchmarks.peers.network import Network
from models.preprocessing import Pixels
from service.settings import Settings


class ClassifierAPI(litserve.LitAPI):  # type: ignore[misc]  # it has no types
    """The classifier in LitServe's steps.

    Args:
        network: what computes.
        workers: processes that run it.
        batching: what LitServe takes.
    """

    def __init__(self, network: Network, workers: int, **batching: Any) -> None:
        super().__init__(**batching)
        self._network = network
        self._workers = workers

    def setup(self, device: str) -> None:  # noqa: ARG002 - the engine chooses as in the gateway
        """Loads the network; called in each worker."""
        self._classifier = UndefendedClassifier(self._network, self._workers)
        self._threads = ThreadPoolExecutor(len(os.sched_getaffinity(0)))

    def decode_request(self, request: dict[str, str]) -> bytes:
        """The file out of a request."""
        return base64.b64decode(request["image"])

    def batch(self, inputs: Sequence[bytes]) -> list[Pixels]:
        """The pixels of a batch."""
        return list(self._threads.map(self._classifier.decode, inputs))

    def predict(self, x: Sequence[Pixels], **_: Any) -> list[Answer]:
        """The answers of a batch."""
        return self._classifier.classify(x)

    def unbatch(self, output: list[Answer]) -> list[Answer]:
        """The answer of each request."""
        return output

    def encode_response(self, output: Answer) -> Answer:
        """As it is."""
        return output


def main(
    port: Annotated[int, typer.Option(help="Port to listen on.")],
    workers: Annotated[int, typer.Option(help="Processes with the network; as many serve HTTP.")] = 1,
    batch_timeout_ms: Annotated[float, typer.Option(help="How long a batch waits to be full.")] = 10,
    network: Annotated[Network, typer.Option(help="What computes.")] = Network.ENGINE,
) -> None:
    """Serves until it is told to stop."""
    api = ClassifierAPI(network, workers, max_batch_size=Settings().max_batch, batch_timeout=batch_timeout_ms / 1000)
    server = litserve.LitServer(api, accelerator="auto", devices=1, workers_per_device=workers, fast_queue=True)
    server.run(host="127.0.0.1", port=port, log_level="warning", generate_client_file=False)


if __name__ == "__main__":
    typer.run(main)
