"""Who asks: clients with photographs, and an attacker with near-copies of one image."""

import argparse
import json
import logging
import random
import re
from functools import cache
from typing import Any

import gevent
import numpy as np
from locust import FastHttpUser, events, task
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment
from urllib3 import encode_multipart_formdata

from loadtest.images import File, album, encode, near_copy, photograph, popularity
from loadtest.pace import Pace
from loadtest.tally import REFUSED

log = logging.getLogger(__name__)

SEED = 0
IMAGES = 32
SMALLEST_BATCH, LARGEST_BATCH = 2, 6
COPIES = 400
LEVELS = 8
USUAL_SIZE = 32, 32
OK = 200
TELL_TO_COME_BACK = frozenset({429, 503})


@events.init_command_line_parser.add_listener
def _add_options(parser: LocustArgumentParser) -> None:
    parser.add_argument(
        "--pace-seconds",
        type=float,
        default=1,
        env_var="PURIGATE_LOADTEST_PACE_SECONDS",
        help="Each user asks once in so many seconds, and without a pause where answers take longer. Default 1",
    )
    parser.add_argument(
        "--allow-refused",
        action="store_true",
        env_var="PURIGATE_LOADTEST_ALLOW_REFUSED",
        help="503 and 429 with Retry-After are no failures; they are counted in rows of their own",
    )
    parser.add_argument(
        "--api-key",
        default=None,
        env_var="PURIGATE_LOADTEST_API_KEY",
        is_secret=True,
        help="Sent with every request",
    )
    parser.add_argument(
        "--input-size",
        type=size,
        default=None,
        env_var="PURIGATE_LOADTEST_INPUT_SIZE",
        include_in_web_ui=False,
        help="WIDTHxHEIGHT of the images of an attacker. Default: as /info says, or 32x32 where it is not served",
    )


def size(text: str) -> tuple[int, int]:
    """Reads `WIDTHxHEIGHT`.

    Raises:
        argparse.ArgumentTypeError: it is something else.
    """
    found = re.fullmatch(r"([1-9]\d{0,3})x([1-9]\d{0,3})", text)
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is no size such as 224x224")
    return int(found[1]), int(found[2])


@events.init.add_listener
def _draw(**_: Any) -> None:
    _album()  # before the first user asks: it takes seconds
    gevent.sleep(0)  # gevent's clock stood still meanwhile, and would end the run too early


class GatewayUser(FastHttpUser):
    """Asks at a pace, and looks into the answers.

    Args:
        environment: of the run.
    """

    abstract = True

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        options = environment.parsed_options
        assert options
        self._pace_seconds: float = options.pace_seconds
        self._pace = Pace(self._pace_seconds)
        self._allow_refused: bool = options.allow_refused
        self._headers = {"X-API-Key": options.api_key} if options.api_key else {}
        self._random = random.Random()  # noqa: S311 - load, not secrets
        self.generator = np.random.default_rng()

    def wait_time(self) -> float:
        """Seconds until the next request."""
        return self._pace.pause()

    def on_start(self) -> None:
        """Spreads the users over their pace: those that started together would ask together for ever."""
        gevent.sleep(self._random.uniform(0, self._pace_seconds))
        self._pace.begin()

    def ask_about(self, file: File, name: str) -> None:
        """Sends one image as the raw body."""
        self._post("/classify", file.content, file.media_type, name, 1)

    def ask_by_form(self, path: str, files: list[File], name: str) -> None:
        """Sends images as the parts of a form."""
        parts = [("file", (f"{number}", file.content, file.media_type)) for number, file in enumerate(files)]
        body, content_type = encode_multipart_formdata(parts)
        self._post(path, body, content_type, name, len(files))

    def _post(self, path: str, body: bytes, content_type: str, name: str, images: int) -> None:
        headers = {**self._headers, "Content-Type": content_type}
        with self.client.post(path, data=body, headers=headers, name=name, catch_response=True) as response:  # type: ignore[arg-type] # bytes are meant
            told_when = bool(response.headers and response.headers.get("Retry-After"))
            if response.status_code in TELL_TO_COME_BACK and told_when and self._allow_refused:
                response.request_meta["name"] = name + REFUSED
                response.success()
            elif response.status_code == OK and not _holds(response.content or b"", images):
                response.failure("the answer is not about what was asked")


class Client(GatewayUser):
    """Asks about photographs: most as a raw body, some in forms, some in batches; a few of them again and again."""

    weight = 9

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        self._files = _album()
        self._shares = popularity(len(self._files)).tolist()

    @task(7)
    def raw(self) -> None:
        """One image."""
        self.ask_about(self._pick(1)[0], "/classify")

    @task(2)
    def form(self) -> None:
        """One image in a form, as a browser or curl -F sends it."""
        self.ask_by_form("/classify", self._pick(1), "/classify (form)")

    @task(1)
    def batch(self) -> None:
        """Several images."""
        count = self._random.randint(SMALLEST_BATCH, LARGEST_BATCH)
        self.ask_by_form("/classify/batch", self._pick(count), "/classify/batch")

    def _pick(self, count: int) -> list[File]:
        return self._random.choices(self._files, self._shares, k=count)


class Attacker(GatewayUser):
    """Asks about hundreds of near-copies of one image, each of them once, then takes another image."""

    weight = 1

    def on_start(self) -> None:
        """Learns the size that the classifier takes, since an attack works on the pixels that it sees."""
        super().on_start()
        self._copies = 0
        assert self.environment.parsed_options
        self._size: tuple[int, int] = self.environment.parsed_options.input_size or self._asked_size()

    @task
    def near_copy(self) -> None:
        """The next query of the attack."""
        if self._copies % COPIES == 0:
            self._image = photograph(self.generator, *self._size)
        self._copies += 1
        copy = near_copy(self.generator, self._image, LEVELS)
        self.ask_about(encode(copy, "PNG"), "/classify (attack)")

    def _asked_size(self) -> tuple[int, int]:
        """As the gateway says; a proxy in front lets nobody ask."""
        with self.client.get("/info", headers=self._headers, name="/info", catch_response=True) as response:
            if response.status_code == OK:
                told = response.json()["input"]
                return told["width"], told["height"]
            response.success()
        _tell_of_usual_size(response.status_code)
        return USUAL_SIZE


@cache
def _tell_of_usual_size(status: int) -> None:
    """Once, not for every attacker."""
    log.warning("/info answers %s: attackers send 32x32; --input-size says what the classifier takes", status)


@cache
def _album() -> list[File]:
    """The same for all clients of a process."""
    return album(SEED, IMAGES)


def _holds(content: bytes, images: int) -> bool:
    """Whether it is an answer about so many images; whatever else it may be, it is none."""
    try:
        answer = json.loads(content)
    except ValueError:
        return False
    results = answer.get("results", [answer]) if isinstance(answer, dict) else []
    if not isinstance(results, list) or len(results) != images:
        return False
    return all(isinstance(result, dict) and "label" in result for result in results)
