"""A user's own classifier is read from the files that people have, and what does not fit is told."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from pydantic import JsonValue, ValidationError
from torch import Tensor, nn
from torch.export import Dim, export

from models.bundle import read_bundle, read_manifest
from models.bundle.manifest import Normalization
from models.bundle.writer import write_manifest
from models.classifiers import ExportedConfig, ResNetConfig, TorchvisionConfig
from models.preprocessing import Preprocessing
from trainer.classifier import ClassifierTraining, Phase
from trainer.errors import NetworkError
from trainer.networks import NetworkRecipe, measured_batch, require_gradients

WriteProgram = Callable[[nn.Module, Path, int], Path]
ARCHITECTURE = ResNetConfig(width=8, blocks=(1, 1, 1, 1))
SIZE = Preprocessing(resize=12, height=12, width=12)
TRAINING = ClassifierTraining(phases=(Phase(epochs=1, resolution=12),))
NORMALIZATION = Normalization(mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))


@pytest.fixture
def network() -> nn.Module:
    """The user's network, with batch-norm statistics that matter."""
    trained = ARCHITECTURE.build(3)
    for name, buffer in trained.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_()
    return trained.eval()


def save_plain(state: dict[str, Tensor], path: Path) -> Path:
    torch.save(state, path.with_suffix(".pt"))
    return path.with_suffix(".pt")


def save_safetensors(state: dict[str, Tensor], path: Path) -> Path:
    safetensors.torch.save_file(state, path.with_suffix(".safetensors"))
    return path.with_suffix(".safetensors")


def save_checkpoint(state: dict[str, Tensor], path: Path) -> Path:
    return save_plain({"state_dict": state, "epoch": 90, "best": 0.76}, path)  # type: ignore[dict-item]


def save_nested(state: dict[str, Tensor], path: Path) -> Path:
    return save_plain({"model": {"state_dict": state}}, path)  # type: ignore[dict-item]


def save_parallel(state: dict[str, Tensor], path: Path) -> Path:
    return save_checkpoint({f"module.{name}": tensor for name, tensor in state.items()}, path)


def save_without_counters(state: dict[str, Tensor], path: Path) -> Path:
    return save_plain({name: one for name, one in state.items() if not name.endswith("num_batches_tracked")}, path)


def own(weights: Path, **more: Any) -> NetworkRecipe:
    return NetworkRecipe.model_validate({"architecture": ARCHITECTURE, "weights": weights, **more})


@pytest.mark.parametrize(
    "save", [save_plain, save_safetensors, save_checkpoint, save_nested, save_parallel, save_without_counters]
)
def test_weights_are_read_in_every_form_that_training_scripts_write(
    network: nn.Module, tmp_path: Path, save: Callable[[dict[str, Tensor], Path], Path]
) -> None:
    path = save(network.state_dict(), tmp_path / "mine")
    images = torch.rand(3, 3, 12, 12)

    read = own(path, normalization=NORMALIZATION).read(3, SIZE)

    normalized = (images - torch.tensor(NORMALIZATION.mean).view(3, 1, 1)) / torch.tensor(NORMALIZATION.std).view(
        3, 1, 1
    )
    torch.testing.assert_close(read(images), network(normalized))


def test_a_network_without_normalization_gets_the_pixels_as_they_are(network: nn.Module, tmp_path: Path) -> None:
    images = torch.rand(3, 3, 12, 12)

    read = own(save_plain(network.state_dict(), tmp_path / "mine")).read(3, SIZE)

    torch.testing.assert_close(read(images), network(images))


def test_what_is_read_is_frozen(network: nn.Module, tmp_path: Path) -> None:
    read = own(save_plain(network.state_dict(), tmp_path / "mine")).read(3, SIZE)

    assert not any(module.training for module in read.modules())
    assert not any(parameter.requires_grad for parameter in read.parameters())


def test_a_program_is_read_and_frozen(network: nn.Module, tmp_path: Path, write_program: WriteProgram) -> None:
    path = write_program(network, tmp_path / "mine.pt2", 12)
    images = torch.rand(5, 3, 12, 12)

    read = NetworkRecipe(architecture=ExportedConfig(), weights=path).read(3, SIZE)

    torch.testing.assert_close(read(images), network(images))
    assert not any(parameter.requires_grad for parameter in read.parameters())
    require_gradients(read, SIZE, "classifier")


def test_another_architecture_is_told_by_the_first_tensor_that_differs(network: nn.Module, tmp_path: Path) -> None:
    path = save_plain(network.state_dict(), tmp_path / "mine")
    wider = ResNetConfig(width=16, blocks=(1, 1, 1, 1))

    with pytest.raises(NetworkError, match=r"mine\.pt: does not fit the architecture and 3 classes: head\.weight is"):
        own(path, architecture=wider).read(3, SIZE)


