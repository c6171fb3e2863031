"""The engine with a small real bundle on the CPU."""

import dataclasses
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import structlog
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

from models.bundle import Bundle, read_bundle
from models.classifiers.normalization import Normalized
from models.defenses import build_defense
from models.device import Placement, Precision
from models.preprocessing import Pixels
from service.engine import PoolExhaustedError, Prediction, TorchEngine
from service.metrics import Metrics
from service.networks import Draws, Inferred, LocalNetworks
from service.randomness import Randomness, Sticky, fresh
from service.workers import Workers

CPU = torch.device("cpu")
MAX_BATCH = 4
PATCHES = 4
PATIENCE_SECONDS = 30
PURIFIERS = ["fgsm-edsr", "fgsm-rcan", "pgd-edsr", "pgd-rcan"]


@pytest.fixture
def bundle(bundle_folder: Path) -> Bundle:
    return read_bundle(bundle_folder)


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


def build(
    bundle: Bundle,
    metrics: Metrics,
    randomness: Randomness = fresh,
    defense: str = "puridefense",
    precision: Precision = "float32",
    *,
    shadow: bool = False,
) -> TorchEngine:
    networks = LocalNetworks(bundle, defense, Placement(CPU, precision))
    return TorchEngine(bundle, defense, networks, MAX_BATCH, randomness, metrics, shadow=shadow)


def images(count: int) -> list[Pixels]:
    return list(np.random.default_rng(1).integers(0, 256, (count, 32, 32, 3), np.uint8))


def as_tensor(pixels: list[Pixels]) -> torch.Tensor:
    return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float() / 255


def same_bytes(images: Sequence[Pixels], count: int, turn: int = 0) -> bytes:  # noqa: ARG001
    """Begins with the same bytes however many are asked for."""
    return np.random.default_rng(2).bytes(100_000)[: len(images) * count]


