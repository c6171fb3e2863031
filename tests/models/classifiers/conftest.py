"""A classifier as `torch.export` saves it, and a pickle that leaves a trace when it is loaded."""

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from models.classifiers import ResNetConfig

Rebuild = Callable[[dict[str, bytes]], bytes]


@pytest.fixture(scope="session")
def exported_network() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return ResNetConfig(width=4, blocks=(1, 1, 1, 1)).build(5).eval()


@pytest.fixture(scope="session")
def exported_archive(exported_network: nn.Module) -> bytes:
    """The network as a program of a dynamic batch of 8x8 images."""
    batch = {0: torch.export.Dim("batch")}
    program = torch.export.export(exported_network, (torch.rand(2, 3, 8, 8),), dynamic_shapes=(batch,))
    file = io.BytesIO()
    torch.export.save(program, file)
    return file.getvalue()


@pytest.fixture
def rebuild(exported_archive: bytes) -> Rebuild:
    """Makes the archive again with some of its files replaced, or others added."""

    def make(files: dict[str, bytes]) -> bytes:
        result = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(exported_archive)) as original, zipfile.ZipFile(result, "w") as copy:
            root = original.namelist()[0].partition("/")[0]
            changed = {f"{root}/{name}": content for name, content in files.items()}
            for entry in original.namelist():
                copy.writestr(entry, changed.pop(entry, original.read(entry)))
            for name, content in changed.items():
                copy.writestr(name, content)
        return result.getvalue()

    return make


class _Trace:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.mkdir, (self.path,)


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """Exists as soon as `malicious_pickle` was loaded."""
    return tmp_path / "executed"


@pytest.fixture
def malicious_pickle(trace: Path) -> bytes:
    file = io.BytesIO()
    torch.save({"weight": _Trace(trace)}, file)
    return file.getvalue()
