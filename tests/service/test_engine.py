"""The engine with a small real bundle on the CPU."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from models.bundle import Bundle, read_bundle
from models.defenses import build_defense
from models.preprocessing import Pixels
from service.engine import DeviceMissingError, TorchEngine, choose_device, choose_precision
from service.metrics import Metrics
from service.randomness import Randomness, system_randomness

CPU = torch.device("cpu")
MAX_BATCH = 4
PATCHES = 4
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
    randomness: Randomness = system_randomness,
    defense: str = "puridefense",
    precision: str = "float32",
) -> TorchEngine:
    return TorchEngine(bundle, defense, CPU, precision, MAX_BATCH, randomness, metrics)


def images(count: int) -> list[Pixels]:
    return list(np.random.default_rng(1).integers(0, 256, (count, 32, 32, 3), np.uint8))


def as_tensor(pixels: list[Pixels]) -> torch.Tensor:
    return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float() / 255


def same_bytes(count: int) -> bytes:
    """Begins with the same bytes however many are asked for."""
    return np.random.default_rng(2).bytes(100_000)[:count]


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
    scores = np.stack(build(bundle, metrics).classify(images(3)))
    assert (scores.shape, str(scores.dtype)) == ((3, 4), "float32")
    np.testing.assert_allclose(scores.sum(axis=1), 1, rtol=1e-5)


def test_it_gives_the_scores_of_the_offline_pipeline_under_the_same_draws(bundle: Bundle, metrics: Metrics) -> None:
    def words(columns: int) -> torch.Tensor:
        return torch.frombuffer(bytearray(same_bytes(3 * columns)), dtype=torch.uint8).view(3, columns)

    draws = build_defense("puridefense", bundle).draw(words)
    assert len(set(draws.flatten().tolist())) > 1
    scores = np.stack(build(bundle, metrics, same_bytes).classify(images(3)))
    np.testing.assert_allclose(scores, offline(bundle, images(3), draws), atol=1e-6)


def test_a_query_gets_the_same_scores_alone_and_in_a_batch_under_the_same_draws(
    bundle: Bundle, metrics: Metrics
) -> None:
    engine = build(bundle, metrics, same_bytes)
    alone = engine.classify(images(1))[0]
    np.testing.assert_allclose(engine.classify(images(3))[0], alone, atol=1e-6)


def test_the_same_image_gets_other_scores_every_time(bundle: Bundle, metrics: Metrics) -> None:
    engine = build(bundle, metrics)
    answers = {engine.classify(images(1))[0].tobytes() for _ in range(40)}
    assert len(answers) > 10


def test_the_same_image_twice_in_a_batch_gets_its_own_draws(bundle: Bundle, metrics: Metrics) -> None:
    engine = build(bundle, metrics)
    answers = {scores.tobytes() for scores in engine.classify(images(1) * 40)}
    assert len(answers) > 10


def test_without_a_defense_the_classifier_answers_alone(bundle: Bundle, metrics: Metrics) -> None:
    with torch.inference_mode():
        expected = bundle.classifier(as_tensor(images(2))).softmax(dim=1).numpy()
    engine = build(bundle, metrics, defense="none")
    np.testing.assert_allclose(np.stack(engine.classify(images(2))), expected, atol=1e-6)
    assert engine.purifiers == ()


def test_reduced_precision_changes_scores_little(bundle: Bundle, metrics: Metrics) -> None:
    reduced = build(bundle, metrics, same_bytes, precision="bfloat16").classify(images(3))
    full = build(bundle, metrics, same_bytes).classify(images(3))
    np.testing.assert_allclose(np.stack(reduced), np.stack(full), atol=0.05)


def test_every_draw_is_counted(bundle: Bundle, metrics: Metrics) -> None:
    build(bundle, metrics).classify(images(3))
    selected = values(metrics, "purigate_purifier_selected_total", "purifier")
    assert (sorted(selected), sum(selected.values())) == (PURIFIERS, 3 * PATCHES)


def test_the_purifiers_that_are_counted_are_those_that_were_drawn(bundle: Bundle, metrics: Metrics) -> None:
    third_of_the_pool = (2).to_bytes(8, "little")
    build(bundle, metrics, lambda count: third_of_the_pool * (count // 8)).classify(images(2))
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
    for weights in bundle.purifiers[name].parameters():
        weights.fill_(float("nan"))
    with pytest.raises(FloatingPointError):
        build(bundle, metrics).warm_up()


def test_the_warm_up_sees_the_largest_batch(bundle: Bundle, metrics: Metrics) -> None:
    sizes: list[int] = []
    bundle.classifier.register_forward_pre_hook(lambda _module, arguments: sizes.append(len(arguments[0])))
    build(bundle, metrics).warm_up()
    assert {1, MAX_BATCH} <= set(sizes)


def test_a_device_that_does_not_exist_is_an_error_that_names_it() -> None:
    with pytest.raises(DeviceMissingError, match="cuda:99"):
        choose_device("cuda:99")


def test_the_cpu_is_taken_if_it_is_asked_for() -> None:
    assert choose_device("cpu") == CPU


@pytest.mark.parametrize("name", ["float32", "bfloat16"])
def test_a_precision_that_is_asked_for_is_taken(name: str) -> None:
    assert choose_precision(name, CPU) == name
