"""What `make loadtest` has Locust do."""

import argparse
from pathlib import Path

import pytest

from loadtest.__main__ import command

URL = "http://127.0.0.1:1"
ROOT = Path(__file__).parents[2]
STEP = str(ROOT / "loadtest" / "step.py")
CLIENTS = str(ROOT / "loadtest" / "locustfile.py")


def understood(*arguments: str) -> argparse.Namespace:
    """The command as Locust's parser, an argparse, reads it; to import Locust here would patch this process."""
    parser = argparse.ArgumentParser()
    for flags in (("-f", "--locustfile"), ("-u", "--users"), ("-r", "--spawn-rate"), ("-t", "--run-time")):
        parser.add_argument(*flags)
    return parser.parse_known_args(command(URL, list(arguments)))[0]


@pytest.mark.parametrize("arguments", [(), ("--max-p99-ms", "900"), ("--api-key", "secret"), ("Client",)])
def test_it_ends_whatever_is_said_besides(arguments: tuple[str, ...]) -> None:
    made = command(URL, list(arguments))
    assert {"--headless", "--users", "--run-time"} <= set(made)
    assert made[len(made) - len(arguments) :] == list(arguments)


def test_what_is_said_wins() -> None:
    options = understood("--users", "3", "-t", "5s")
    assert (options.users, options.spawn_rate, options.run_time) == ("3", "10", "5s")


@pytest.mark.parametrize("said", [("-f", STEP), (f"-f={STEP}",), ("--locustfile", STEP), (f"--locustfile={STEP}",)])
def test_a_file_that_is_named_is_the_only_one_and_steps_end_by_themselves(said: tuple[str, ...]) -> None:
    options = understood(*said)
    assert (options.locustfile, options.run_time) == (STEP, None)
    assert CLIENTS not in command(URL, list(said))


def test_another_file_ends_too() -> None:
    assert understood("-f", "soak.py").run_time == "30s"
