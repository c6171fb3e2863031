"""FastAPI with a thread for each request and no batches, as tutorials have it.

python -m benchmarks.peers.fastapi_threads --port 8000 --threads 40
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

import typer
import uvicorn
from anyio.to_thread import current_default_thread_limiter
from fastapi import Depends, FastAPI, Request

from benchmarks.peers.classifier import Answer, UndefendedClassifier
from benchmarks.peers.network import Network


async def _body(request: Request) -> bytes:
    return await request.body()


def create_app(classifier: UndefendedClassifier, threads: int) -> FastAPI:
    """The app; at most `threads` requests are worked on at once."""

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        current_default_thread_limiter().total_tokens = threads
        yield

    app = FastAPI(lifespan=lifespan)

    @app.post("/classify")
    def classify(content: Annotated[bytes, Depends(_body)]) -> Answer:
        (answer,) = classifier.classify([classifier.decode(content)])
        return answer

    return app


def main(
    port: Annotated[int, typer.Option(help="Port to listen on.")],
    threads: Annotated[int, typer.Option(help="Requests that are worked on at once.")] = 40,
    share: Annotated[int, typer.Option(help="How many of them the processors are divided among.")] = 1,
    network: Annotated[Network, typer.Option(help="What computes.")] = Network.ENGINE,
) -> None:
    """Serves until it is told to stop."""
    app = create_app(UndefendedClassifier(network, share), threads)
    uvicorn.run(app, port=port, log_level="warning", access_log=False)


if __name__ == "__main__":
    typer.run(main)
