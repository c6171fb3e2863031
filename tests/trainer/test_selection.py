"""The pool is made of the most different of those purifiers that are accurate enough."""

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from models.decoder import DecoderConfig
from models.encoders import EDSRConfig
from models.purifier import Purifier, PurifierConfig
from trainer.errors import SelectionError
from trainer.images import LabeledImages
from trainer.selection import Selection, choose, most_diverse

CPU = torch.device("cpu")


def painter(level: float) -> Purifier:
    """Adds a level to every pixel."""
    config = PurifierConfig(encoder=EDSRConfig(features=2, blocks=1), decoder=DecoderConfig(hidden=(2,)))
    purifier = Purifier(config).eval().requires_grad_(False)
    correction = purifier.decoder.layers[-1]
    assert isinstance(correction, nn.Conv2d)
    assert correction.bias is not None
    nn.init.constant_(correction.bias, level)
    return purifier


class Brightness(nn.Module):
    """Tells images that are brighter than a half from those that are darker."""

    def forward(self, images: Tensor) -> Tensor:
        mean = images.mean(dim=(1, 2, 3))
        return torch.stack([0.5 - mean, mean - 0.5], 1)


@pytest.fixture
def images() -> LabeledImages:
    levels = torch.tensor([10, 60, 80, 90, 160, 170, 180, 240], dtype=torch.uint8)
    return LabeledImages(levels.view(-1, 1, 1, 1).expand(-1, 3, 4, 4).contiguous(), (levels > 127).long(), ("a", "b"))


@pytest.fixture
def candidates() -> dict[str, Purifier]:
    """From darkening to brightening; `wrong` takes every dark image for a bright one."""
    levels = {"dark": -0.1, "same": 0.0, "twin": 0.001, "wrong": 0.5, "bright": 0.1}
    return {name: painter(level) for name, level in levels.items()}


def answers(*points: tuple[float, float]) -> Tensor:
    """What purifiers give for one image of two classes."""
    return torch.tensor(points).view(-1, 1, 2)


@pytest.mark.parametrize(
    ("points", "keep", "expected"),
    [
        ([(0, 0), (1, 0), (10, 0)], 2, {0, 2}),
        ([(1, 0), (0, 0), (10, 0), (5, 0)], 2, {1, 2}),
        ([(0, 0), (0.1, 0), (10, 0), (5, 8)], 3, {0, 2, 3}),
        ([(0, 0), (1, 0), (10, 0)], 3, {0, 1, 2}),
    ],
)
def test_the_most_diverse_are_those_that_lie_farthest_apart(
    points: list[tuple[float, float]], keep: int, expected: set[int]
) -> None:
    assert most_diverse(answers(*points), keep) == expected


@pytest.mark.parametrize("keep", [2, 3])
def test_of_purifiers_that_all_answer_alike_as_many_are_kept_as_were_asked_for(keep: int) -> None:
    kept = most_diverse(answers((1, 2), (1, 2), (1, 2)), keep)

    assert len(kept) == keep


def test_the_most_diverse_of_the_accurate_are_kept_in_their_order(
    images: LabeledImages, candidates: dict[str, Purifier]
) -> None:
    kept = choose(Selection(keep=2), Brightness(), candidates, images, CPU)

    assert kept == ("dark", "bright")


def test_one_of_two_twins_goes_first(images: LabeledImages, candidates: dict[str, Purifier]) -> None:
    kept = choose(Selection(keep=3), Brightness(), candidates, images, CPU)

    assert {"dark", "bright"} < set(kept)
    assert "wrong" not in kept
    assert len(kept) == 3


def test_a_purifier_that_costs_accuracy_is_kept_where_that_is_allowed(
    images: LabeledImages, candidates: dict[str, Purifier]
) -> None:
    assert "wrong" in choose(Selection(keep=2, most_lost=0.5), Brightness(), candidates, images, CPU)


@pytest.mark.parametrize("most_lost", [0.29, 0.07])
def test_a_purifier_that_costs_just_the_limit_is_kept(most_lost: float) -> None:
    """Of 100 images, one brightens some of the dark ones over a half: a share that floats give as a little more."""
    lost = round(100 * most_lost)
    levels = torch.tensor([120] * lost + [10] * (60 - lost) + [240] * 40, dtype=torch.uint8)
    images = LabeledImages(levels.view(-1, 1, 1, 1).expand(-1, 3, 4, 4).contiguous(), (levels > 127).long(), ("a", "b"))
    purifiers = {"same": painter(0.0), "costly": painter(0.1)}

    assert choose(Selection(keep=2, most_lost=most_lost), Brightness(), purifiers, images, CPU) == ("same", "costly")
    with pytest.raises(SelectionError, match=rf"points lost: same 0\.00, costly {lost}\.00"):
        choose(Selection(keep=2, most_lost=most_lost - 0.001), Brightness(), purifiers, images, CPU)


def test_too_few_accurate_purifiers_are_told_with_what_each_costs(
    images: LabeledImages, candidates: dict[str, Purifier]
) -> None:
    with pytest.raises(
        SelectionError,
        match=r"only 4 purifiers cost at most 1 points of accuracy, pool\.selection\.keep asks for 5; "
        r"points lost: dark 0\.00, same 0\.00, twin 0\.00, wrong 50\.00, bright 0\.00",
    ):
        choose(Selection(keep=5), Brightness(), candidates, images, CPU)


@pytest.mark.parametrize("said", [{"keep": 1}, {"keep": 2, "most_lost": -0.1}, {"keep": 2, "most_lost": 1.1}])
def test_a_selection_that_makes_no_sense_is_refused(said: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        Selection.model_validate(said)
