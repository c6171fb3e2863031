"""Exported programs run as the network did, and nothing in their archive is ever unpickled."""

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from models.classifiers.exported import UnsafeProgramError, read_program

Rebuild = Callable[[dict[str, bytes]], bytes]
WEIGHTS_CONFIG = "data/weights/model_weights_config.json"
CONSTANTS_CONFIG = "data/constants/model_constants_config.json"


def config_of(archive: bytes, name: str) -> dict[str, Any]:
    with zipfile.ZipFile(io.BytesIO(archive)) as file:
        root = file.namelist()[0].partition("/")[0]
        config: dict[str, Any] = json.loads(file.read(f"{root}/{name}"))
        return config


def test_the_trace_shows_that_a_pickle_was_loaded(malicious_pickle: bytes, trace: Path) -> None:
    torch.load(io.BytesIO(malicious_pickle), weights_only=False)

    assert trace.exists()


@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_program_gives_the_logits_of_the_exported_network_for_any_batch(
    exported_network: nn.Module, exported_archive: bytes, count: int
) -> None:
    images = torch.rand(count, 3, 8, 8)

    torch.testing.assert_close(read_program(exported_archive)(images), exported_network(images))


def test_sample_inputs_are_never_unpickled(
    exported_network: nn.Module, rebuild: Rebuild, malicious_pickle: bytes, trace: Path
) -> None:
    program = read_program(rebuild({"data/sample_inputs/model.pt": malicious_pickle}))

    images = torch.rand(2, 3, 8, 8)
    torch.testing.assert_close(program(images), exported_network(images))
    assert not trace.exists()


@pytest.mark.parametrize("kind", ["weights", "constants"])
def test_legacy_pickles_are_refused_unopened(rebuild: Rebuild, malicious_pickle: bytes, trace: Path, kind: str) -> None:
    with pytest.raises(UnsafeProgramError, match=f"data/{kind}/model.pt: not a file"):
        read_program(rebuild({f"data/{kind}/model.pt": malicious_pickle}))
    assert not trace.exists()


def test_a_weight_that_is_declared_a_pickle_is_refused_unopened(
    exported_archive: bytes, rebuild: Rebuild, malicious_pickle: bytes, trace: Path
) -> None:
    config = config_of(exported_archive, WEIGHTS_CONFIG)
    config["config"]["head.weight"]["use_pickle"] = True
    path = config["config"]["head.weight"]["path_name"]
    archive = rebuild({WEIGHTS_CONFIG: json.dumps(config).encode(), f"data/weights/{path}": malicious_pickle})

    with pytest.raises(UnsafeProgramError, match=r"head.weight is pickled"):
        read_program(archive)
    assert not trace.exists()


@pytest.mark.parametrize("path", ["opaque_obj_0", "custom_obj_0"])
def test_a_constant_that_is_an_object_is_refused_unopened(
    exported_archive: bytes, rebuild: Rebuild, malicious_pickle: bytes, trace: Path, path: str
) -> None:
    config = config_of(exported_archive, CONSTANTS_CONFIG)
    config["config"]["helper"] = {"path_name": path, "is_param": False, "use_pickle": False, "tensor_meta": None}
    archive = rebuild({CONSTANTS_CONFIG: json.dumps(config).encode(), f"data/constants/{path}": malicious_pickle})

    with pytest.raises(UnsafeProgramError, match="helper is pickled"):
        read_program(archive)
    assert not trace.exists()


def test_compiled_code_is_refused(rebuild: Rebuild) -> None:
    with pytest.raises(UnsafeProgramError, match=r"data/aotinductor/model/code\.so: compiled code"):
        read_program(rebuild({"data/aotinductor/model/code.so": b"\x7fELF"}))


def test_bytes_that_are_no_archive_are_refused(malicious_pickle: bytes) -> None:
    with pytest.raises(zipfile.BadZipFile):
        read_program(malicious_pickle[:-30])
