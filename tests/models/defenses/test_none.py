"""No defense: images as they came."""

import pytest
import torch

from models.defenses.none import NoDefense
from models.randomness import SeededBytes


def test_every_image_comes_back_as_it_came() -> None:
    defense = NoDefense()
    images = torch.rand(3, 3, 5, 7)

    assert torch.equal(defense(images, defense.draw(SeededBytes(3, torch.Generator()))), images)


def test_nothing_is_drawn() -> None:
    generator = torch.Generator().manual_seed(0)
    state = generator.get_state()

    assert NoDefense().draw(SeededBytes(3, generator)).shape == (3, 0)
    assert torch.equal(generator.get_state(), state)


def test_there_are_no_purifiers_to_draw() -> None:
    assert NoDefense().purifiers == ()


def test_it_has_no_purifier_to_do_without() -> None:
    with pytest.raises(ValueError, match="no purifier"):
        NoDefense().without("fgsm-edsr")
