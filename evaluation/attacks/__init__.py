"""Attacks by name."""

from typing import Annotated

from pydantic import Field

from evaluation.attacks.apgd import APGD
from evaluation.attacks.attack import Attack
from evaluation.attacks.boundary import Boundary
from evaluation.attacks.hopskipjump import HopSkipJump
from evaluation.attacks.nes import NES
from evaluation.attacks.null import Null
from evaluation.attacks.popskipjump import PopSkipJump
from evaluation.attacks.simba import SimBA
from evaluation.attacks.square import Square
from evaluation.attacks.transfer import Transfer

AnyAttack = Annotated[
    Null | NES | SimBA | Square | Boundary | HopSkipJump | PopSkipJump | APGD | Transfer, Field(discriminator="kind")
]

ATTACKS: dict[str, type[Attack]] = {
    "null": Null,
    "nes": NES,
    "simba": SimBA,
    "square": Square,
    "boundary": Boundary,
    "hopskipjump": HopSkipJump,
    "popskipjump": PopSkipJump,
    "apgd": APGD,
    "transfer": Transfer,
}
"""By the names that commands and results call them."""

__all__ = [
    "APGD",
    "ATTACKS",
    "NES",
    "AnyAttack",
    "Attack",
    "Boundary",
    "HopSkipJump",
    "Null",
    "PopSkipJump",
    "SimBA",
    "Square",
    "Transfer",
]
