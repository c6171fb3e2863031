"""One run of `make bench`: what is measured, one part after the other."""

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import typer

from benchmarks.bodies import Body
from benchmarks.client import Client
from benchmarks.machine import Machine
from benchmarks.offline import Offline, running_offline
from benchmarks.passes import Pass, measure_passes, pool_devices
from benchmarks.ratios import ALONE, OFFLINE_BARE, OFFLINE_DEFENDED, defended_goal, figures
from benchmarks.record import Plan, Record, Series, Trial
from benchmarks.rounds import Serving, serving, take_turns
from benchmarks.server import RunningServer
from benchmarks.slices import Slice
from benchmarks.systems import BARE, DEFENDED, GATEWAY, NO_OP, PEERS, Served, System, systems
from benchmarks.tuning import chosen, try_all
from models.bundle import read_manifest
from models.device import choose_device

STAGES = ("decode", "queue", "purify", "classify")
MILLI = 1e-3


class Bench:
    """One run.

    Args:
        served: the bundle, the device and the largest batch.
        bodies: what is sent.
        plan: how long and how often.
        client: that sends it.
    """

    def __init__(self, served: Served, bodies: list[Body], plan: Plan, client: Client) -> None:
        self._served = served
        self._bodies = bodies
        self._plan = plan
        self._client = client

    def records(self, present: list[str], absent: list[str], trials: tuple[Trial, ...] | None) -> Iterator[Record]:
        """What is known after each part: which settings suit, what every system does, what a pass takes.

        Args:
            present: names of the systems.
            absent: names of those that are not installed.
            trials: of their settings; made here if there are none, not even no settings.
        """
        begin = time.monotonic()
        goal = defended_goal(read_manifest(self._served.bundle), choose_device(self._served.device).type)

        def so_far(record: Record, **parts: Any) -> Record:
            return record.model_copy(update={**parts, "seconds": round(time.monotonic() - begin)})

        with running_offline(self._served, [content for content, _ in self._bodies]) as offline:
            record = Record(
                machine=Machine.here(),
                computing=offline.computing(),
                plan=self._plan,
                trials=self._trials(present) if trials is None else trials,
                absent=tuple(absent),
            )
            yield so_far(record)
            series = self._series([chosen(systems()[name], record.trials) for name in present], offline)
        slices = {one.name: one.slices for one in series}
        record = so_far(record, series=series, figures=figures(slices, (), goal))
        yield record
        passes = self._passes()
        yield so_far(record, passes=passes, figures=figures(slices, passes, goal))

    def _trials(self, names: list[str]) -> tuple[Trial, ...]:
        """The settings that there are for each system that has several."""
        trials: list[Trial] = []
        for name in names:
            variants = systems()[name]
            if len(variants) > 1:
                trials += try_all(variants, self._served, self._bodies, self._client, self._plan, _progress)
        return tuple(trials)

    def _series(self, to_serve: list[System], offline: Offline) -> tuple[Series, ...]:
        """All systems and the loops beside them, by turns."""
        with serving(to_serve, self._served, self._bodies) as servings:
            agreements = {one.system.name: self._agreement(one, offline) for one in servings}
            slices = take_turns(self._measures(servings, offline), self._plan.rounds, _progress)
            described = {one.system.name: self._describe(one, agreements[one.system.name]) for one in servings}
        nothing = Series(name="", slices=())
        return tuple(
            described.get(name, nothing).model_copy(update={"name": name, "slices": taken})
            for name, taken in slices.items()
        )

    def _passes(self) -> tuple[Pass, ...]:
        """The passes of pools of several sizes, on each device."""
        bundle, rounds = self._served.bundle, self._plan.pass_rounds
        devices = pool_devices(self._served.device) if rounds else ()
        return tuple(one for each in devices for one in measure_passes(bundle, each, rounds, self._served.precision))

    def _measures(self, servings: list[Serving], offline: Offline) -> dict[str, Callable[[], Slice]]:
        """Of each system, and of the loop that it is compared with, next to one another."""
        plan, measures = self._plan, dict[str, Callable[[], Slice]]()
        loops = {
            BARE: (OFFLINE_BARE, partial(_offline_slice, offline, "none", plan.seconds)),
            DEFENDED: (OFFLINE_DEFENDED, partial(_offline_slice, offline, "puridefense", plan.seconds)),
        }
        for one in servings:
            load = partial(one.load, self._client, seconds=plan.seconds, warm_up=plan.warm_up)
            measures[one.system.name] = partial(load, connections=plan.connections)
            if one.system.name == NO_OP:
                measures[ALONE] = partial(load, connections=1)
            if loop := loops.pop(one.system.name, None):
                measures[loop[0]] = loop[1]
        return measures | dict(loops.values())

    def _agreement(self, one: Serving, offline: Offline) -> float | None:
        """Of the bare classifiers; what a defended one says differs by its draws."""
        if one.system.name not in {BARE, *PEERS}:
            return None
        return one.agreement(self._client, self._plan.connections, offline.told())

    def _describe(self, one: Serving, agreement: float | None) -> Series:
        with one.awake():
            of_gateway = one.system.name in GATEWAY
            stages, mean_batch = _stages(one.server) if of_gateway else ({}, None)
            return Series(
                name=one.system.name,
                flags=one.system.flags,
                seconds_to_ready=one.server.seconds_to_ready,
                peak_mebibytes=one.server.peak_mebibytes(),
                agreement=agreement,
                mean_batch=mean_batch,
                stages=stages,
                slices=(),
            )


def _offline_slice(offline: Offline, defense: str, seconds: float) -> Slice:
    taken, per_second = offline.rate(defense, seconds)
    return Slice(answered=taken, per_second=per_second)


def _stages(server: RunningServer) -> tuple[dict[str, float], float | None]:
    """Mean milliseconds of a query in each stage, and the mean batch, since the start."""
    metrics = server.metrics()

    def mean(name: str, labels: str = "") -> float:
        count = metrics.get(f"purigate_{name}_count{labels}", 0)
        return metrics[f"purigate_{name}_sum{labels}"] / count if count else 0.0

    stages = {stage: mean("stage_duration_seconds", f'{{stage="{stage}"}}') / MILLI for stage in STAGES}
    return {stage: spent for stage, spent in stages.items() if spent}, mean("batch_size") or None


def _progress(name: str, one: Slice) -> None:
    failed = f", {one.failed}" if one.failed else ""
    typer.echo(f"{name}: {one.per_second:,.0f} per second{failed}", err=True)
