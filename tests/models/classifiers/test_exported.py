"""Exported programs run as the network did, and nothing in their archive is ever unpickled."""

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

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


class Viewing(nn.Module):
    """Ends as many networks do: a view of a map of several pixels as one row an image."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 3, padding=1)
        self.head = nn.Linear(4 * 8 * 8, 5)

    def rows(self, features: Tensor) -> Tensor:
        return features.view(features.shape[0], -1)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.rows(self.convolution(images)))
        return logits


class ViewingAs(Viewing):
    def rows(self, features: Tensor) -> Tensor:
        return features.view_as(torch.empty(features.shape[0], 4 * 8 * 8, device=features.device))


class Converting(nn.Module):
    """Asks for float32 where autocast gives bfloat16, and makes tensors on the device of its images."""

    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 3, padding=1)
        self.head = nn.Linear(4, 5)
        self.register_buffer("scale", torch.rand(4))

    def forward(self, images: Tensor) -> Tensor:
        features = self.convolution(images).to(torch.float32).mean(dim=(2, 3))
        places = torch.arange(4, device=images.device) * self.scale + torch.tensor([1.0, 2.0, 3.0, 4.0])
        logits: Tensor = self.head((features + places).to(images.device))
        return logits.to(torch.float32)


class Frozen(Converting):
    """The part without gradients becomes a graph inside the graph."""

    def forward(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            return super().forward(images)


class Numbered(Converting):
    """A part of it takes no tensor at all."""

    def forward(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            numbers = torch.arange(5.0, device=images.device)
        return super().forward(images) + numbers


class Masking(Viewing):
    """Writes through a view into what it goes on with: a copy in its place would give other logits, silently."""

    def rows(self, features: Tensor) -> Tensor:
        features.view(features.shape[0], -1).mul_(0.5)
        return features.flatten(1)


@pytest.fixture(params=[Viewing, ViewingAs, Converting, Frozen, Numbered])
def network(request: pytest.FixtureRequest) -> nn.Module:
    """Of 8x8 images and five classes."""
    made: nn.Module = request.param()
    return made.eval()


def read_again(network: nn.Module, form: str) -> nn.Module:
    """The network exported on the CPU for plain images in float32."""
    batch = {0: torch.export.Dim("batch")}
    exported = torch.export.export(network, (torch.rand(2, 3, 8, 8),), dynamic_shapes=(batch,))
    if form == "decomposed":
        exported = exported.run_decompositions()
    file = io.BytesIO()
    torch.export.save(exported, file)
    return read_program(file.getvalue())


@pytest.fixture(params=["as exported", "decomposed"])
def program(network: nn.Module, request: pytest.FixtureRequest) -> nn.Module:
    return read_again(network, request.param)


def images_as_served() -> Tensor:
    return torch.rand(3, 3, 8, 8).contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def test_a_program_takes_channels_last_images(network: nn.Module, program: nn.Module) -> None:
    images = images_as_served()

    torch.testing.assert_close(program(images), network(images.contiguous()))


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
@torch.no_grad()
def test_a_program_computes_in_bfloat16(network: nn.Module, program: nn.Module, device: str) -> None:
    images = images_as_served()

    with torch.autocast(device, torch.bfloat16):
        logits = program.to(device)(images.to(device))

    torch.testing.assert_close(logits.float().cpu(), network(images.contiguous()), atol=0.05, rtol=0.02)


@pytest.mark.parametrize("device", ["meta", pytest.param("cuda", marks=pytest.mark.cuda)])
@torch.no_grad()
def test_a_program_runs_on_another_device_than_it_was_exported_on(program: nn.Module, device: str) -> None:
    """The device `meta`, which computes shapes alone, is there on every machine."""
    logits = program.to(device)(images_as_served().to(device))

    assert (logits.device.type, logits.shape) == (device, (3, 5))


@pytest.mark.cuda
@torch.no_grad()
def test_a_program_gives_the_same_logits_on_a_gpu(network: nn.Module, program: nn.Module) -> None:
    images = images_as_served()

    logits = program.to("cuda")(images.cuda())

    torch.testing.assert_close(logits.cpu(), network(images.contiguous()), atol=1e-3, rtol=1e-3)


@torch.no_grad()
def test_what_is_written_through_a_view_is_never_lost_silently() -> None:
    network = Masking().eval()
    images = images_as_served()

    decomposed = read_again(network, "decomposed")
    torch.testing.assert_close(decomposed(images), network(images.contiguous()))
    with pytest.raises(RuntimeError, match="view"):
        read_again(network, "as exported")(images)
