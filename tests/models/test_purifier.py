"""A purifier starts as the identity, keeps shape and range, and is rebuilt from its config."""

from collections.abc import Callable

import pytest
import torch
from pydantic import ValidationError

from models.purifier import Purifier, PurifierConfig

MakePurifier = Callable[[PurifierConfig], Purifier]
SIZE = (7, 10)


def test_a_new_purifier_gives_back_the_identical_image(purifier_config: PurifierConfig) -> None:
    images = torch.rand(2, 3, *SIZE)

    assert torch.equal(Purifier(purifier_config)(images), images)


def test_a_new_purifier_with_a_local_ensemble_gives_back_the_identical_image(purifier_config: PurifierConfig) -> None:
    images = torch.rand(2, 3, *SIZE)

    assert torch.equal(Purifier(purifier_config).with_local_ensemble(images), images)


def test_a_new_purifier_can_learn(purifier_config: PurifierConfig) -> None:
    purifier = Purifier(purifier_config)
    images = torch.rand(2, 3, *SIZE)
    optimizer = torch.optim.SGD(purifier.parameters(), lr=0.1)
    losses = []
    for _ in range(3):
        loss = (purifier(images) - images.flip(3)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))

    assert losses[2] < losses[1] < losses[0]


@pytest.mark.parametrize(("level", "expected"), [(10.0, 1.0), (-10.0, 0.0)])
def test_a_correction_never_leaves_the_range_of_pixels(
    painter: Callable[[float], Purifier], level: float, expected: float
) -> None:
    images = torch.rand(1, 3, 4, 4)

    assert torch.equal(painter(level)(images), torch.full_like(images, expected))
    assert torch.equal(painter(level).with_local_ensemble(images), torch.full_like(images, expected))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("level", [float("inf"), float("-inf"), float("nan")])
def test_a_correction_that_is_no_number_shows(
    painter: Callable[[float], Purifier], level: float, dtype: torch.dtype
) -> None:
    images = torch.rand(1, 3, 4, 4)
    purifier = painter(level).to(dtype)

    assert purifier(images).isnan().all()
    assert purifier.with_local_ensemble(images).isnan().all()


def test_a_purified_image_has_the_shape_and_range_of_the_image(
    purifier_config: PurifierConfig, active_purifier: MakePurifier
) -> None:
    images = torch.rand(2, 3, *SIZE)

    with torch.inference_mode():
        purified = active_purifier(purifier_config)(images)

    assert purified.shape == images.shape
    assert 0 <= float(purified.amin()) < float(purified.amax()) <= 1
    assert not torch.allclose(purified, images, atol=0.01)


def test_the_output_stays_float32_where_the_convolutions_run_in_bfloat16(
    purifier_config: PurifierConfig, active_purifier: MakePurifier
) -> None:
    purifier = active_purifier(purifier_config)
    images = torch.rand(2, 3, *SIZE)
    with torch.autocast("cpu", torch.bfloat16):
        purified = purifier(images)

    assert purified.dtype == torch.float32
    torch.testing.assert_close(purified, purifier(images), atol=0.02, rtol=0)


def test_an_image_is_purified_alike_alone_and_in_a_batch(
    purifier_config: PurifierConfig, active_purifier: MakePurifier
) -> None:
    purifier = active_purifier(purifier_config)
    images = torch.rand(3, 3, *SIZE)

    torch.testing.assert_close(purifier(images)[1:2], purifier(images[1:2]), atol=1e-6, rtol=0)


def test_a_purifier_is_rebuilt_from_its_stored_config(
    purifier_config: PurifierConfig, active_purifier: MakePurifier
) -> None:
    original = active_purifier(purifier_config)
    images = torch.rand(1, 3, *SIZE)

    rebuilt = Purifier(PurifierConfig.model_validate_json(purifier_config.model_dump_json()))
    rebuilt.load_state_dict(original.state_dict())

    assert torch.equal(rebuilt(images), original(images))


def test_an_unknown_part_of_a_config_is_refused(purifier_config: PurifierConfig) -> None:
    with pytest.raises(ValidationError, match="ensemble"):
        PurifierConfig.model_validate({**purifier_config.model_dump(), "ensemble": True})
