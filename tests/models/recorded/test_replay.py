"""Recorded calls: with CUDA graphs where there is a GPU, and the ladder of batch sizes without one."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor, nn

from models.recorded.replay import GraphRecorder, Replayed, ladder
from tests.models.recorded.tape import Recorder

LARGEST = 6


def scaled(images: Tensor, factors: Tensor) -> Tensor:
    return images * factors


def test_every_batch_gets_what_the_function_says_of_it() -> None:
    replayed = Replayed(scaled, LARGEST, Recorder())
    for count in (3, 1, 6, 4, 2, 5, 3):
        images, factors = torch.rand(count, 2), torch.rand(count, 1)
        torch.testing.assert_close(replayed(images, factors), images * factors)


def test_an_answer_is_not_changed_by_the_batch_after_it() -> None:
    replayed = Replayed(scaled, LARGEST, Recorder())
    images, factors = torch.rand(3, 2), torch.rand(3, 1)
    answer = replayed(images, factors)
    replayed(torch.rand(3, 2), torch.rand(3, 1))
    torch.testing.assert_close(answer, images * factors)


def test_each_rung_of_the_ladder_is_recorded_once() -> None:
    recorder = Recorder()
    replayed = Replayed(scaled, LARGEST, recorder)
    for count in (1, 2, 3, 4, 5, 6, 6, 5, 4, 3, 2, 1):
        replayed(torch.rand(count, 2), torch.rand(count, 1))
    assert [tape.rows for tape in recorder.tapes] == list(ladder(LARGEST)) == [1, 2, 4, 6]


def test_another_shape_of_image_is_recorded_anew() -> None:
    replayed = Replayed(scaled, LARGEST, Recorder())
    for side in (2, 3):
        images, factors = torch.rand(2, side), torch.rand(2, 1)
        torch.testing.assert_close(replayed(images, factors), images * factors)


@pytest.mark.parametrize("count", [0, LARGEST + 1])
def test_a_batch_that_is_none_or_too_large_is_not_recorded(count: int) -> None:
    recorder = Recorder()
    images, factors = torch.rand(count, 2), torch.rand(count, 1)
    torch.testing.assert_close(Replayed(scaled, LARGEST, recorder)(images, factors), images * factors)
    assert not recorder.tapes


@pytest.mark.parametrize("count", [3, LARGEST + 1])
def test_inputs_of_different_batches_are_refused(count: int) -> None:
    replayed = Replayed(scaled, LARGEST, Recorder())
    with pytest.raises(ValueError, match=f"inputs for {count} and for 1 images"):
        replayed(torch.rand(count, 2), torch.rand(1, 1))


@pytest.mark.parametrize("count", [LARGEST, LARGEST + 1], ids=["recorded", "too large"])
def test_one_thread_at_a_time_is_in_the_function(count: int) -> None:
    inside, met = threading.Semaphore(1), []

    def alone(images: Tensor) -> Tensor:
        met.append(inside.acquire(blocking=False))
        both_begin.wait(0.2)
        inside.release()
        return images

    both_begin = threading.Event()
    replayed = Replayed(alone, LARGEST, Recorder())
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(replayed, [torch.rand(count, 2) for _ in range(2)]))
    assert all(met)


def test_one_recording_of_a_recorder_at_a_time_is_replayed() -> None:
    inside, met = threading.Semaphore(1), []

    def alone(images: Tensor) -> Tensor:
        met.append(inside.acquire(blocking=False))
        both_begin.wait(0.2)
        inside.release()
        return images.clone()

    both_begin, recorder = threading.Event(), Recorder()
    functions = [Replayed(alone, LARGEST, recorder) for _ in range(2)]
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(lambda replayed: replayed(torch.rand(3, 2)), functions))
    assert all(met)


@pytest.mark.parametrize("count", [0, 1, 3, 5, LARGEST, LARGEST + 1])
def test_the_rows_that_the_function_is_called_with_are_told(count: int) -> None:
    seen: list[int] = []

    def watched(images: Tensor) -> Tensor:
        seen.append(len(images))
        return images.clone()

    replayed = Replayed(watched, LARGEST, Recorder())
    replayed(torch.rand(count, 2))
    assert set(seen) == {replayed.rows(count)}


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 5))
    return layers.cuda().eval()


@pytest.mark.cuda
@torch.inference_mode()
def test_a_cuda_graph_gives_what_the_network_gives(network: nn.Module) -> None:
    replayed = Replayed(network, LARGEST, GraphRecorder(torch.device("cuda")))
    for count in (1, 3, 6, 2, 6):
        images = torch.rand(count, 3, 6, 6, device="cuda")
        torch.testing.assert_close(replayed(images), network(images), atol=1e-4, rtol=1e-3)


@pytest.mark.cuda
@torch.inference_mode()
def test_graphs_of_one_memory_do_not_write_over_each_others_answers(network: nn.Module) -> None:
    replayed = Replayed(network, LARGEST, GraphRecorder(torch.device("cuda")))
    batches = [torch.rand(count, 3, 6, 6, device="cuda") for count in (6, 1, 4, 2)]
    answers = [replayed(images) for images in batches]
    for images, answer in zip(batches, answers, strict=True):
        torch.testing.assert_close(answer, network(images), atol=1e-4, rtol=1e-3)
