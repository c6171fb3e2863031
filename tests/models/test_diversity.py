"""What is known by hand of the diversity of purifiers and of the answers behind them."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from models.diversity import error_correlation, flip_rate, logit_variance, nu, pairwise_distance

seeds = st.integers(0, 2**32 - 1)


def purified(purifiers: int, seed: int = 0) -> Tensor:
    return torch.rand(purifiers, 5, 3, 4, 4, generator=torch.Generator().manual_seed(seed))


def test_the_distance_of_two_constants_is_their_difference_times_the_root_of_the_pixels() -> None:
    outputs = torch.tensor([0.2, 0.5, 0.9]).view(3, 1, 1, 1, 1).expand(3, 7, 3, 2, 2)

    expected = math.sqrt(12) * torch.tensor([[0, 0.3, 0.7], [0.3, 0, 0.4], [0.7, 0.4, 0]], dtype=torch.float64)
    torch.testing.assert_close(pairwise_distance(outputs), expected, rtol=1e-6, atol=1e-6)


def test_the_distance_is_a_mean_of_norms_over_the_images() -> None:
    outputs = torch.zeros(2, 2, 1, 1, 2)
    outputs[1, 0] = torch.tensor([0.3, 0.4])
    outputs[1, 1] = torch.tensor([1.0, 0.0])

    assert float(pairwise_distance(outputs)[0, 1]) == pytest.approx((0.5 + 1) / 2)


def test_nu_is_the_largest_distance() -> None:
    outputs = torch.tensor([0.2, 0.5, 0.9]).view(3, 1, 1, 1, 1).expand(3, 2, 1, 1, 1)

    assert nu(outputs) == pytest.approx(0.7)


def test_one_purifier_has_no_diversity() -> None:
    assert nu(purified(1)) == 0


@settings(deadline=None, max_examples=25)
@given(purifiers=st.integers(1, 4), seed=seeds)
def test_identical_purifiers_have_no_distance_and_errors_that_correlate_fully(purifiers: int, seed: int) -> None:
    outputs = purified(1, seed).expand(purifiers, -1, -1, -1, -1)
    clean = purified(1, seed + 1)[0]

    assert torch.equal(pairwise_distance(outputs), torch.zeros(purifiers, purifiers, dtype=torch.float64))
    torch.testing.assert_close(error_correlation(outputs, clean), torch.ones(purifiers, purifiers, dtype=torch.float64))


@settings(deadline=None, max_examples=25)
@given(seed=seeds)
def test_distances_are_a_metric(seed: int) -> None:
    distance = pairwise_distance(purified(3, seed))

    assert torch.equal(distance, distance.T)
    assert torch.equal(distance.diagonal(), torch.zeros(3, dtype=torch.float64))
    assert bool((distance[0, 1] + distance[1, 2] >= distance[0, 2] - 1e-12).all())
    assert float(distance[0, 1]) > 0


@settings(deadline=None, max_examples=25)
@given(seed=seeds)
def test_correlations_are_symmetric_and_within_one(seed: int) -> None:
    correlation = error_correlation(purified(4, seed), purified(1, seed + 1)[0])

    torch.testing.assert_close(correlation, correlation.T)
    torch.testing.assert_close(correlation.diagonal(), torch.ones(4, dtype=torch.float64))
    assert float(correlation.abs().amax()) <= 1 + 1e-12


def test_opposite_errors_correlate_fully_and_negatively() -> None:
    clean, error = torch.full((5, 3, 4, 4), 0.5), 0.1 * (purified(1)[0] - 0.5)

    correlation = error_correlation(torch.stack([clean + error, clean - error]), clean)

    assert float(correlation[0, 1]) == pytest.approx(-1, abs=1e-5)


def test_the_size_of_the_errors_does_not_change_their_correlation() -> None:
    clean, error = torch.full((5, 3, 4, 4), 0.5), 0.1 * (purified(1)[0] - 0.5)

    correlation = error_correlation(torch.stack([clean + error, clean + 3 * error]), clean)

    assert float(correlation[0, 1]) == pytest.approx(1, abs=1e-5)


def test_errors_without_anything_in_common_do_not_correlate() -> None:
    clean = torch.full((1, 1, 1, 4), 0.5)
    errors = torch.tensor([[0.1, -0.1, 0.1, -0.1], [0.1, 0.1, -0.1, -0.1]]).view(2, 1, 1, 1, 4)

    assert float(error_correlation(clean + errors, clean)[0, 1]) == pytest.approx(0, abs=1e-6)


def test_a_purifier_without_an_error_has_no_correlation() -> None:
    clean = torch.full((5, 3, 4, 4), 0.5)

    correlation = error_correlation(torch.stack([clean, purified(1)[0]]), clean)

    assert math.isnan(float(correlation[0, 1]))
    assert float(correlation[1, 1]) == pytest.approx(1)


def test_the_variance_of_logits_is_that_of_draws_as_a_mean_over_images_and_classes() -> None:
    logits = torch.zeros(3, 2, 2)
    logits[:, 0, 0] = torch.tensor([1.0, 2.0, 3.0])  # variance 1
    logits[:, 1, 1] = torch.tensor([0.0, 3.0, 6.0])  # variance 9

    assert logit_variance(logits) == pytest.approx((1 + 0 + 0 + 9) / 4)


@settings(deadline=None, max_examples=25)
@given(seed=seeds, draws=st.integers(2, 6))
def test_draws_that_all_give_one_answer_have_no_variance_and_no_flips(seed: int, draws: int) -> None:
    logits = torch.rand(1, 4, 3, generator=torch.Generator().manual_seed(seed)).expand(draws, -1, -1)

    assert logit_variance(logits) == pytest.approx(0, abs=1e-12)
    assert flip_rate(logits) == 0


def answers(given: list[list[int]], classes: int = 4) -> Tensor:
    """`(draws, N, classes)` logits whose largest are those of the classes that were given."""
    return torch.nn.functional.one_hot(torch.tensor(given), classes).float()


def test_the_flip_rate_is_the_share_of_answers_that_are_not_the_usual_one() -> None:
    logits = answers([[0, 1, 2], [0, 1, 3], [0, 3, 2], [0, 1, 3], [0, 1, 2]])

    assert flip_rate(logits) == pytest.approx((0 + 1 + 2) / 15)


@settings(deadline=None, max_examples=25)
@given(draws=st.integers(1, 8), seed=seeds)
def test_the_order_of_draws_changes_neither_figure(draws: int, seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    logits = torch.rand(draws + 1, 3, 4, generator=random)
    mixed = logits[torch.randperm(draws + 1, generator=random)]

    assert flip_rate(mixed) == pytest.approx(flip_rate(logits))
    assert logit_variance(mixed) == pytest.approx(logit_variance(logits))
