"""The paper's theory, measured: how diverse a pool is, and how often its draws turn a search direction around.

An attack on scores looks at the sign of a difference: whether a step makes the loss smaller. Behind a random defense
the two sides of the difference go through different purifiers. If no two outputs for one image lay further apart than
nu (equation 5), and the loss changed by at most L times as much as its input, the difference would move by at most
2 L nu; by Markov's inequality the sign would then turn with a probability of at most 2 L nu / |difference| (equation 9,
as we read it).

Neither premise is sure here, so that what equation (9) gives is an estimate and no bound. The nu of `models.diversity`
is a mean over images, and those of some lie further apart; it is taken on clean images that purifiers get as a whole,
while draws choose for each patch of a grid, with its halo, on moved images too. L is the largest ratio that some draws
showed, not the largest there is.
"""

import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from evaluation.criteria import margin
from evaluation.images import Sample
from evaluation.provenance import Provenance
from evaluation.served import LocalServed
from models.defenses.puridefense import PuriDefense
from models.diversity import nu
from models.randomness import SeededBytes

ESTIMATE = (
    "Equation (9) is evaluated with a nu that is a mean over clean images, without grid and halo, and with an L of "
    "some draws: what it gives is an estimate and no bound."
)
STEP = 8 / 255
DRAWS = 32


class DiversityPoint(BaseModel):
    """A pool of one size.

    Attributes:
        purifiers: K.
        nu: of equation (5), on pixels in [0, 1].
        lipschitz: the largest ratio of a change of the margin to a change of the classifier's input, among the draws.
        flips: the share of draws in which the difference has another sign than its mean over all draws has, over
            images and directions.
        bound: the right side of equation (9), the mean over images and directions of min(1, 2 L nu / |difference|), the
            difference being the mean over draws; an estimate, called a bound in records of before that was said.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    purifiers: int
    nu: float
    lipschitz: float
    flips: float
    bound: float


class DiversityRecord(BaseModel):
    """All points of one run.

    Attributes:
        images: how many the figures are means over; each has one random direction.
        step: length of a direction in every channel of every pixel.
        draws: of each side of a difference.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    bundle: str
    images: int
    step: float
    draws: int
    seed: int
    points: tuple[DiversityPoint, ...]
    provenance: Provenance


@torch.inference_mode()
def measure_pool(served: LocalServed, sample: Sample, names: Sequence[str], seed: int) -> DiversityPoint:
    """The point of the pool of these purifiers, on the CPU or wherever the bundle is, in float32."""
    place = served.placement.device
    generator = torch.Generator().manual_seed(seed)
    images, labels = sample.images.to(place), sample.labels.to(place)
    direction = 2.0 * torch.randint(2, sample.images.shape, generator=generator) - 1
    moved = (images + STEP * direction.to(place)).clamp(0, 1)
    purifiers = [served.bundle.purifiers[name].to(place) for name in names]
    spread = nu(torch.stack([purifier(images) for purifier in purifiers]))
    defense = served.defense(PuriDefense.name, pool=tuple(names)).to(place)
    classifier = served.bundle.classifier.to(place)

    def draw(asked: Tensor) -> tuple[Tensor, Tensor]:
        inputs = [defense(asked, defense.draw(SeededBytes(len(asked), generator))) for _ in range(DRAWS)]
        scores = torch.stack([torch.softmax(classifier(one), 1) for one in inputs], dim=1)
        return torch.stack(inputs, dim=1), margin(scores, labels)

    (inputs, here), (_, there) = draw(images), draw(moved)
    differences = there - here
    lipschitz = _largest_ratio(inputs, here)
    return DiversityPoint(
        purifiers=len(names),
        nu=spread,
        lipschitz=lipschitz,
        flips=sign_flips(differences),
        bound=equation_nine(differences, lipschitz, spread),
    )


def sign_flips(differences: Tensor) -> float:
    """The share of draws in which the sign is another than that of the mean over draws.

    Args:
        differences: `(N, draws)` floats: of N images along one direction each.
    """
    return float((differences.sign() != differences.mean(1, keepdim=True).sign()).float().mean())


def equation_nine(differences: Tensor, lipschitz: float, spread: float) -> float:
    """The mean of min(1, 2 L nu / |difference|), the difference being the mean over draws.

    Args:
        differences: `(N, draws)` floats: of N images along one direction each.
        lipschitz: L.
        spread: nu.
    """
    return float((2 * lipschitz * spread / differences.mean(1).abs().clamp_min(1e-12)).clamp_max(1).mean())


def measure_diversity(served: LocalServed, sample: Sample, seed: int) -> DiversityRecord:
    """The points of the pools of the first 1, 2, ... purifiers."""
    started = time.perf_counter()
    names, manifest = tuple(served.bundle.purifiers), served.bundle.manifest
    points = tuple(measure_pool(served, sample, names[:size], seed) for size in range(1, len(names) + 1))
    return DiversityRecord(
        bundle=f"{manifest.name} {manifest.version}",
        images=len(sample),
        step=STEP,
        draws=DRAWS,
        seed=seed,
        points=points,
        provenance=Provenance.now(served.placement.device, time.perf_counter() - started),
    )


def write_diversity(folder: Path, record: DiversityRecord) -> Path:
    """Writes a record into `folder/diversity`, named by its bundle and seed."""
    (folder / "diversity").mkdir(parents=True, exist_ok=True)
    path = folder / "diversity" / f"{record.bundle.replace(' ', '-')}-{record.images}-{record.seed}.json"
    path.write_text(record.model_dump_json(indent=1) + "\n")
    return path


def read_diversity(folders: Iterable[Path]) -> list[DiversityRecord]:
    """The records of `diversity` in each of some folders; none if there are none."""
    paths = [path for folder in folders for path in sorted((folder / "diversity").glob("*.json"))]
    return [DiversityRecord.model_validate_json(path.read_bytes()) for path in paths]


def _largest_ratio(inputs: Tensor, losses: Tensor) -> float:
    """Of the change of the loss to that of the input, between successive draws of an image; 0 if none differ."""
    moved = (inputs[:, 1:] - inputs[:, :-1]).flatten(2).norm(dim=2)
    changed = (losses[:, 1:] - losses[:, :-1]).abs()
    differ = moved > 0
    return float((changed[differ] / moved[differ]).max()) if differ.any() else 0.0
