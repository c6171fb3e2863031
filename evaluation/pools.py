"""Which cells of the random pool are of all its purifiers, on its own grid; as far as records tell."""

from collections.abc import Iterable

from evaluation.records import Cell

POOL = "puridefense"


def usual_grids(cells: Iterable[Cell]) -> list[int]:
    """The grid that pools of most sizes were measured on: the bundle's own. Records do not tell it.

    Where several have as many sizes, it is the one with the most cells of the largest pool; several if that is no
    answer either, in rising order.

    Args:
        cells: of one bundle.
    """
    pools = {cell for cell in cells if cell.served.defense == POOL and cell.served.grid}
    largest = max((len(cell.served.purifiers) for cell in pools), default=0)
    sizes: dict[int, list[int]] = {}
    for cell in pools:
        sizes.setdefault(cell.served.grid or 0, []).append(len(cell.served.purifiers))
    ranks = {grid: (len(set(found)), found.count(largest)) for grid, found in sizes.items() if largest in found}
    return sorted(grid for grid, rank in ranks.items() if rank == max(ranks.values()))


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
