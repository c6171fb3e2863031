"""Draws, windows and decoders at the edges of what makes sense."""

from collections.abc import Callable

import pytest
import torch

from models.decoder import DecoderConfig
from models.defenses.puridefense import PuriDefense
from models.pool import PurifierPool
from models.purifier import Purifier
from models.randomness import SeededBytes


@pytest.mark.parametrize("draws", [[0], [0, 0, 0]])
def test_another_number_of_draws_than_windows_is_an_error(
    painter: Callable[[float], Purifier], draws: list[int]
) -> None:
    with pytest.raises(ValueError, match="draws"):
        PurifierPool({"only": painter(0.25)})(torch.zeros(2, 3, 4, 4), torch.tensor(draws))


def test_no_images_give_no_images(painter: Callable[[float], Purifier]) -> None:
    defense = PuriDefense(PurifierPool({"only": painter(0.25)}), grid=2, halo=1)

    draws = defense.draw(SeededBytes(0, torch.Generator()))
    assert defense(torch.zeros(0, 3, 8, 8), draws).shape == (0, 3, 8, 8)


def test_a_decoder_without_a_hidden_layer_is_refused() -> None:
    with pytest.raises(ValueError, match="hidden"):
        DecoderConfig(hidden=())
