"""A ball holds what it projects, and moves nothing that it holds."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.ball import Ball, Norm

BALLS = st.builds(Ball, st.sampled_from(["linf", "l2"]), st.floats(0.001, 3))


@settings(deadline=None, max_examples=50)
@given(ball=BALLS, seed=st.integers(0, 99), reach=st.floats(0.001, 5))
def test_a_projected_image_is_in_the_ball_and_stays_where_it_is(ball: Ball, seed: int, reach: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    centers = torch.rand(3, 3, 4, 4, generator=generator)
    images = centers + reach * torch.randn(3, 3, 4, 4, generator=generator)

    projected = ball.project(images, centers)

    assert ball.contains(projected, centers).all()
    torch.testing.assert_close(ball.project(projected, centers), projected)


@pytest.mark.parametrize(("norm", "distance"), [("linf", 0.2), ("l2", 0.5)])
def test_the_distance_is_that_of_its_norm(norm: Norm, distance: float) -> None:
    change = torch.zeros(1, 3, 4, 4)
    change.flatten()[:6] = 0.2
    change.flatten()[6] = 0.1

    assert float(Ball(norm, 1).distance(change, torch.zeros_like(change))) == pytest.approx(distance)


def test_an_image_that_leaves_the_range_of_pixels_is_not_allowed() -> None:
    dark = torch.zeros(1, 3, 2, 2)

    assert not Ball("linf", 0.5).contains(dark - 0.1, dark)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_what_lies_inside_is_stretched_to_the_radius_and_all_else_stays(norm: Norm) -> None:
    centers = torch.full((3, 3, 4, 4), 0.5)
    change = torch.linspace(-1, 1, 48).view(3, 4, 4)
    ball = Ball(norm, 0.1)
    change = change / ball.distance(0.5 + change, centers[0])
    images = centers + change * torch.tensor([0.03, 0.0, 0.2])[:, None, None, None]

    stretched = ball.stretch(images, centers)

    torch.testing.assert_close(stretched[0], centers[0] + 0.1 * change)
    assert torch.equal(stretched[1:], images[1:])


def test_what_is_stretched_stays_an_image() -> None:
    centers = torch.full((1, 3, 4, 4), 0.95)

    assert float(Ball("linf", 0.2).stretch(centers + 0.01, centers).max()) == 1
