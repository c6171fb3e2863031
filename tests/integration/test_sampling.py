"""Randomness as a client can see it: a real engine with real purifiers, asked over a real socket."""

import io
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from PIL import Image

if TYPE_CHECKING:
    from tests.integration.conftest import Service

PATCHES = 4
BATCH = 32
CHANCE_OF_A_FALSE_ALARM = 1e-6


@pytest.fixture
def photograph() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def selected(service: "Service") -> Counter[str]:
    counts = {name: service.value("purifier_selected_total", purifier=name) for name in service.engine.purifiers}
    return Counter({name: int(count or 0) for name, count in counts.items()})


def chance_of_uniform(counts: list[int]) -> float:
    """Chi-square: how probable counts so uneven, or more so, are if every purifier is equally likely."""
    expected = sum(counts) / len(counts)
    statistic = sum((count - expected) ** 2 / expected for count in counts)
    freedom = torch.tensor((len(counts) - 1) / 2, dtype=torch.float64)
    return float(torch.special.gammaincc(freedom, torch.tensor(statistic / 2, dtype=torch.float64)))


def test_the_same_image_asked_again_and_again_gets_other_scores(real_service: "Service", photograph: bytes) -> None:
    answers = {str(real_service.post(photograph).json()["scores"]) for _ in range(40)}
    assert len(answers) > 20


def test_purifiers_are_drawn_uniformly(real_service: "Service", photograph: bytes) -> None:
    before = selected(real_service)
    for _ in range(10):
        assert real_service.post_files(*[photograph] * BATCH).status_code == 200
    drawn = selected(real_service)
    drawn.subtract(before)
    assert sum(drawn.values()) == 10 * BATCH * PATCHES
    assert chance_of_uniform(list(drawn.values())) > CHANCE_OF_A_FALSE_ALARM


def test_the_yardstick_itself_sees_a_draw_that_is_not_uniform() -> None:
    assert chance_of_uniform([250, 250, 350, 430]) < CHANCE_OF_A_FALSE_ALARM
    assert chance_of_uniform([310, 330, 325, 315]) > 0.5


def test_a_batch_and_single_requests_get_the_same_kind_of_answer(real_service: "Service", photograph: bytes) -> None:
    (in_batch,) = real_service.post_files(photograph).json()["results"]
    alone = real_service.post(photograph).json()
    assert sorted(in_batch) == sorted(set(alone) - {"request_id", "bundle"})
    for answer in (in_batch, alone):
        assert sum(score["score"] for score in answer["scores"]) == pytest.approx(1, abs=1e-5)
