"""Which settings suit a system on this machine: all that are tried take turns, and the best is taken."""

from collections.abc import Callable, Sequence
from functools import partial
from statistics import median

from benchmarks.bodies import Body
from benchmarks.client import Client
from benchmarks.ratios import undisturbed
from benchmarks.record import Plan, Trial
from benchmarks.rounds import serving, take_turns
from benchmarks.slices import Slice
from benchmarks.systems import Served, System

ROUNDS = 2


def try_all(
    variants: Sequence[System],
    served: Served,
    bodies: list[Body],
    client: Client,
    plan: Plan,
    on_slice: Callable[[str, Slice], None],
) -> list[Trial]:
    """Every variant of one system under the load of `plan`; the fastest is marked as chosen."""
    with serving(variants, served, bodies) as servings:
        measures = {
            " ".join((one.system.name, *one.system.flags)): partial(
                one.load, client, plan.connections, plan.seconds, plan.warm_up
            )
            for one in servings
        }
        slices = list(take_turns(measures, ROUNDS, on_slice).values())
    best = fastest(slices)
    return [
        Trial(name=system.name, flags=system.flags, slices=taken, chosen=taken is best)
        for system, taken in zip(variants, slices, strict=True)
    ]


def fastest(slices: Sequence[Sequence[Slice]]) -> Sequence[Slice]:
    """Those of the variant with the best median, as the tables have it: of the slices that nobody disturbed."""
    return max(slices, key=lambda taken: median(one.per_second for one in undisturbed(taken)))


def chosen(variants: Sequence[System], trials: Sequence[Trial]) -> System:
    """The variant that trials chose; the first where nothing was tried.

    Raises:
        ValueError: they chose one that there is not, as those of another machine or an older version may.
    """
    name = variants[0].name
    by_flags = {one.flags: one for one in variants}
    for trial in trials:
        if trial.chosen and trial.name == name:
            if trial.flags not in by_flags:
                raise ValueError(f"{name} is not measured with {' '.join(trial.flags)} here: try its settings anew")
            return by_flags[trial.flags]
    return variants[0]
