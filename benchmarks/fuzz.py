"""Fuzz: hostile requests against a real server; no 500, no hang, no growth in memory.

    python -m benchmarks.fuzz --inputs 10000

Half of the inputs come from the OpenAPI document (schemathesis: what it allows and what it forbids, all operations in
turn), half are mutated images. What hypothesis draws is repeated by its seed.
"""

import json
import platform
from collections import Counter
from collections.abc import Callable
from typing import Annotated, Any

import httpx
import requests
import schemathesis
import typer
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.strategies import SearchStrategy
from schemathesis import Case, GenerationMode

from benchmarks.images import mutated_images
from benchmarks.server import running_server

TIMEOUT_SECONDS = 30
MAY_REFUSE = 503
SERVER_ERROR = 500
SEED = 0
Ask = Callable[[Any], int]


class Tally:
    """What was answered, and what must not happen."""

    def __init__(self) -> None:
        self.statuses: Counter[int] = Counter()
        self.faults: list[str] = []

    def count(self, ask: Ask, request: Any) -> None:
        """Asks and counts; a hang and an error of the server's own are faults."""
        try:
            status = ask(request)
        except (requests.RequestException, httpx.HTTPError) as error:
            self.faults.append(repr(error))
            return
        self.statuses[status] += 1
        if status >= SERVER_ERROR and status != MAY_REFUSE:
            self.faults.append(f"{status}: {request!r}"[:1000])


def fuzz(strategy: SearchStrategy[Any], ask: Ask, inputs: int, tally: Tally) -> None:
    """Asks `inputs` times what `strategy` draws."""

    @seed(SEED)
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


def main(
    inputs: Annotated[int, typer.Option(help="Requests of both kinds together.")] = 10_000,
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

        memory = []
        strategies = cases(server.url)
        for _ in range(4):
            for strategy in strategies:
                fuzz(strategy, ask_case, inputs // 8 // len(strategies), tally)
            fuzz(mutated_images(), ask_image, inputs // 8, tally)
            memory.append(round(server.resident_mebibytes()))
    result = {
        "machine": platform.processor() or platform.machine(),
        "asked": sum(tally.statuses.values()) + len(tally.faults),
        "statuses": dict(sorted(tally.statuses.items())),
        "faults": tally.faults,
        "memory_mebibytes_after_each_quarter": memory,
    }
    typer.echo(json.dumps(result, indent=2))
    raise typer.Exit(bool(tally.faults))


if __name__ == "__main__":
    typer.run(main)
