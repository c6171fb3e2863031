"""What an attack is told of its target."""

from pathlib import Path

import pytest
import torch

from evaluation.target import LocalTarget
from models.bundle import Bundle, read_bundle
from models.defenses import DEFENSES, build_defense
from models.defenses.puridefense import PuriDefense
from models.device import Placement
from models.inference.int8_convolution import int8_problem
from models.pool import PurifierPool
from models.randomness import SeededBytes

CPU = torch.device("cpu")


@pytest.fixture
def bundle(bundle_folder: Path) -> Bundle:
    return read_bundle(bundle_folder)


@pytest.mark.parametrize("name", DEFENSES)
def test_what_draws_is_taken_for_random(bundle: Bundle, name: str) -> None:
    defense = build_defense(name, bundle)
    draws = defense.draw(SeededBytes(1, torch.Generator()))

    target = LocalTarget(bundle.classifier, defense, Placement(CPU, "float32"), torch.Generator())

    assert target.deterministic == (draws.shape[1] == 0)


def test_draws_from_one_purifier_are_all_the_same(bundle: Bundle) -> None:
    defense = PuriDefense(PurifierPool({"only": bundle.purifiers["pgd-edsr"]}), grid=2, halo=2)
    target = LocalTarget(bundle.classifier, defense, Placement(CPU, "float32"), torch.Generator())

    assert target.deterministic
    images = torch.rand(1, 3, 32, 32).repeat(20, 1, 1, 1)
    assert torch.allclose(target.scores(images), target.scores(images[:1]).expand(20, -1), atol=1e-5)


def test_a_target_in_few_digits_says_so(bundle: Bundle) -> None:
    defense = build_defense("none", bundle)
    precisions = ["float32", "bfloat16", "int8"] if int8_problem() is None else ["float32", "bfloat16"]

    coarse = [
        LocalTarget(bundle.classifier, defense, Placement(CPU, precision), torch.Generator()).coarse  # type: ignore[arg-type]
        for precision in precisions
    ]

    assert coarse == [False, True, True][: len(precisions)]
