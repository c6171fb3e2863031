"""The patch grid: every pixel once, in order, with real pixels around it."""

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from models.patches import PatchGrid


@dataclass(frozen=True)
class Division:
    """One way of dividing one size of image."""

    height: int
    width: int
    grid: int
    halo: int

    def patches(self) -> PatchGrid:
        return PatchGrid(self.height, self.width, self.grid, self.halo)

    def owners(self) -> Tensor:
        """`(H, W)`: the index of the patch that each pixel is merged from."""
        patches = self.patches()
        windows = patches.split(torch.zeros(1, 1, self.height, self.width))
        indices = torch.arange(patches.patches, dtype=windows.dtype).view(1, -1, 1, 1, 1)
        return patches.merge(indices.expand_as(windows).contiguous())[0, 0].long()

    def coordinates(self) -> Tensor:
        """`(1, 2, H, W)`: the row and the column of each pixel."""
        rows, columns = torch.meshgrid(torch.arange(self.height), torch.arange(self.width), indexing="ij")
        return torch.stack([rows, columns])[None]


@st.composite
def divisions(draw: st.DrawFn) -> Division:
    height, width = draw(st.integers(1, 24)), draw(st.integers(1, 24))
    return Division(height, width, draw(st.integers(1, min(height, width, 6))), draw(st.integers(0, 9)))


any_division = given(division=divisions())
examples = settings(deadline=None, max_examples=60)


@examples
@any_division
def test_splitting_and_merging_gives_back_the_identical_images(division: Division) -> None:
    images = torch.rand(2, 3, division.height, division.width)
    patches = division.patches()

    assert torch.equal(patches.merge(patches.split(images)), images)


@examples
@any_division
def test_every_pixel_belongs_to_the_patch_of_its_row_and_column(division: Division) -> None:
    owners = division.owners()
    rows = owners[:, :1] // division.grid
    columns = owners[:1, :] % division.grid

    assert torch.equal(owners, rows * division.grid + columns)
    assert torch.equal(rows, rows.sort(dim=0).values)
    assert torch.equal(columns, columns.sort(dim=1).values)


@examples
@any_division
def test_patches_are_as_equal_as_whole_pixels_allow(division: Division) -> None:
    owners = division.owners()

    for length, patch_of_pixel in ((division.height, owners[:, 0] // division.grid), (division.width, owners[0])):
        sizes = torch.bincount(patch_of_pixel, minlength=division.grid)
        assert len(sizes) == division.grid
        assert int(sizes.sum()) == length
        assert int(sizes.max() - sizes.min()) <= 1


@examples
@any_division
def test_a_window_has_the_whole_halo_on_every_side_that_the_image_does_not_end(division: Division) -> None:
    coordinates, owners = division.coordinates(), division.owners()
    windows = division.patches().split(coordinates)[0]

    for index, window in enumerate(windows):
        patch = coordinates[0, :, owners == index]
        wanted_first = (patch.amin(1) - division.halo).clamp(min=0)
        wanted_last = torch.minimum(
            patch.amax(1) + division.halo, torch.tensor([division.height - 1, division.width - 1])
        )
        assert bool((window.amin((1, 2)) <= wanted_first).all())
        assert bool((window.amax((1, 2)) >= wanted_last).all())


@examples
@any_division
def test_a_window_is_an_unbroken_piece_of_the_image(division: Division) -> None:
    windows = division.patches().split(division.coordinates())[0]

    assert bool((windows[:, 0].diff(dim=1) == 1).all())
    assert bool((windows[:, 1].diff(dim=2) == 1).all())


@examples
@any_division
def test_a_window_is_no_larger_than_the_largest_patch_with_its_halo(division: Division) -> None:
    rows, columns = division.patches().split(division.coordinates()).shape[-2:]

    assert rows <= min(division.height, -(-division.height // division.grid) + 2 * division.halo)
    assert columns <= min(division.width, -(-division.width // division.grid) + 2 * division.halo)


@pytest.mark.parametrize("halo", [0, 3])
def test_a_grid_of_one_patch_is_the_whole_image(halo: int) -> None:
    images = torch.rand(2, 3, 5, 7)

    assert torch.equal(PatchGrid(5, 7, grid=1, halo=halo).split(images), images[:, None])


@pytest.mark.parametrize(("height", "width"), [(2, 9), (9, 2)])
def test_an_image_with_fewer_pixels_than_patches_is_refused(height: int, width: int) -> None:
    with pytest.raises(ValueError, match=f"{width}x{height} pixels .* 3x3 patch grid"):
        PatchGrid(height, width, grid=3, halo=0)


@pytest.mark.parametrize(("grid", "halo"), [(0, 0), (-1, 0), (1, -1)])
def test_a_grid_without_patches_or_with_a_negative_halo_is_refused(grid: int, halo: int) -> None:
    with pytest.raises(ValueError, match="grid >= 1 and halo >= 0"):
        PatchGrid(8, 8, grid, halo)
