"""The baselines do what they say, on images whose answer is known."""

import io
from pathlib import Path

import pytest
import torch
from PIL import Image
from torchvision.transforms.functional import pil_to_tensor, to_pil_image

from models.bundle import Bundle, read_bundle
from models.defenses import DEFENSES, build_defense
from models.defenses.bit_reduction import BitReduction
from models.defenses.jpeg import JPEG
from models.defenses.random_noise import SIGMA, RandomNoise
from models.defenses.spatial_smoothing import SpatialSmoothing
from models.randomness import SeededBytes

DETERMINISTIC = sorted(set(DEFENSES) - {"puridefense", "random-noise"})
NOTHING = torch.empty(1, 0)


def seeded(queries: int, seed: int = 0) -> SeededBytes:
    return SeededBytes(queries, torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def bundle(bundle_folder: Path) -> Bundle:
    return read_bundle(bundle_folder)


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_a_deterministic_defense_draws_nothing(bundle: Bundle, name: str) -> None:
    assert build_defense(name, bundle).draw(seeded(3)).shape == (3, 0)


def test_smoothing_takes_the_median_of_each_neighborhood_and_repeats_borders() -> None:
    images = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0]]).div(10).expand(1, 3, 3, 3)

    smoothed = SpatialSmoothing()(images, NOTHING)

    assert smoothed[0, 0, 1, 1] == pytest.approx(0.5)
    assert smoothed[0, 0, 0, 0] == pytest.approx(0.2)  # of 1 1 1 2 2 4 4 5 1, in tenths


def test_smoothing_removes_a_lone_pixel() -> None:
    images = torch.full((1, 3, 5, 5), 0.25)
    images[0, 1, 2, 2] = 1

    assert torch.equal(SpatialSmoothing()(images, NOTHING), torch.full_like(images, 0.25))


def test_bit_reduction_leaves_32_levels_and_moves_no_pixel_by_more_than_half_of_one() -> None:
    images = torch.linspace(0, 1, 3 * 32 * 32).view(1, 3, 32, 32)

    reduced = BitReduction()(images, NOTHING)

    assert len(reduced.unique()) == 32
    assert float((reduced - images).abs().max()) <= 1 / 62 + 1e-6


def test_jpeg_is_what_the_codec_makes_of_each_image() -> None:
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    buffer = io.BytesIO()
    to_pil_image((images[1] * 255).round().to(torch.uint8)).save(buffer, "JPEG", quality=75)

    expected = pil_to_tensor(Image.open(buffer)).float() / 255

    torch.testing.assert_close(JPEG()(images, torch.empty(2, 0))[1], expected)


def test_random_noise_is_gaussian_with_the_papers_deviation() -> None:
    defense = RandomNoise(32, 32)
    images = torch.full((20, 3, 32, 32), 0.5)

    noise = (defense(images, defense.draw(seeded(20))) - images).flatten()

    assert float(noise.mean()) == pytest.approx(0, abs=5 * SIGMA / len(noise) ** 0.5)
    assert float(noise.std()) == pytest.approx(0.041, rel=0.01)
    assert float((noise.abs() > 2 * SIGMA).float().mean()) == pytest.approx(0.0455, abs=0.004)


def test_random_noise_draws_anew_for_each_query_and_only_from_the_bytes_it_is_given() -> None:
    defense = RandomNoise(4, 4)
    first, second = defense.draw(seeded(2))

    assert not torch.equal(first, second)
    assert torch.equal(defense.draw(seeded(2)), torch.stack([first, second]))
    assert not torch.equal(defense.draw(seeded(2, seed=1)), torch.stack([first, second]))


def test_disco_is_the_local_ensemble_of_the_first_pgd_purifier(bundle: Bundle) -> None:
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))

    with torch.inference_mode():
        purified = build_defense("disco", bundle)(images, NOTHING)
        expected = bundle.purifiers["pgd-edsr"].with_local_ensemble(images)

    assert torch.equal(purified, expected)


def test_the_ensemble_is_the_mean_of_all_purifiers_on_the_whole_image(bundle: Bundle) -> None:
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))

    with torch.inference_mode():
        purified = build_defense("disco-ensemble", bundle)(images, NOTHING)
        alone = [purifier.with_local_ensemble(images) for purifier in bundle.purifiers.values()]

    torch.testing.assert_close(purified, sum(alone[1:], start=alone[0]) / 4)
