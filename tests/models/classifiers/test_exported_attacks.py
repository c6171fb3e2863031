"""Archives that would execute code if PyTorch saw them as they are."""

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from models.classifiers.exported import UnsafeProgramError, read_program

Rebuild = Callable[[dict[str, bytes]], bytes]


@pytest.mark.filterwarnings("ignore")
def test_the_older_archive_is_refused_although_it_could_be_read(
    exported_archive: bytes, malicious_pickle: bytes, trace: Path
) -> None:
    from torch._export.serde.schema import SCHEMA_VERSION  # noqa: PLC0415
    from torch._export.serde.serialize import serialize  # noqa: PLC0415

    artifact = serialize(torch.export.load(io.BytesIO(exported_archive)))
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("version", ".".join(map(str, SCHEMA_VERSION)))
        archive.writestr("serialized_exported_program.json", artifact.exported_program)
        archive.writestr("serialized_state_dict.pt", malicious_pickle)
        archive.writestr("serialized_constants.pt", artifact.constants)
        archive.writestr("serialized_example_inputs.pt", b"")

    with pytest.raises(UnsafeProgramError):
        read_program(file.getvalue())
    assert not trace.exists()


def without(archive: bytes, name: str) -> bytes:
    result = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as original, zipfile.ZipFile(result, "w") as copy:
        for entry in original.namelist():
            if not entry.endswith(name):
                copy.writestr(entry, original.read(entry))
    return result.getvalue()


def test_sample_inputs_in_another_case_are_refused_unopened(
    rebuild: Rebuild, malicious_pickle: bytes, trace: Path
) -> None:
    archive = without(rebuild({"data/Sample_inputs/model.PT": malicious_pickle}), "sample_inputs/model.pt")

    with pytest.raises(UnsafeProgramError):
        read_program(archive)
    assert not trace.exists()


def test_a_weights_config_in_another_case_is_refused(
    exported_archive: bytes, rebuild: Rebuild, malicious_pickle: bytes, trace: Path
) -> None:
    with zipfile.ZipFile(io.BytesIO(exported_archive)) as file:
        root = file.namelist()[0].partition("/")[0]
        config = json.loads(file.read(f"{root}/data/weights/model_weights_config.json"))
    config["config"]["head.weight"] |= {"use_pickle": True, "path_name": "weight_evil"}
    archive = rebuild(
        {
            "data/weights/model_WEIGHTS_config.json": json.dumps(config).encode(),
            "data/weights/weight_evil": malicious_pickle,
        }
    )

    with pytest.raises(UnsafeProgramError):
        read_program(archive)
    assert not trace.exists()


def test_a_size_that_is_code_is_refused_unevaluated(exported_archive: bytes, rebuild: Rebuild, trace: Path) -> None:
    with zipfile.ZipFile(io.BytesIO(exported_archive)) as file:
        root = file.namelist()[0].partition("/")[0]
        graph = file.read(f"{root}/models/model.json").decode()
    code = f"__import__('os').mkdir('{trace}')"
    start = graph.index('"expr_str": "') + len('"expr_str": "')
    symbol = graph[start : graph.index('"', start)]

    with pytest.raises(UnsafeProgramError):
        read_program(rebuild({"models/model.json": graph.replace(symbol, code).encode()}))
    assert not trace.exists()
