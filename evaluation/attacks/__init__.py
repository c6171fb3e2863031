"""Attacks by name."""

from typing import Annotated

from pydantic import Field

from evaluation.attacks.attack import Attack
from evaluation.attacks.null import Null
from evaluation.attacks.square import Square

AnyAttack = Annotated[Null | Square, Field(discriminator="kind")]

ATTACKS: dict[str, type[Attack]] = {"null": Null, "square": Square}
"""By the names that commands and results call them."""

__all__ = ["ATTACKS", "AnyAttack", "Attack", "Null", "Square"]