def test_another_number_of_classes_is_told(network: nn.Module, tmp_path: Path) -> None:
    with pytest.raises(NetworkError, match=r"mine\.pt: does not fit the architecture and 7 classes: head\.bias"):
        own(save_plain(network.state_dict(), tmp_path / "mine")).read(7, SIZE)


def test_a_program_of_another_number_of_classes_is_told_with_what_can_be_done(
    network: nn.Module, tmp_path: Path, write_program: WriteProgram
) -> None:
    path = write_program(network, tmp_path / "mine.pt2", 12)

    with pytest.raises(NetworkError, match=r"gives \(1, 3\) for 1 image, but there are 7 classes; data\.labels"):
        NetworkRecipe(architecture=ExportedConfig(), weights=path).read(7, SIZE)


def test_a_program_for_another_size_is_told(network: nn.Module, tmp_path: Path, write_program: WriteProgram) -> None:
    path = write_program(network, tmp_path / "mine.pt2", 16)

    with pytest.raises(
        NetworkError, match=r"mine\.pt2: fails on 1 image of 12x12: .*export it for images of this size"
    ):
        NetworkRecipe(architecture=ExportedConfig(), weights=path).read(3, SIZE)


def save_program(network: nn.Module, path: Path, images: int, batch: Dim | None) -> Path:
    torch.export.save(
        export(network.eval(), (torch.rand(images, 3, 12, 12),), dynamic_shapes=({0: batch},) if batch else None), path
    )
    return path


@pytest.mark.parametrize("images", [1, 2, 3, 250])
def test_a_program_for_one_number_of_images_is_refused_with_what_can_be_done(
    network: nn.Module, tmp_path: Path, images: int
) -> None:
    path = save_program(network, tmp_path / "mine.pt2", images, None)

    with pytest.raises(
        NetworkError, match=r"fails on [13] images? of 12x12: .* with dynamic_shapes for the batch"
    ) as told:
        NetworkRecipe(architecture=ExportedConfig(), weights=path).read(3, SIZE)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("most", [8, 249])
def test_a_program_that_takes_fewer_images_than_are_measured_at_once_is_refused(
    network: nn.Module, tmp_path: Path, most: int
) -> None:
    path = save_program(network, tmp_path / "mine.pt2", 2, Dim("batch", min=1, max=most))

    with pytest.raises(NetworkError, match=r"fails on 250 images of 12x12: .* with dynamic_shapes for the batch"):
        NetworkRecipe(architecture=ExportedConfig(), weights=path).read(3, SIZE)


def test_a_program_that_takes_fewer_images_than_a_batch_of_the_training_is_refused(
    network: nn.Module, tmp_path: Path
) -> None:
    path = save_program(network, tmp_path / "mine.pt2", 2, Dim("batch", min=1, max=256))
    recipe = NetworkRecipe(architecture=ExportedConfig(), weights=path)

    recipe.read(3, SIZE, batches=[64, 256])
    with pytest.raises(NetworkError, match="fails on 257 images of 12x12"):
        recipe.read(3, SIZE, batches=[64, 257])


@pytest.mark.parametrize(("side", "images"), [(12, 250), (32, 250), (224, 79), (4000, 1)])
def test_as_many_images_are_measured_at_once_as_the_memory_takes(side: int, images: int) -> None:
    assert measured_batch(Preprocessing(resize=side, height=side, width=side)) == images


@pytest.mark.parametrize("architecture", [ARCHITECTURE, ExportedConfig()])
def test_a_file_that_is_missing_is_told(tmp_path: Path, architecture: ResNetConfig | ExportedConfig) -> None:
    with pytest.raises(NetworkError, match=r"nowhere\.pt"):
        own(tmp_path / "nowhere.pt", architecture=architecture).read(3, SIZE)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors", ".pt2"])
