"""Which cells of the random pool are of all its purifiers, on its own grid; as far as records tell."""

from collections import Counter
from collections.abc import Iterable

from evaluation.records import Cell

POOL = "puridefense"


def usual_grids(cells: Iterable[Cell]) -> list[int]:
    """The grid that most cells of a pool were measured on: the bundle's own. Records do not tell it.

    A purifier alone is no pool, and has one patch. Several in rising order if as many cells are on each.

    Args:
        cells: of one bundle.
    """
    pools = [cell for cell in cells if cell.served.defense == POOL and cell.served.grid]
    largest = max((len(cell.served.purifiers) for cell in pools), default=0)
    several = [cell for cell in pools if len(cell.served.purifiers) > 1 or largest == 1]
    counts = Counter(cell.served.grid for cell in several)
    return sorted(grid for grid, count in counts.items() if grid and count == max(counts.values()))


def whole_pools(cells: Iterable[Cell]) -> set[Cell]:
    """The cells of the largest pool of each bundle on its usual grid; none of a bundle where that is not clear.

    A running gateway is taken to serve its bundle as it is.
    """
    bundles: dict[str, list[Cell]] = {}
    for cell in cells:
        bundles.setdefault(cell.served.bundle, []).append(cell)
    return {cell for some in bundles.values() for cell in _whole(some)}


def _whole(cells: list[Cell]) -> Iterable[Cell]:
    grids = usual_grids(cells)
    largest = max((len(cell.served.purifiers) for cell in cells), default=0)
    for cell in cells:
        on_own_grid = cell.served.over_http or grids == [cell.served.grid]
        if cell.served.defense == POOL and on_own_grid and len(cell.served.purifiers) == largest > 1:
            yield cell
