"""PuriDefense as it answers queries on a GPU: each batch goes one of two ways, which its draws and its size choose."""

from torch import Tensor

from models.defenses.puridefense import PuriDefense
from models.device import send
from models.recorded.gathered_pool import GatheredPool
from models.recorded.replay import Recorder, Replayed
from models.recorded.routed_pool import RoutedPool


class RecordedPuriDefense:
    """Replays of a defense whose architectures gather their windows, where that pays and the draws fit.

    Elsewhere each architecture passes over all windows. That is a replay, too: by chance draws hardly ever overflow,
    but where they are sticky, a client that asks about one image many times at once can bring it about.

    A purifier that leaves the pool is only drawn no more: what is recorded, and the room, stay those of all of them.

    Takes `(N, 3, H, W)` float32 in [0, 1] and `(N, grid * grid)` int64 draws of the CPU; gives images of that shape.

    Args:
        defense: as it is prepared for inference; stays as it is.
        largest: batch that is recorded.
        record: makes the recordings of both ways.
    """

    def __init__(self, defense: PuriDefense, largest: int, record: Recorder) -> None:
        routed = RoutedPool(defense.pool)
        self._pool = GatheredPool(routed)
        self._defense, gathered = (PuriDefense(pool, defense.grid, defense.halo) for pool in (routed, self._pool))
        self._over_all = Replayed(self._defense, largest, record)
        self._gathered = Replayed(gathered, largest, record)

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        way = self._gathered if self._gathers(images, draws) else self._over_all
        return way(images, send(draws, images.device))

    def _gathers(self, images: Tensor, draws: Tensor) -> bool:
        """Whether this batch goes the faster way.

        A recording may have more rows than the batch, with draws of batches before. Those come last and the room goes
        to the first, so that the draws in hand alone decide.
        """
        patches = self._defense.patches(images)
        windows = self._gathered.rows(len(images)) * patches.patches
        pixels = patches.rows.window * patches.columns.window
        return self._pool.pays(windows, pixels) and self._pool.holds(draws.flatten(), windows)