@pytest.mark.parametrize(
    "content",
    [b"", b"not weights at all", b"epoch,loss\n1,2.3\n", bytes(1000)],
    ids=["empty", "text", "text that begins with an opcode", "zeros"],
)
def test_a_file_that_holds_no_weights_is_told(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"mine{suffix}"
    path.write_bytes(content)

    with pytest.raises(NetworkError, match=rf"mine{suffix}: not "):
        own(path, architecture=ExportedConfig() if suffix == ".pt2" else ARCHITECTURE).read(3, SIZE)


def test_weights_of_a_training_that_diverged_are_told(network: nn.Module, tmp_path: Path) -> None:
    state = {name: tensor * torch.nan for name, tensor in network.state_dict().items() if tensor.is_floating_point()}
    torch.save(state, tmp_path / "last.pt")

    with pytest.raises(NetworkError, match=r"last\.pt: gives logits that are no finite numbers"):
        own(tmp_path / "last.pt").read(3, SIZE)


@pytest.mark.parametrize("seed", [2**64, -(2**63) - 1])
def test_a_seed_that_no_generator_takes_is_refused(seed: int, tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="seed"):
        own(tmp_path / "mine.pt", seed=seed)


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}, {}, torch.zeros(3)], ids=["list", "number", "empty", "one"])
def test_a_pickle_without_a_state_dict_is_told(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "mine.pt")

    with pytest.raises(NetworkError, match=r"mine\.pt: holds no state dict"):
        own(tmp_path / "mine.pt").read(3, SIZE)


class Malicious:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_a_malicious_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    torch.save({"state_dict": Malicious(tmp_path / "pwned")}, tmp_path / "mine.pt")

    with pytest.raises(NetworkError, match=r"mine\.pt: not a file of weights"):
        own(tmp_path / "mine.pt").read(3, SIZE)
    assert not (tmp_path / "pwned").exists()


class WithoutGradients(nn.Module):
    """A network as somebody exports it who thinks of nothing but predictions."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            logits: Tensor = self.network(images)
        return logits


def test_a_program_without_gradients_cannot_be_attacked_and_that_is_told(
    network: nn.Module, tmp_path: Path, write_program: WriteProgram
) -> None:
    path = write_program(WithoutGradients(network), tmp_path / "mine.pt2", 12)
    read = NetworkRecipe(architecture=ExportedConfig(), weights=path).read(3, SIZE)

    with pytest.raises(NetworkError, match=r"the surrogate gives no gradients .* export the program without"):
        require_gradients(read, SIZE, "surrogate")


class Rowwise(nn.Module):
    """Reads the pixels of a row two by two, as complex numbers: that takes rows that lie in memory pixel by pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 3)

    def forward(self, images: Tensor) -> Tensor:
        pairs = torch.view_as_complex(torch.unflatten(images, 3, (-1, 2)))
        logits: Tensor = self.head(pairs.abs().mean(dim=(2, 3)))
        return logits


def test_a_program_that_fails_on_images_as_they_come_is_told(tmp_path: Path, write_program: WriteProgram) -> None:
    path = write_program(Rowwise(), tmp_path / "mine.pt2", 12)

    with pytest.raises(NetworkError, match=r"mine\.pt2: fails on 1 image of 12x12: .*stride 1"):
        NetworkRecipe(architecture=ExportedConfig(), weights=path).read(3, SIZE)


@pytest.mark.parametrize(
    ("said", "match"),
    [
        ({"architecture": ARCHITECTURE}, "give `training`, the file of its `weights`, or both"),
        ({"architecture": ExportedConfig(), "training": TRAINING}, "cannot be trained here"),
        ({"architecture": ExportedConfig(), "training": TRAINING, "weights": "mine.pt2"}, "cannot be trained here"),
    ],
)
def test_a_network_is_trained_or_read(said: dict[str, Any], match: str) -> None:
    with pytest.raises(ValidationError, match=match):
        NetworkRecipe.model_validate(said)


def test_the_seed_decides_the_first_weights_and_nothing_else_does() -> None:
    first, other = (NetworkRecipe(architecture=ARCHITECTURE, training=TRAINING, seed=seed) for seed in (3, 4))
    before = torch.random.get_rng_state()

    states = [recipe.build(3).state_dict()["network.head.weight"] for recipe in (first, first, other)]

    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])
    assert torch.equal(torch.random.get_rng_state(), before)


def test_training_begins_with_the_weights_of_the_file(network: nn.Module, tmp_path: Path) -> None:
    path = save_plain(network.state_dict(), tmp_path / "mine")

    begun = own(path, training=TRAINING).begin(3, SIZE)

    state = begun.state_dict()
    assert all(torch.equal(state[f"network.{name}"], tensor) for name, tensor in network.state_dict().items())
    assert begun.training
    assert all(parameter.requires_grad for parameter in begun.parameters())


def test_weights_that_do_not_fit_are_told_before_they_are_trained_on(network: nn.Module, tmp_path: Path) -> None:
    path = save_plain(network.state_dict(), tmp_path / "mine")

    with pytest.raises(NetworkError, match=r"mine\.pt: does not fit the architecture and 5 classes"):
        own(path, training=TRAINING).begin(5, SIZE)


