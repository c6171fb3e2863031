"""A pool is adapted rather than trained anew: its first weights are those of an earlier bundle."""

from pathlib import Path

import pytest
import torch
from pydantic import JsonValue
from torch import nn

from models.bundle import read_bundle, read_manifest
from models.bundle.writer import write_manifest
from models.decoder import DecoderConfig
from models.encoders import EDSRConfig
from models.purifier import Purifier, PurifierConfig
from trainer.errors import NetworkError
from trainer.start import first_weights, start_history, start_origin


@pytest.fixture
def edsr() -> PurifierConfig:
    """The architecture of `fgsm-edsr` in the toy bundle."""
    return PurifierConfig(encoder=EDSRConfig(features=4, blocks=1), decoder=DecoderConfig(hidden=(8,)))


def test_purifiers_get_the_weights_that_they_have_in_the_bundle(bundle_folder: Path, edsr: PurifierConfig) -> None:
    purifiers = nn.ModuleDict({"edsr": Purifier(edsr)})
    images = torch.rand(1, 3, 8, 8)

    first_weights(bundle_folder, "fgsm", purifiers)

    with torch.inference_mode():
        expected = read_bundle(bundle_folder).purifiers["fgsm-edsr"](images)
        assert torch.equal(purifiers["edsr"].eval()(images), expected)
        assert not torch.equal(expected, images)


@pytest.mark.parametrize(("attack", "name"), [("bim", "edsr"), ("fgsm", "edsr64")])
def test_a_purifier_that_the_bundle_does_not_have_is_named(
    bundle_folder: Path, edsr: PurifierConfig, attack: str, name: str
) -> None:
    with pytest.raises(NetworkError, match=f"has no {attack}-{name} of this architecture"):
        first_weights(bundle_folder, attack, nn.ModuleDict({name: Purifier(edsr)}))


def test_a_purifier_of_another_architecture_is_named(bundle_folder: Path, edsr: PurifierConfig) -> None:
    wider = edsr.model_copy(update={"decoder": DecoderConfig(hidden=(4,))})

    with pytest.raises(NetworkError, match="has no fgsm-edsr of this architecture"):
        first_weights(bundle_folder, "fgsm", nn.ModuleDict({"edsr": Purifier(wider)}))


def test_a_folder_that_is_no_bundle_is_told(tmp_path: Path, edsr: PurifierConfig) -> None:
    purifiers = nn.ModuleDict({"edsr": Purifier(edsr)})

    with pytest.raises(NetworkError, match=r"pool\.training\.start: .*no bundle here"):
        first_weights(tmp_path, "fgsm", purifiers)
    with pytest.raises(NetworkError, match=r"pool\.training\.start: .*no bundle here"):
        start_origin(tmp_path, "fgsm")


def test_the_first_weights_of_one_attack_are_told_apart_from_those_of_another(bundle_folder: Path) -> None:
    entries = {entry.name: entry.weights.sha256 for entry in read_bundle(bundle_folder).manifest.pool.purifiers}

    assert start_origin(bundle_folder, "pgd") == {name: entries[name] for name in ("pgd-edsr", "pgd-rcan")}


def test_the_history_of_a_start_tells_bundle_and_weights_and_where_they_came_from(
    bundle_folder: Path, tmp_path: Path
) -> None:
    manifest = read_manifest(bundle_folder)
    provenance: dict[str, JsonValue] = {
        "commit": "abc",
        "training": {"pgd": []},
        "networks": {"classifier": {"seed": 0}, "surrogate": {"seed": 1}},
        "accuracy": {"images": 9},
        "diversity": None,
        "cost": {"pool": 1},
    }
    write_manifest(tmp_path, manifest.model_copy(update={"provenance": provenance}))

    assert start_history(tmp_path) == {
        "bundle": "toy",
        "version": "1",
        "purifiers": {one.name: one.weights.sha256 for one in manifest.pool.purifiers},
        "provenance": {"commit": "abc", "training": {"pgd": []}, "networks": {"surrogate": {"seed": 1}}},
    }
