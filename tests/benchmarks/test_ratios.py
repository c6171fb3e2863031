"""Ratios, their spread, and whether a goal is met."""

import pytest

from benchmarks.passes import Pass
from benchmarks.ratios import (
    ALONE,
    DEFENDED_OFFLINE,
    OFFLINE_BARE,
    OFFLINE_DEFENDED,
    Figure,
    defended_goal,
    figures,
    paired,
    spread,
)
from benchmarks.slices import Slice
from benchmarks.systems import BARE, LITSERVE, PLAIN_LITSERVE
from models.bundle import read_manifest
from models.classifiers import ClassifierConfig, ResNetConfig, TorchvisionConfig, WideResNetConfig
from models.preprocessing import Preprocessing
from service.settings import embedded_bundle


def slices(*rates: float) -> tuple[Slice, ...]:
    return tuple(Slice(answered=1, per_second=rate, p50_ms=rate) for rate in rates)


def by_name(*found: Figure) -> dict[str, Figure]:
    return {one.name: one for one in found}


def pool(purifiers: int, *times: float) -> Pass:
    return Pass(device="cpu", purifiers=purifiers, batch=32, pass_ms=times, whole_ms=times)


def test_a_ratio_is_of_the_slices_of_one_round() -> None:
    assert paired([100, 10], [50, 5]) == [2, 2]


def test_a_round_without_a_divisor_has_no_ratio() -> None:
    assert paired([100, 10], [50, 0]) == [2]


def test_series_of_different_rounds_are_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        paired([1, 2], [1])


def test_the_spread_of_a_few_is_that_of_all() -> None:
    assert spread([3, 1, 2]) == (2, 1, 3)


def test_the_spread_of_many_is_that_of_the_middle_half() -> None:
    assert spread([*range(1, 12), 1000]) == (6.5, 3.25, 9.75)


def test_of_nothing_the_spread_is_nothing() -> None:
    assert spread([]) == (0, 0, 0)


@pytest.mark.parametrize(("rate", "met"), [(90, True), (89, False)])
def test_served_over_offline_has_to_reach_its_goal(rate: float, met: bool) -> None:
    (figure,) = figures({BARE: slices(rate), OFFLINE_BARE: slices(100)}, ())
    assert (figure.name, figure.median, figure.at_least) == ("served over offline, undefended", rate / 100, 0.90)
    assert figure.met is met


@pytest.mark.parametrize(("rate", "met"), [(60, True), (59, False)])
def test_the_defended_loop_has_to_reach_the_goal_of_what_is_served(rate: float, met: bool) -> None:
    (figure,) = figures({OFFLINE_DEFENDED: slices(rate), OFFLINE_BARE: slices(100)}, (), 0.6)
    assert (figure.name, figure.met) == (DEFENDED_OFFLINE, met)


@pytest.mark.parametrize(
    ("device", "architecture", "side", "goal"),
    [
        ("cpu", ResNetConfig(), 32, 0.70),
        ("cuda", WideResNetConfig(), 32, 0.85),
        ("cuda", TorchvisionConfig(name="resnet50"), 224, 0.60),
        ("cuda", ResNetConfig(), 32, None),
        ("cpu", WideResNetConfig(), 32, None),
        ("cuda", WideResNetConfig(depth=16), 32, None),
        ("cuda", TorchvisionConfig(name="resnet50"), 192, None),
        ("cpu", ResNetConfig(width=4), 32, None),
    ],
)
def test_the_goal_of_the_defense_is_that_of_the_device_the_classifier_and_its_images(
    device: str, architecture: ClassifierConfig, side: int, goal: float | None
) -> None:
    manifest = read_manifest(embedded_bundle())
    classifier = manifest.classifier.model_copy(update={"architecture": architecture})
    size = Preprocessing(resize=side, height=side, width=side)
    served = manifest.model_copy(update={"classifier": classifier, "preprocessing": size})
    assert defended_goal(served, device) == goal


def test_the_embedded_bundle_has_a_goal_on_a_cpu() -> None:
    assert defended_goal(read_manifest(embedded_bundle()), "cpu") == 0.70


@pytest.mark.parametrize("name", [LITSERVE, PLAIN_LITSERVE])
@pytest.mark.parametrize(("rate", "met"), [(120, True), (119, False)])
def test_litserve_has_to_be_outrun(name: str, rate: float, met: bool) -> None:
    (figure,) = figures({BARE: slices(rate), name: slices(100)}, ())
    assert figure.met is met


@pytest.mark.parametrize(("time", "met"), [(11, True), (12, False)])
def test_a_pass_must_not_grow_with_the_pool(time: float, met: bool) -> None:
    (figure,) = figures({}, (pool(0, 0), pool(1, 10), pool(4, 99), pool(12, time)))
    assert figure.name == "pass of 12 purifiers over 1, batch 32, cpu"
    assert figure.met is met


def test_a_pool_of_one_is_compared_with_nothing() -> None:
    assert figures({}, (pool(0, 0), pool(1, 10))) == ()


@pytest.mark.parametrize(("time", "met"), [(2, True), (2.1, False)])
def test_http_alone_has_a_time_to_keep(time: float, met: bool) -> None:
    (figure,) = figures({ALONE: slices(time)}, ())
    assert (figure.median, figure.met) == (time, met)


def test_what_has_no_goal_is_neither_met_nor_missed() -> None:
    found = by_name(*figures({"defended": slices(50), BARE: slices(100)}, ()))
    assert found["defended over undefended, served"].met is None


def test_what_is_compared_with_a_system_that_answered_nothing_has_no_figure() -> None:
    assert figures({BARE: slices(100, 100), LITSERVE: slices(0, 0)}, ()) == ()


def test_a_system_of_ours_that_answered_nothing_misses_its_goal() -> None:
    (figure,) = figures({BARE: slices(0), LITSERVE: slices(100)}, ())
    assert (figure.median, figure.met) == (0, False)


def test_what_was_not_measured_has_no_figure() -> None:
    assert figures({BARE: slices(100)}, ()) == ()


def test_rounds_that_others_disturbed_do_not_count() -> None:
    quiet, loud = (Slice(answered=1, per_second=100, others=others) for others in (0.01, 0.9))
    bare, offline = (quiet, loud, quiet), (quiet, quiet, quiet.model_copy(update={"per_second": 80}))
    (figure,) = figures({BARE: bare, OFFLINE_BARE: offline}, ())
    assert (figure.rounds, figure.low, figure.high) == (2, 1, 1.25)


def test_where_all_rounds_were_disturbed_all_count() -> None:
    loud = Slice(answered=1, per_second=100, others=0.9)
    (figure,) = figures({BARE: (loud, loud), OFFLINE_BARE: (loud, loud)}, ())
    assert figure.rounds == 2
