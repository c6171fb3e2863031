"""Fuzz: hostile requests against a real server; no 500, no hang, no growth in memory.

    python -m benchmarks.fuzz --inputs 10000

Half of the inputs come from the OpenAPI document (schemathesis: what it allows and what it forbids, all operations in
turn), half are mutated images. They come in rounds, each with a seed of its own that repeats it; after each round the
memory of the server is read.
"""

import json
import time
from collections import Counter
from collections.abc import Callable
from math import ceil
from typing import Annotated, Any

import httpx
import numpy as np
import requests
import schemathesis
import typer
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.strategies import SearchStrategy
from schemathesis import Case, GenerationMode

from benchmarks.images import mutated_images
from benchmarks.machine import Machine
from benchmarks.server import running_server

TIMEOUT_SECONDS = 30
SERVER_ERROR = 500
ROUND_INPUTS = 200
Ask = Callable[[Any], int]


class Tally:
    """What was answered, and what must not happen."""

    def __init__(self) -> None:
        self.statuses: Counter[int] = Counter()
        self.unanswered = 0
        self.faults: list[str] = []

    @property
    def asked(self) -> int:
        """Requests so far: those that were answered, and those that never were."""
        return self.statuses.total() + self.unanswered

    def count(self, ask: Ask, request: Any) -> None:
        """Asks and counts; a hang and a 5xx are faults: nothing overloads this server, so it refuses nobody."""
        try:
            status = ask(request)
        except (requests.RequestException, httpx.HTTPError) as error:
            self.unanswered += 1
            self.faults.append(repr(error))
            return
        self.statuses[status] += 1
        if status >= SERVER_ERROR:
            self.faults.append(f"{status}: {request!r}"[:1000])


def fuzz(strategy: SearchStrategy[Any], ask: Ask, inputs: int, tally: Tally, number: int) -> None:
    """Asks `inputs` times what `strategy` draws under the seed `number`."""

    @seed(number)
    @settings(
        max_examples=inputs,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(request=strategy)
    def run(request: Any) -> None:
        tally.count(ask, request)

    run()


def cases(url: str) -> "list[SearchStrategy[Case[Any]]]":
    """What every operation of the OpenAPI document that takes anything allows, and what it forbids."""
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    strategies: list[SearchStrategy[Case[Any]]] = []
    for found in schema.get_all_operations():
        operation = found.ok()  # type: ignore[union-attr]  # it raises what is wrong with our own document
        if operation.body:  # the others have one request each, which tests/integration sends
            modes = (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
            strategies.extend(operation.as_strategy(mode) for mode in modes)
    return strategies


def growth(memory: list[float]) -> float:
    """Mebibytes for every thousand inputs, by a line through the second half of what was read after each round."""
    later = memory[len(memory) // 2 :]
    if len(later) == 1:
        return 0.0
    slope, _ = np.polyfit(np.arange(len(later)), later, 1)
    return float(slope) * 1000 / ROUND_INPUTS


def main(
    inputs: Annotated[int, typer.Option(help="Requests of both kinds together.")] = 10_000,
    first: Annotated[int, typer.Option(help="Seed of the first round; the others follow.")] = 0,
    bundle: Annotated[str, typer.Option(help="Folder of the bundle; the embedded one by default.")] = "",
) -> None:
    """Prints what was answered, the faults, and the memory of the server on the way; fails if there is a fault."""
    tally = Tally()
    with running_server(*(["--bundle", bundle] if bundle else [])) as server, httpx.Client(timeout=30) as http:

        def ask_case(case: "Case[Any]") -> int:
            return int(case.call(base_url=server.url, timeout=TIMEOUT_SECONDS).status_code)

        def ask_image(content: bytes) -> int:
            return http.post(
                f"{server.url}/classify", content=content, headers={"Content-Type": "image/png"}
            ).status_code

        begin = time.monotonic()
        memory = [server.resident_mebibytes()]
        strategies = cases(server.url)
        for number in range(first, first + ceil(inputs / ROUND_INPUTS)):
            for strategy in strategies:
                fuzz(strategy, ask_case, ROUND_INPUTS // 2 // len(strategies), tally, number)
            fuzz(mutated_images(), ask_image, ROUND_INPUTS // 2, tally, number)
            memory.append(round(server.resident_mebibytes(), 1))
            typer.echo(f"round {number}: {tally.asked} asked, {memory[-1]} MiB", err=True)
    result = {
        "machine": Machine.here().model_dump(),
        "seconds": round(time.monotonic() - begin),
        "asked": tally.asked,
        "statuses": dict(sorted(tally.statuses.items())),
        "faults": tally.faults,
        "memory_mebibytes": {"ready": round(memory[0], 1), "after_one_round": memory[1], "end": memory[-1]},
        "growth_mebibytes_per_thousand": round(growth(memory), 2),
    }
    typer.echo(json.dumps(result, indent=2))
    raise typer.Exit(bool(tally.faults))


if __name__ == "__main__":
    typer.run(main)
