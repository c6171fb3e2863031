"""What is started: the settings of every server, and the variants of each system."""

from pathlib import Path

import pytest

from benchmarks.systems import LITSERVE, MOSEC, PLAIN_FASTAPI, PLAIN_LITSERVE, PLAIN_MOSEC, Served, systems
from service.workers import Workers


def test_servers_follow_no_setting_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PURIGATE_SHADOW", "true")
    monkeypatch.setenv("PURIGATE_WORKERS", "7")
    monkeypatch.setenv("PURIGATE_MAX_BATCH", "2")
    environment = Served(Path("/bundle"), "cpu", max_batch=4).environment()
    assert {name: value for name, value in environment.items() if name.startswith("PURIGATE_")} == {
        "PURIGATE_BUNDLE": "/bundle",
        "PURIGATE_DEVICE": "cpu",
        "PURIGATE_PRECISION": "auto",
        "PURIGATE_MAX_BATCH": "4",
    }


@pytest.mark.parametrize("name", [PLAIN_FASTAPI, PLAIN_LITSERVE, PLAIN_MOSEC])
def test_plain_systems_run_the_network_as_torch_does(name: str) -> None:
    plain = ("--network", "torch")
    assert [one.flags[-2:] for one in systems()[name]] == [plain] * len(systems()[name])
    with_our_engine = systems()[name.removeprefix("plain ")]
    assert [one.flags for one in with_our_engine] == [one.flags[:-2] for one in systems()[name]]


@pytest.mark.parametrize("name", [LITSERVE, MOSEC, PLAIN_LITSERVE, PLAIN_MOSEC])
@pytest.mark.parametrize(("count", "tried"), [(1, ["1"]), (2, ["1", "2"]), (8, ["1", "8"])])
def test_others_may_have_as_many_workers_as_the_gateway(
    name: str, count: int, tried: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.systems.choose_workers", lambda _count, _device: Workers(count, 1))
    flags = [one.flags for one in systems()[name]]
    assert sorted({one[one.index("--workers") + 1] for one in flags}) == tried
    assert len(set(flags)) == len(flags)
