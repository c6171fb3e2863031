"""The patch grid: an image is cut into windows, each is purified alone, and their inner parts are put together."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise, product

import torch
from torch import Tensor


@dataclass(frozen=True)
class Axis:
    """Where the windows of one image dimension lie, in pixels.

    Attributes:
        edges: where patches begin and end; patch i covers `edges[i]` up to `edges[i + 1]`.
        starts: where each window begins.
        window: the length of every window.
    """

    edges: tuple[int, ...]
    starts: tuple[int, ...]
    window: int

    @classmethod
    def divide(cls, length: int, grid: int, halo: int) -> "Axis":
        """Divides `length` pixels into `grid` patches, as equal as whole pixels allow, with `halo` pixels around each.

        All windows have one length, so that they can be stacked. A window never leaves the image: at a border it is
        shifted inwards, so that a purifier sees real pixels there and the border where the image has one.
        """
        edges = tuple(index * length // grid for index in range(grid + 1))
        spans = [(max(0, begin - halo), min(length, end + halo)) for begin, end in pairwise(edges)]
        window = max(end - begin for begin, end in spans)
        starts = tuple(min(begin, length - window) for begin, _ in spans)
        return cls(edges, starts, window)

    def patches(self) -> Iterator[tuple[slice, slice, slice]]:
        """For each patch: its window in the image, itself in the image, itself in its window."""
        for start, (begin, end) in zip(self.starts, pairwise(self.edges), strict=True):
            yield slice(start, start + self.window), slice(begin, end), slice(begin - start, end - start)


class PatchGrid:
    """A `grid` x `grid` division of images of one size.

    Args:
        height: of the images, in pixels.
        width: of the images, in pixels.
        grid: patches along each dimension.
        halo: pixels around a patch that a purifier sees and whose output is thrown away.

    Raises:
        ValueError: the image has fewer pixels than the grid has patches along a dimension.
    """

    def __init__(self, height: int, width: int, grid: int, halo: int) -> None:
        if grid < 1 or halo < 0:
            raise ValueError(f"a patch grid needs grid >= 1 and halo >= 0, not {grid} and {halo}")
        if min(height, width) < grid:
            raise ValueError(f"an image of {width}x{height} pixels has too few for a {grid}x{grid} patch grid")
        self.height = height
        self.width = width
        self.rows = Axis.divide(height, grid, halo)
        self.columns = Axis.divide(width, grid, halo)
        self.patches = grid * grid

    def split(self, images: Tensor) -> Tensor:
        """Cuts `(N, C, H, W)` into windows `(N, patches, C, window rows, window columns)`, row by row."""
        windows = [images[:, :, row, column] for (row, _, _), (column, _, _) in self._places()]
        return torch.stack(windows, dim=1)

    def merge(self, windows: Tensor) -> Tensor:
        """Puts the inner parts of `(N, patches, C, window rows, window columns)` together to `(N, C, H, W)`."""
        count, _, channels = windows.shape[:3]
        images = windows.new_empty(count, channels, self.height, self.width)
        for index, ((_, row, inner_row), (_, column, inner_column)) in enumerate(self._places()):
            images[:, :, row, column] = windows[:, index, :, inner_row, inner_column]
        return images

    def _places(self) -> Iterator[tuple[tuple[slice, slice, slice], tuple[slice, slice, slice]]]:
        return product(self.rows.patches(), self.columns.patches())
