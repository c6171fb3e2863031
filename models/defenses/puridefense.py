"""PuriDefense: each patch of each query goes through one purifier of the pool, drawn at random."""

from typing import ClassVar

from torch import Tensor

from models.defenses.defense import Defense
from models.patches import PatchGrid
from models.pool import PurifierPool
from models.randomness import RandomBytes, uniform_indices


class PuriDefense(Defense):
    """Random patch-wise purification (PuriDefense, section 4, algorithm 1).

    Every pixel is purified exactly once, by a purifier drawn independently and uniformly for its patch and query.

    Args:
        pool: the purifiers.
        grid: patches along each dimension of an image.
        halo: pixels around a patch that a purifier sees and whose output is thrown away.
    """

    name: ClassVar[str] = "puridefense"

    def __init__(self, pool: PurifierPool, grid: int, halo: int) -> None:
        super().__init__()
        self.pool = pool
        self.grid = grid
        self.halo = halo
        self.purifiers = pool.names

    def draw(self, random_bytes: RandomBytes) -> Tensor:
        """Draws `(N, grid * grid)` indices into the pool."""
        return uniform_indices(random_bytes, self.grid**2, len(self.pool))

    def without(self, purifier: str) -> "PuriDefense":
        """The same grid over the other purifiers of the pool."""
        return PuriDefense(self.pool.without(purifier), self.grid, self.halo)

    def patches(self, images: Tensor) -> PatchGrid:
        """The division of `(N, C, H, W)` images into patches.

        Raises:
            ValueError: an image has fewer pixels than the grid has patches along a dimension.
        """
        return PatchGrid(images.shape[2], images.shape[3], self.grid, self.halo)

    def forward(self, images: Tensor, draws: Tensor) -> Tensor:
        """Purifies `(N, 3, H, W)` floats in [0, 1] under `(N, grid * grid)` draws."""
        patches = self.patches(images)
        windows = patches.split(images)
        purified = self.pool(windows.flatten(0, 1), draws.flatten())
        return patches.merge(purified.view_as(windows))