def always(index: int) -> Randomness:
    """Draws the same purifier for every patch."""

    def words(images: Sequence[Pixels], count: int, turn: int) -> bytes:  # noqa: ARG001
        return index.to_bytes(8, "little") * (len(images) * count // 8)

    return words


def break_purifier(bundle: Bundle, *names: str) -> None:
    """Makes purifiers give no numbers."""
    for name in names:
        for weights in bundle.purifiers[name].parameters():
            weights.fill_(float("nan"))


def scores_of(predictions: list[Prediction]) -> NDArray[np.float32]:
    return np.stack([one.scores for one in predictions])


def values(metrics: Metrics, name: str, label: str) -> dict[str, float]:
    samples = (sample for family in metrics.registry.collect() for sample in family.samples)
    return {sample.labels[label]: sample.value for sample in samples if sample.name == name}


def offline(bundle: Bundle, pixels: list[Pixels], draws: torch.Tensor) -> NDArray[np.float32]:
    """What models/ gives without any service."""
    defense = build_defense("puridefense", bundle)
    with torch.inference_mode():
        scores: NDArray[np.float32] = bundle.classifier(defense(as_tensor(pixels), draws)).softmax(dim=1).numpy()
    return scores


def test_each_image_gets_a_probability_for_every_class(bundle: Bundle, metrics: Metrics) -> None:
    scores = scores_of(build(bundle, metrics).classify(images(3)))
    assert (scores.shape, str(scores.dtype)) == ((3, 4), "float32")
    np.testing.assert_allclose(scores.sum(axis=1), 1, rtol=1e-5)


def test_it_gives_the_scores_of_the_offline_pipeline_under_the_same_draws(bundle: Bundle, metrics: Metrics) -> None:
    def words(columns: int) -> torch.Tensor:
        return torch.frombuffer(bytearray(same_bytes(images(3), columns)), dtype=torch.uint8).view(3, columns)

    draws = build_defense("puridefense", bundle).draw(words)
    assert len(set(draws.flatten().tolist())) > 1
    scores = scores_of(build(bundle, metrics, same_bytes).classify(images(3)))
    np.testing.assert_allclose(scores, offline(bundle, images(3), draws), atol=1e-6)


def test_a_query_gets_the_same_scores_alone_and_in_a_batch_under_the_same_draws(
    bundle: Bundle, metrics: Metrics
) -> None:
    engine = build(bundle, metrics, same_bytes)
    alone = engine.classify(images(1))[0].scores
    np.testing.assert_allclose(engine.classify(images(3))[0].scores, alone, atol=1e-6)


def test_the_same_image_gets_other_scores_every_time(bundle: Bundle, metrics: Metrics) -> None:
    engine = build(bundle, metrics)
    answers = {engine.classify(images(1))[0].scores.tobytes() for _ in range(40)}
    assert len(answers) > 10


def test_the_same_image_twice_in_a_batch_gets_its_own_draws(bundle: Bundle, metrics: Metrics) -> None:
    engine = build(bundle, metrics)
    answers = {one.scores.tobytes() for one in engine.classify(images(1) * 40)}
    assert len(answers) > 10


def test_without_a_defense_the_classifier_answers_alone(bundle: Bundle, metrics: Metrics) -> None:
    with torch.inference_mode():
        expected = bundle.classifier(as_tensor(images(2))).softmax(dim=1).numpy()
    engine = build(bundle, metrics, defense="none")
    np.testing.assert_allclose(scores_of(engine.classify(images(2))), expected, atol=1e-6)
    assert engine.purifiers == ()


def test_reduced_precision_changes_scores_little(bundle: Bundle, metrics: Metrics) -> None:
    reduced = build(bundle, metrics, same_bytes, precision="bfloat16").classify(images(3))
    full = build(bundle, metrics, same_bytes).classify(images(3))
    np.testing.assert_allclose(scores_of(reduced), scores_of(full), atol=0.05)


def test_every_draw_is_counted(bundle: Bundle, metrics: Metrics) -> None:
    build(bundle, metrics).classify(images(3))
    selected = values(metrics, "purigate_purifier_selected_total", "purifier")
    assert (sorted(selected), sum(selected.values())) == (PURIFIERS, 3 * PATCHES)


def test_the_purifiers_that_are_counted_are_those_that_were_drawn(bundle: Bundle, metrics: Metrics) -> None:
    third_of_the_pool = (2).to_bytes(8, "little")
    build(bundle, metrics, lambda images, count, _turn: third_of_the_pool * (len(images) * count // 8)).classify(
        images(2)
    )
    selected = values(metrics, "purigate_purifier_selected_total", "purifier")
    assert selected == {"fgsm-edsr": 0, "fgsm-rcan": 0, "pgd-edsr": 2 * PATCHES, "pgd-rcan": 0}


def test_each_query_is_timed_in_both_stages(bundle: Bundle, metrics: Metrics) -> None:
    build(bundle, metrics).classify(images(3))
    assert values(metrics, "purigate_stage_duration_seconds_count", "stage") == {"purify": 3, "classify": 3}


def test_device_time_is_counted_once_a_batch(bundle: Bundle, metrics: Metrics) -> None:
    build(bundle, metrics).classify(images(3))
    device = values(metrics, "purigate_device_seconds_total", "stage")
    per_query = values(metrics, "purigate_stage_duration_seconds_sum", "stage")
    assert {stage: 3 * seconds for stage, seconds in device.items()} == pytest.approx(per_query)


def test_the_size_of_a_batch_is_recorded(bundle: Bundle, metrics: Metrics) -> None:
    build(bundle, metrics).classify(images(3))
    assert metrics.registry.get_sample_value("purigate_batch_size_sum") == 3


def test_the_warm_up_counts_nothing(bundle: Bundle, metrics: Metrics) -> None:
    build(bundle, metrics).warm_up()
    assert set(values(metrics, "purigate_purifier_selected_total", "purifier").values()) == {0}
    assert values(metrics, "purigate_device_seconds_total", "stage") == {}


@pytest.mark.parametrize("name", PURIFIERS)
def test_the_warm_up_finds_any_one_purifier_that_is_broken(bundle: Bundle, metrics: Metrics, name: str) -> None:
    break_purifier(bundle, name)
    with pytest.raises(FloatingPointError):
        build(bundle, metrics).warm_up()


def test_the_warm_up_sees_the_largest_batch(bundle: Bundle, metrics: Metrics) -> None:
    with memory_for(float("inf")) as sizes:
        build(bundle, metrics).warm_up()
    assert {1, MAX_BATCH} <= set(sizes)


def test_the_warm_up_sends_each_purifier_alone_and_all_side_by_side(
    bundle: Bundle, metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[tuple[int, set[int]]] = []
    infer = LocalNetworks.infer

    def watched(networks: LocalNetworks, images: Sequence[Pixels], draws: Draws | None) -> Inferred:
        assert draws is not None
        sent.append((len(images), set(draws.values.flatten().tolist())))
        return infer(networks, images, draws)

    monkeypatch.setattr(LocalNetworks, "infer", watched)
    build(bundle, metrics).warm_up()
    assert sent == [(size, drawn) for size in (1, MAX_BATCH) for drawn in ({0}, {1}, {2}, {3}, {0, 1, 2, 3})]


def test_the_draw_of_an_image_is_told_by_the_numbers_of_the_purifiers_in_the_bundle(
    bundle: Bundle, metrics: Metrics
) -> None:
    (prediction,) = build(bundle, metrics, always(2)).classify(images(1))
    assert prediction.draw == "2.2.2.2"
    assert build(bundle, metrics, defense="none").classify(images(1))[0].draw == ""


def test_sticky_draws_give_the_same_image_the_same_answer_across_replicas(bundle: Bundle) -> None:
    replicas = [build(bundle, Metrics(), Sticky(b"a secret that all replicas share")) for _ in range(2)]
    told = {(one.draw, one.scores.tobytes()) for engine in replicas for one in engine.classify(images(1) * 4)}
    assert len(told) == 1


def test_a_purifier_that_gives_no_numbers_is_taken_out_and_its_queries_are_answered(
    bundle: Bundle, metrics: Metrics
) -> None:
    engine = build(bundle, metrics)
    break_purifier(bundle, "pgd-edsr")
    with structlog.testing.capture_logs() as lines:
        predictions = engine.classify(images(64))
    assert np.isfinite(scores_of(predictions)).all()
    assert engine.purifiers == ("fgsm-edsr", "fgsm-rcan", "pgd-rcan")
    assert values(metrics, "purigate_purifiers_removed_total", "purifier") == dict.fromkeys(PURIFIERS, 0.0) | {
        "pgd-edsr": 1.0
    }
    assert [(line["event"], line["purifier"], line["left"]) for line in lines] == [("purifier_removed", "pgd-edsr", 3)]


def test_batches_that_meet_a_broken_purifier_at_the_same_time_take_it_out_once(
    bundle: Bundle, metrics: Metrics
) -> None:
    both = threading.Barrier(2)

    def drawn_before_either_takes_it_out(images: Sequence[Pixels], count: int, turn: int) -> bytes:
        if len(images) == MAX_BATCH:
            both.wait(PATIENCE_SECONDS)
        return always(2)(images, count, turn)

    engine = build(bundle, metrics, drawn_before_either_takes_it_out)
    break_purifier(bundle, engine.purifiers[2])
    with ThreadPoolExecutor(2) as threads:
        answers = list(threads.map(lambda _: engine.classify(images(MAX_BATCH)), range(2)))
    assert all(np.isfinite(scores_of(one)).all() for one in answers)
    assert len(engine.purifiers) == 3
    assert sum(values(metrics, "purigate_purifiers_removed_total", "purifier").values()) == 1


def test_a_batch_spends_of_the_device_what_its_worker_has_of_it(bundle: Bundle, metrics: Metrics) -> None:
    before = torch.get_num_threads()
    networks = LocalNetworks(bundle, "puridefense", Placement(CPU, "float32"))
    engine = TorchEngine(bundle, "puridefense", networks, MAX_BATCH, fresh, metrics, workers=Workers(2, 3))
    try:
        engine.classify(images(1))
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    stages = values(metrics, "purigate_stage_duration_seconds_sum", "stage")
    for stage, seconds in values(metrics, "purigate_device_seconds_total", "stage").items():
        assert seconds == pytest.approx(stages[stage] / 2)


def test_the_numbers_of_the_others_stay_those_of_the_bundle(bundle: Bundle, metrics: Metrics) -> None:
    engine = build(bundle, metrics)
    break_purifier(bundle, "fgsm-rcan")
    engine.classify(images(64))
    numbers = {number for one in engine.classify(images(64)) for number in one.draw.split(".")}
    assert numbers == {"0", "2", "3"}


def test_only_what_met_the_broken_purifier_draws_again(bundle: Bundle, metrics: Metrics) -> None:
    engine = build(bundle, metrics, always(0))
    before = scores_of(engine.classify(images(2)))
    break_purifier(bundle, "pgd-rcan")
    np.testing.assert_array_equal(scores_of(engine.classify(images(2))), before)
    assert engine.purifiers == tuple(PURIFIERS)


def test_several_broken_purifiers_are_taken_out_at_once(bundle: Bundle, metrics: Metrics) -> None:
    engine = build(bundle, metrics)
    break_purifier(bundle, "fgsm-edsr", "pgd-rcan")
    assert np.isfinite(scores_of(engine.classify(images(64)))).all()
    assert engine.purifiers == ("fgsm-rcan", "pgd-edsr")


def test_with_fewer_than_two_purifiers_left_it_gives_up(bundle: Bundle, metrics: Metrics) -> None:
    engine = build(bundle, metrics)
    break_purifier(bundle, "fgsm-edsr", "fgsm-rcan", "pgd-rcan")
    for _ in range(2):
        with pytest.raises(PoolExhaustedError):
            engine.classify(images(64))
    assert set(values(metrics, "purigate_purifiers_removed_total", "purifier").values()) == {0, 1}


def test_a_classifier_that_gives_no_numbers_costs_no_purifier(bundle: Bundle, metrics: Metrics) -> None:
    for weights in bundle.classifier.parameters():
        weights.fill_(float("nan"))
    engine = build(bundle, metrics)
    assert not np.isfinite(scores_of(engine.classify(images(3)))).any()
    assert engine.purifiers == tuple(PURIFIERS)


def fail_on(bundle: Bundle, crafted: Pixels, *names: str) -> None:
    """Makes purifiers give no numbers for windows of one color, as a crafted image might."""
    color = float(crafted[0, 0, 0]) / 255

    def spoil(_module: torch.nn.Module, arguments: tuple[torch.Tensor], purified: torch.Tensor) -> torch.Tensor:
        hit = (arguments[0] - color).abs().amax(dim=(1, 2, 3)) < 1e-3
        return purified.masked_fill(hit.view(-1, 1, 1, 1), float("nan"))

    for name in names:
        bundle.purifiers[name].register_forward_hook(spoil)


CRAFTED = np.full((32, 32, 3), 77, np.uint8)


def test_an_image_that_a_purifier_gives_no_numbers_for_is_answered_by_the_others_and_costs_no_purifier(
    bundle: Bundle, metrics: Metrics
) -> None:
    fail_on(bundle, CRAFTED, "pgd-edsr", "fgsm-edsr")
    engine = build(bundle, metrics)
    with structlog.testing.capture_logs() as lines:
        predictions = engine.classify([*images(8), *[CRAFTED] * 8])
    assert np.isfinite(scores_of(predictions)).all()
    assert {number for one in predictions[8:] for number in one.draw.split(".")} <= {"1", "3"}
    assert engine.purifiers == tuple(PURIFIERS)
    assert set(values(metrics, "purigate_purifiers_removed_total", "purifier").values()) == {0}
    failures = values(metrics, "purigate_purifier_failures_total", "purifier")
    assert {name for name, count in failures.items() if count} == {"pgd-edsr", "fgsm-edsr"}
    assert {line["event"] for line in lines} == {"purifier_failed"}


def test_an_image_loses_no_purifier_to_the_images_beside_it(bundle: Bundle, metrics: Metrics) -> None:
    brighter = CRAFTED + 100
    fail_on(bundle, CRAFTED, "pgd-edsr")
    fail_on(bundle, brighter, "fgsm-edsr")
    sticky = Sticky(b"a secret under which both draw what fails on them, two")
    alone = [build(bundle, metrics, sticky).classify([one])[0] for one in (CRAFTED, brighter)]
    counters = Metrics()
    predictions = build(bundle, counters, sticky).classify([CRAFTED, brighter])
    assert [one.draw for one in predictions] == [one.draw for one in alone]
    np.testing.assert_allclose(scores_of(predictions), scores_of(alone), atol=1e-6)
    assert np.isfinite(scores_of(predictions)).all()
    failures = values(counters, "purigate_purifier_failures_total", "purifier")
    assert {name: count for name, count in failures.items() if count} == {"pgd-edsr": 1, "fgsm-edsr": 1}


def test_such_an_image_gets_one_answer_under_sticky_draws(bundle: Bundle, metrics: Metrics) -> None:
    fail_on(bundle, CRAFTED, "pgd-edsr", "fgsm-edsr")
    engine = build(bundle, metrics, Sticky(b"a secret that all replicas share"))
    told = {(one.draw, one.scores.tobytes()) for _ in range(4) for one in engine.classify([CRAFTED])}
    assert len(told) == 1
    assert np.isfinite(engine.classify([CRAFTED])[0].scores).all()


def test_an_image_that_nearly_all_fail_on_fails_alone(bundle: Bundle, metrics: Metrics) -> None:
    fail_on(bundle, CRAFTED, *PURIFIERS[:3])
    engine = build(bundle, metrics)
    scores = scores_of(engine.classify([*images(8), *[CRAFTED] * 32]))
    assert np.isfinite(scores[:8]).all()
    assert not np.isfinite(scores[8:]).all()
    assert engine.purifiers == tuple(PURIFIERS)


class BrightestQuarter(torch.nn.Module):
    """The class of an image is that of its quarters which is brightest; of noise all are about as bright."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.adaptive_avg_pool2d(images, 2).mean(dim=1).flatten(1)


@contextmanager
def memory_for(largest: float) -> Iterator[list[int]]:
    """Lets classifiers hold so many images; gives the sizes that they were asked to hold."""
    sizes: list[int] = []

    def hold(module: nn.Module, arguments: tuple[torch.Tensor, ...]) -> None:
        if isinstance(module, Normalized):
            sizes.append(len(arguments[0]))
            if sizes[-1] > largest:
                raise torch.OutOfMemoryError("CUDA out of memory")

    with register_module_forward_pre_hook(hold):
        yield sizes


def test_a_batch_that_does_not_fit_the_device_is_answered_in_halves(bundle: Bundle, metrics: Metrics) -> None:
    expected = scores_of(build(bundle, metrics, always(1)).classify(images(5)))
    with memory_for(3) as sizes:
        found = scores_of(build(bundle, metrics, always(1)).classify(images(5)))
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert sizes == [5, 3, 2]
    assert metrics.registry.get_sample_value("purigate_out_of_memory_total") == 1


@pytest.mark.parametrize(("count", "tried"), [(4, [4, 2]), (1, [1, 1])])
def test_it_is_tried_only_once_more(bundle: Bundle, metrics: Metrics, count: int, tried: list[int]) -> None:
    with memory_for(0) as sizes, pytest.raises(torch.OutOfMemoryError):
        build(bundle, metrics).classify(images(count))
    assert sizes == tried


def test_in_shadow_mode_the_undefended_answer_is_given(bundle: Bundle, metrics: Metrics) -> None:
    expected = scores_of(build(bundle, metrics, defense="none").classify(images(8)))
    np.testing.assert_array_equal(scores_of(build(bundle, metrics, shadow=True).classify(images(8))), expected)


def test_in_shadow_mode_changed_labels_are_counted(bundle: Bundle, metrics: Metrics) -> None:
    bundle = dataclasses.replace(bundle, classifier=BrightestQuarter())
    undefended = scores_of(build(bundle, Metrics(), defense="none").classify(images(32))).argmax(axis=1)
    defended = scores_of(build(bundle, Metrics(), always(3)).classify(images(32))).argmax(axis=1)
    build(bundle, metrics, always(3), shadow=True).classify(images(32))
    changed = metrics.registry.get_sample_value("purigate_prediction_changed_total")
    assert changed == (undefended != defended).sum() > 0
