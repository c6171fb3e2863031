"""What a pass costs, counted rather than timed, so that it is the same on every machine."""

import torch
from pydantic import BaseModel, ConfigDict
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from models.bundle import Bundle
from models.patches import PatchGrid


class Cost(BaseModel):
    """Floating-point operations an image, a multiplication and an addition counting as two.

    Attributes:
        classifier: undefended.
        purifiers: each on a whole image.
        windows: pixels purified over pixels of the image, at the bundle's grid and halo; a factor on a purifier's cost.
        pool: the mean purifier times `windows`: the defense.
    """

    model_config = ConfigDict(frozen=True)

    classifier: int
    purifiers: dict[str, int]
    windows: float
    pool: int


def count_cost(bundle: Bundle) -> Cost:
    """Counts the cost of a bundle, on the CPU."""
    size = bundle.manifest.preprocessing
    image = torch.zeros(1, 3, size.height, size.width)
    patches = PatchGrid(size.height, size.width, bundle.manifest.pool.grid, bundle.manifest.pool.halo)
    windows = patches.patches * patches.rows.window * patches.columns.window / (size.height * size.width)
    purifiers = {name: _operations(purifier.cpu(), image) for name, purifier in bundle.purifiers.items()}
    return Cost(
        classifier=_operations(bundle.classifier.cpu(), image),
        purifiers=purifiers,
        windows=round(windows, 4),
        pool=round(windows * sum(purifiers.values()) / len(purifiers)),
    )


@torch.inference_mode()
def _operations(network: nn.Module, image: torch.Tensor) -> int:
    with FlopCounterMode(display=False) as counter:
        network(image)
    return int(counter.get_total_flops())