def test_a_network_that_is_trained_takes_images_of_every_size_of_its_training() -> None:
    small = ClassifierTraining(phases=(Phase(epochs=1, resolution=16), Phase(epochs=1, resolution=32)))
    size = Preprocessing(resize=32, height=32, width=32)
    for name, training, match in (
        ("alexnet", small, "alexnet: fails on 3 images of 32x32: "),
        ("vgg11", small, "vgg11: fails on 3 images of 16x16: "),
    ):
        recipe = NetworkRecipe(architecture=TorchvisionConfig(name=name), training=training)
        with pytest.raises(NetworkError, match=match):
            recipe.rehearse(3, size)


def test_a_rehearsal_decides_nothing() -> None:
    recipe = NetworkRecipe(architecture=TorchvisionConfig(name="mobilenet_v3_small"), training=TRAINING)
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    recipe.rehearse(3, SIZE)

    assert torch.equal(torch.rand(3), expected)


def test_weights_and_training_and_seed_decide_what_is_trained_on(network: nn.Module, tmp_path: Path) -> None:
    path = save_plain(network.state_dict(), tmp_path / "mine")
    changed = save_plain({**network.state_dict(), "head.bias": torch.ones(3)}, tmp_path / "changed")
    longer = ClassifierTraining(phases=(Phase(epochs=2, resolution=12),))

    recipes = [
        own(path),
        own(path, training=TRAINING),
        own(changed, training=TRAINING),
        own(path, training=longer),
        own(path, training=TRAINING, seed=1),
        NetworkRecipe(architecture=ARCHITECTURE, training=TRAINING),
    ]

    origins = [recipe.origin() for recipe in recipes]
    assert all(one not in origins[:place] for place, one in enumerate(origins))


def test_the_origin_of_a_users_network_is_its_content_and_not_its_place(network: nn.Module, tmp_path: Path) -> None:
    path = save_plain(network.state_dict(), tmp_path / "mine")
    (tmp_path / "elsewhere").mkdir()
    moved = tmp_path / "elsewhere" / "other.pt"
    moved.write_bytes(path.read_bytes())
    changed = save_plain({**network.state_dict(), "head.bias": torch.ones(3)}, tmp_path / "changed")

    assert own(moved).origin() == own(path).origin()
    assert own(changed).origin() != own(path).origin()


def test_a_classifier_that_lies_in_a_bundle_keeps_its_history(bundle_folder: Path) -> None:
    manifest = read_bundle(bundle_folder).manifest

    history = own(bundle_folder / manifest.classifier.weights.file).history()

    assert history == {"bundle": "toy", "version": "1", "provenance": manifest.provenance}


def test_a_classifier_that_a_bundle_had_from_another_has_the_history_of_that_one(
    bundle_folder: Path, tmp_path: Path
) -> None:
    """Else each bundle that is made from the one before would tell all of it twice."""
    shutil.copytree(bundle_folder, tmp_path, dirs_exist_ok=True)
    earlier: JsonValue = {"bundle": "first", "version": "0", "provenance": {"commit": "abc"}}
    manifest = read_manifest(tmp_path)
    provenance: dict[str, JsonValue] = {"networks": {"classifier": {"history": earlier}, "surrogate": None}}
    write_manifest(tmp_path, manifest.model_copy(update={"provenance": provenance}))

    assert own(tmp_path / manifest.classifier.weights.file).history() == earlier


def test_a_classifier_that_a_bundle_had_from_another_and_trained_on_has_its_own_history(
    bundle_folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(bundle_folder, tmp_path, dirs_exist_ok=True)
    manifest = read_manifest(tmp_path)
    said: JsonValue = {"training": TRAINING.model_dump(mode="json"), "history": {"bundle": "first"}}
    provenance: dict[str, JsonValue] = {"networks": {"classifier": said}}
    write_manifest(tmp_path, manifest.model_copy(update={"provenance": provenance}))

    history = own(tmp_path / manifest.classifier.weights.file).history()

    assert history == {"bundle": "toy", "version": "1", "provenance": provenance}


def test_a_purifier_of_a_bundle_does_not_have_the_history_of_its_classifier(bundle_folder: Path) -> None:
    assert own(bundle_folder / "fgsm-edsr.safetensors").history() is None


def test_a_classifier_outside_a_bundle_has_no_history(network: nn.Module, tmp_path: Path) -> None:
    assert own(save_plain(network.state_dict(), tmp_path / "mine")).history() is None
    assert NetworkRecipe(architecture=ARCHITECTURE, training=TRAINING).history() is None
