"""A whole run, from images to a bundle that can be served, whose manifest tells its history."""

import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from torch import nn
from torchvision.models import get_model

import trainer.loop
from models.bundle import Bundle, read_bundle, read_manifest
from models.classifiers import ResNetConfig
from models.preprocessing import Preprocessing
from trainer.bundling import Bundling, Measured
from trainer.errors import CheckpointError, NetworkError, RunError, SelectionError
from trainer.images import LabeledImages, read_image_folder
from trainer.loop import Loop, Metrics, Report
from trainer.recipe import Recipe, check_recipe
from trainer.run import Run

CPU = torch.device("cpu")
SIZE = Preprocessing(resize=12, height=12, width=12)
WriteProgram = Callable[[nn.Module, Path, int], Path]
MakeRecipe = Callable[..., Recipe]
MakeOwnRecipe = Callable[[str, Path, int], Recipe]


class StoppedError(Exception):
    """Somebody stopped the training."""


@dataclass
class Watched:
    """Remembers what was trained, and stops one training after some step."""

    stop: tuple[str, int] | None = None
    trained: list[str] = field(default_factory=list)

    @contextmanager
    def watch(self, name: str, steps: int, done: int) -> Iterator[Report]:  # noqa: ARG002 - of the interface
        def told(step: int, _: Metrics) -> None:
            if self.stop == (name, step):
                raise StoppedError

        self.trained.append(name)
        yield told


@dataclass
class Finished:
    """A run that went through all steps."""

    run: Run
    train: LabeledImages
    test: LabeledImages
    output: Path
    measured: Measured


@pytest.fixture(scope="module")
def make_recipe(toy_recipe: str) -> MakeRecipe:
    """The toy recipe with some texts changed; every change has to meet something."""

    def make(*changes: tuple[str, str]) -> Recipe:
        text = toy_recipe
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        return check_recipe(tomllib.loads(text), "toy")

    return make


@pytest.fixture(scope="module")
def train(tmp_path_factory: pytest.TempPathFactory, write_tree: Callable[[Path, int, int], Path]) -> LabeledImages:
    return read_image_folder(write_tree(tmp_path_factory.mktemp("train") / "tree", 6, 0), SIZE)


@pytest.fixture(scope="module")
def test(tmp_path_factory: pytest.TempPathFactory, write_tree: Callable[[Path, int, int], Path]) -> LabeledImages:
    """One of its files is damaged, of 120."""
    tree = write_tree(tmp_path_factory.mktemp("test") / "tree", 60, 1)
    (tree / "red" / "59.png").write_bytes(b"not an image")
    return read_image_folder(tree, SIZE)


@pytest.fixture(scope="module")
def loop(fabric: Fabric) -> Loop:
    return Loop(fabric)


def trained(run: Run, data: LabeledImages) -> Run:
    run.train_classifier(data)
    run.train_pool(data)
    return run


@pytest.fixture(scope="module")
def finished(
    tmp_path_factory: pytest.TempPathFactory,
    make_recipe: MakeRecipe,
    train: LabeledImages,
    test: LabeledImages,
    loop: Loop,
) -> Finished:
    folder = tmp_path_factory.mktemp("finished")
    run = trained(Run(make_recipe(), folder / "run", loop, print), train)
    measured = Bundling(run, CPU, train, test).write(folder / "bundle")
    return Finished(run, train, test, folder / "bundle", measured)


@pytest.fixture(scope="module")
def bundle(finished: Finished) -> Bundle:
    return read_bundle(finished.output)


@pytest.fixture(scope="module")
def provenance(bundle: Bundle) -> dict[str, Any]:
    return dict(bundle.manifest.provenance)


def test_the_bundle_has_the_classes_of_the_training_images(bundle: Bundle) -> None:
    assert bundle.manifest.labels == ("blue", "red")
    assert bundle.classifier(torch.rand(2, 3, 12, 12)).shape == (2, 2)


def test_the_bundle_has_a_purifier_for_each_attack_and_architecture(bundle: Bundle) -> None:
    assert list(bundle.purifiers) == ["fgsm-edsr", "fgsm-rcan", "pgd-edsr", "pgd-rcan"]
    assert [purifier.attack for purifier in bundle.manifest.pool.purifiers] == ["fgsm", "fgsm", "pgd", "pgd"]


def test_the_bundle_is_served_as_the_recipe_says(bundle: Bundle, finished: Finished) -> None:
    manifest, recipe = bundle.manifest, finished.run.recipe

    assert manifest.name == "toy"
    assert manifest.preprocessing == recipe.preprocessing
    assert manifest.classifier.normalization == recipe.classifier.normalization
    assert (manifest.pool.grid, manifest.pool.halo) == (2, 1)


def test_the_purifiers_were_trained(bundle: Bundle) -> None:
    images = torch.rand(1, 3, 12, 12)

    with torch.inference_mode():
        assert not any(torch.equal(purifier(images), images) for purifier in bundle.purifiers.values())


def test_the_bundle_holds_the_classifier_that_was_trained(finished: Finished, bundle: Bundle) -> None:
    checkpoint = torch.load(finished.run.folder / "classifier.ckpt", weights_only=True)["parts"]["network"]
    served = bundle.classifier.state_dict()

    assert served.keys() == checkpoint.keys()
    for name, tensor in checkpoint.items():
        torch.testing.assert_close(served[name], tensor, rtol=1e-3, atol=1e-6)


def test_the_manifest_tells_recipe_versions_and_commit(provenance: dict[str, Any], finished: Finished) -> None:
    assert Recipe.model_validate(provenance["recipe"]) == finished.run.recipe
    assert provenance["torch"] == torch.__version__
    assert provenance.keys() >= {"purigate", "commit", "created"}


def test_the_manifest_tells_the_images_and_the_files_that_were_skipped(
    provenance: dict[str, Any], finished: Finished
) -> None:
    assert provenance["data"] == {
        "train": {"images": 12, "sha256": finished.train.fingerprint, "skipped": []},
        "test": {
            "images": 119,
            "sha256": finished.test.fingerprint,
            "skipped": [str(Path("red", "59.png"))],
            "overlap": 0,
        },
    }


def test_the_manifest_tells_who_trained_what(provenance: dict[str, Any]) -> None:
    steps = {name: [entry["steps"] for entry in entries] for name, entries in provenance["training"].items()}

    assert steps == {"classifier": [[0, 6]], "surrogate": [[0, 3]], "pool-fgsm": [[0, 2]], "pool-pgd": [[0, 2]]}
    assert all(entry["device"] == "cpu" for entries in provenance["training"].values() for entry in entries)


def test_the_manifest_tells_the_accuracy_of_all_purifiers_and_grids(
    provenance: dict[str, Any], finished: Finished, bundle: Bundle
) -> None:
    accuracy = finished.measured.accuracy

    assert Measured.model_validate({key: provenance[key] for key in Measured.model_fields}) == finished.measured
    assert accuracy.images == 119
    assert set(accuracy.purifiers) == set(bundle.purifiers)
    assert set(accuracy.grids) == {1, 2, 3}
    assert accuracy.draws == 5
    assert accuracy.attacked_images == 119
    assert accuracy.attack.kind == "pgd"


def test_the_manifest_tells_diversity_cost_and_candidates(provenance: dict[str, Any], bundle: Bundle) -> None:
    assert provenance["diversity"]["images"] == 119
    assert provenance["diversity"]["nu"] > 0
    assert provenance["cost"]["purifiers"].keys() == bundle.purifiers.keys()
    assert provenance["candidates"] == list(bundle.purifiers)


def test_a_finished_step_is_not_trained_again(finished: Finished, fabric: Fabric) -> None:
    watcher = Watched()

    trained(Run(finished.run.recipe, finished.run.folder, Loop(fabric, [watcher]), print), finished.train)

    assert watcher.trained == []


def test_the_same_recipe_and_images_give_the_same_weights(finished: Finished, loop: Loop, tmp_path: Path) -> None:
    run = trained(Run(finished.run.recipe, tmp_path / "run", loop, print), finished.train)
    Bundling(run, CPU, finished.train, finished.test).write(tmp_path / "bundle")

    first, second = read_manifest(finished.output), read_manifest(tmp_path / "bundle")
    assert second.classifier == first.classifier
    assert second.pool == first.pool


def test_an_interrupted_run_tells_both_sittings_and_gives_the_same_weights(
    finished: Finished, fabric: Fabric, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer.loop, "REPORT_EVERY", 1)
    for stop in (("classifier", 4), ("pgd", 2), None):
        loop = Loop(fabric, [Watched(stop)], checkpoint_seconds=0)
        run = Run(finished.run.recipe, tmp_path / "run", loop, print)
        if stop:
            with pytest.raises(StoppedError):
                trained(run, finished.train)
    trained(run, finished.train)
    Bundling(run, CPU, finished.train, finished.test).write(tmp_path / "bundle")

    first, second = read_manifest(finished.output), read_manifest(tmp_path / "bundle")
    history: Any = second.provenance["training"]
    assert [entry["steps"] for entry in history["classifier"]] == [[0, 3], [3, 6]]
    assert [entry["steps"] for entry in history["pool-pgd"]] == [[0, 1], [1, 2]]
    assert [entry["steps"] for entry in history["surrogate"]] == [[0, 3]]
    assert (second.classifier, second.pool) == (first.classifier, first.pool)


def test_no_bundle_is_written_before_the_classifier_is_trained(
    make_recipe: MakeRecipe, train: LabeledImages, loop: Loop, tmp_path: Path
) -> None:
    run = Run(make_recipe(), tmp_path / "run", loop, print)

    with pytest.raises(CheckpointError, match=r"classifier\.ckpt: not trained yet"):
        Bundling(run, CPU, train, train).write(tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_no_bundle_is_written_before_the_pool_is_trained(
    make_recipe: MakeRecipe, train: LabeledImages, loop: Loop, tmp_path: Path
) -> None:
    run = Run(make_recipe(), tmp_path / "run", loop, print)
    run.train_classifier(train)
    run.train_surrogate(train)

    with pytest.raises(CheckpointError, match=r"pool-fgsm\.ckpt: not trained yet"):
        Bundling(run, CPU, train, train).write(tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_a_half_trained_classifier_is_not_bundled(
    make_recipe: MakeRecipe, train: LabeledImages, fabric: Fabric, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer.loop, "REPORT_EVERY", 1)
    loop = Loop(fabric, [Watched(("classifier", 4))], checkpoint_seconds=0)
    run = Run(make_recipe(), tmp_path / "run", loop, print)
    with pytest.raises(StoppedError):
        run.train_classifier(train)
    run.train_pool(train)

    with pytest.raises(CheckpointError, match=r"classifier\.ckpt: trained for 3 of 6 steps; finish that first"):
        Bundling(run, CPU, train, train).write(tmp_path / "bundle")


def test_a_failed_bundle_leaves_the_one_that_is_there(
    finished: Finished, make_recipe: MakeRecipe, loop: Loop, tmp_path: Path
) -> None:
    Bundling(finished.run, CPU, finished.train, finished.test).write(tmp_path / "bundle")
    before = read_manifest(tmp_path / "bundle")
    second = Run(make_recipe(("seed = 0", "seed = 7")), tmp_path / "second", loop, print)
    second.train_classifier(finished.train)

    with pytest.raises(CheckpointError):
        Bundling(second, CPU, finished.train, finished.test).write(tmp_path / "bundle")

    assert read_bundle(tmp_path / "bundle").manifest == before


def test_test_images_of_other_classes_are_refused(finished: Finished, tmp_path: Path) -> None:
    other = LabeledImages(finished.test.images, finished.test.labels, ("amber", "blue"))

    with pytest.raises(RunError, match="'amber'"):
        Bundling(finished.run, CPU, finished.train, other).write(tmp_path / "bundle")


def inverted(data: LabeledImages) -> LabeledImages:
    return LabeledImages(255 - data.images, data.labels, data.classes)


@pytest.mark.parametrize("step", ["check", "train_classifier", "train_pool"])
def test_checkpoints_of_other_images_are_not_gone_on_with(finished: Finished, step: str) -> None:
    with pytest.raises(CheckpointError, match=r"images was .* and is "):
        getattr(finished.run, step)(inverted(finished.train))


def test_checkpoints_of_other_images_are_not_bundled(finished: Finished, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="images was"):
        Bundling(finished.run, CPU, inverted(finished.train), finished.test).write(tmp_path / "bundle")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("epsilon = [4, 12] }", "epsilon = [1, 2] }"), r"pool-fgsm.*pool\.attacks\.epsilon was .*4.* and is .*1"),
        (("seed = 0", "seed = 7"), r"classifier\.ckpt.*classifier\.seed was 0 and is 7"),
        (("seed = 1\n", "seed = 7\n"), r"surrogate\.ckpt.*surrogate\.seed was 1 and is 7"),
        (("seed = 100", "seed = 7"), r"pool-fgsm.*pool\.seed was 100 and is 7"),
        (("steps = 2\n", "steps = 3\n"), r"pool-fgsm.*pool\.steps was 2 and is 3"),
    ],
)
def test_checkpoints_of_another_recipe_are_not_gone_on_with(
    finished: Finished, make_recipe: MakeRecipe, loop: Loop, change: tuple[str, str], told: str
) -> None:
    other = Run(make_recipe(change), finished.run.folder, loop, print)

    with pytest.raises(CheckpointError, match=told):
        other.check(finished.train)


def test_what_does_not_decide_the_weights_may_change(finished: Finished, make_recipe: MakeRecipe, loop: Loop) -> None:
    other = make_recipe(("grid = 2", "grid = 3"), ('name = "toy"', 'name = "other"'), ("halo = 1", "halo = 2"))

    Run(other, finished.run.folder, loop, print).check(finished.train)


def test_another_attack_beside_it_leaves_a_trained_one_as_it_is(
    finished: Finished, make_recipe: MakeRecipe, loop: Loop
) -> None:
    more = make_recipe(
        ("[pool.training.purifiers]", 'bim = { kind = "bim", epsilon = [2, 8] }\n\n[pool.training.purifiers]')
    )

    Run(more, finished.run.folder, loop, print).check(finished.train)


def test_a_bundle_is_written_where_there_is_no_git(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    Bundling(finished.run, CPU, finished.train, finished.test).write(tmp_path / "bundle")

    assert read_manifest(tmp_path / "bundle").provenance["commit"] is None


def test_the_served_grid_is_measured(finished: Finished, make_recipe: MakeRecipe, loop: Loop, tmp_path: Path) -> None:
    run = Run(make_recipe(("grid = 2", "grid = 4")), finished.run.folder, loop, print)

    measured = Bundling(run, CPU, finished.train, finished.test).write(tmp_path / "bundle")

    assert set(measured.accuracy.grids) == {1, 2, 3, 4}


def test_a_selection_makes_the_pool_smaller_and_the_manifest_names_all_candidates(
    finished: Finished, make_recipe: MakeRecipe, loop: Loop, tmp_path: Path
) -> None:
    recipe = make_recipe(("halo = 1", "halo = 1\nselection = { keep = 2, most_lost = 1.0 }"))
    run = Run(recipe, finished.run.folder, loop, print)

    measured = Bundling(run, CPU, finished.train, finished.test).write(tmp_path / "bundle")

    manifest = read_bundle(tmp_path / "bundle").manifest
    assert len(manifest.pool.purifiers) == len(measured.accuracy.purifiers) == 2
    assert manifest.provenance["candidates"] == ["fgsm-edsr", "fgsm-rcan", "pgd-edsr", "pgd-rcan"]


def test_a_selection_that_too_few_meet_writes_no_bundle(
    finished: Finished, make_recipe: MakeRecipe, loop: Loop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = make_recipe(("halo = 1", "halo = 1\nselection = { keep = 4, most_lost = 0.0 }"))
    right = iter([9, 8, 9, 9, 9])  # undefended, then behind each purifier
    monkeypatch.setattr("trainer.selection._right", lambda *_: next(right))

    with pytest.raises(SelectionError, match="only 3 purifiers"):
        Bundling(Run(recipe, finished.run.folder, loop, print), CPU, finished.train, finished.test).write(
            tmp_path / "bundle"
        )
    assert not (tmp_path / "bundle").exists()


def test_a_guided_pool_needs_the_classifier_first(
    make_recipe: MakeRecipe, train: LabeledImages, loop: Loop, tmp_path: Path
) -> None:
    recipe = make_recipe(("crop = 8", "crop = 8\nguidance = { weight = 0.1, images = 2 }"))
    run = Run(recipe, tmp_path / "run", loop, print)

    with pytest.raises(CheckpointError, match=r"classifier\.ckpt: not trained yet"):
        run.train_pool(train)
    trained(run, train)
    assert len(run.purifiers(train)) == 4


OWN = """
[classifier]
architecture = {architecture}
weights = "{weights}"

[pool]
"""


@pytest.fixture
def own_recipe(toy_recipe: str) -> MakeOwnRecipe:
    """The toy recipe around a classifier from a file, without a surrogate, for images of so many pixels."""

    def make(architecture: str, weights: Path, side: int) -> Recipe:
        head, pool = toy_recipe[: toy_recipe.index("[classifier]")], toy_recipe[toy_recipe.index("[pool]") :]
        text = head + OWN.format(architecture=architecture, weights=weights) + pool.removeprefix("[pool]")
        return check_recipe(tomllib.loads(text.replace(" = 12\n", f" = {side}\n")), "mine")

    return make


def enlarged(data: LabeledImages, side: int) -> LabeledImages:
    images = nn.functional.interpolate(data.images.float(), size=(side, side)).to(torch.uint8)
    return LabeledImages(images, data.labels, data.classes)


def test_an_exported_classifier_goes_through_pool_and_bundle_as_it_is(
    own_recipe: MakeOwnRecipe,
    write_program: WriteProgram,
    train: LabeledImages,
    loop: Loop,
    tmp_path: Path,
) -> None:
    network = ResNetConfig(width=8, blocks=(1, 1, 1, 1)).build(2)
    weights = write_program(network, tmp_path / "mine.pt2", 12)
    lines: list[str] = []
    run = Run(own_recipe('{ kind = "exported" }', weights, 12), tmp_path / "run", loop, lines.append)

    run.check(train)
    Bundling(trained(run, train), CPU, train, train).write(tmp_path / "bundle")

    bundle = read_bundle(tmp_path / "bundle")
    images = torch.rand(3, 3, 12, 12)
    assert (tmp_path / "bundle" / bundle.manifest.classifier.weights.file).read_bytes() == weights.read_bytes()
    torch.testing.assert_close(bundle.classifier(images), network(images))
    assert len(bundle.purifiers) == 4
    assert lines == [f"classifier: taken from {weights}"]


def test_a_torchvision_classifier_goes_through_pool_and_bundle(
    own_recipe: MakeOwnRecipe, train: LabeledImages, loop: Loop, tmp_path: Path
) -> None:
    network = get_model("squeezenet1_1", num_classes=2).eval()
    torch.save({"state_dict": network.state_dict()}, tmp_path / "mine.pt")
    recipe = own_recipe('{ kind = "torchvision", name = "squeezenet1_1" }', tmp_path / "mine.pt", 20)
    run, data = Run(recipe, tmp_path / "run", loop, print), enlarged(train, 20)

    run.check(data)
    Bundling(trained(run, data), CPU, data, data).write(tmp_path / "bundle")

    bundle = read_bundle(tmp_path / "bundle")
    images = torch.rand(3, 3, 20, 20)
    torch.testing.assert_close(bundle.classifier(images), network(images), rtol=1e-2, atol=1e-2)
    assert (bundle.manifest.classifier.classes, len(bundle.purifiers)) == (2, 4)


def test_a_classifier_that_lies_in_a_bundle_brings_its_history(
    own_recipe: MakeOwnRecipe, finished: Finished, train: LabeledImages, loop: Loop, tmp_path: Path
) -> None:
    recipe = own_recipe(
        '{ kind = "resnet", width = 8, blocks = [1, 1, 1, 1] }', finished.output / "classifier.safetensors", 12
    )
    run = trained(Run(recipe, tmp_path / "run", loop, print), train)

    Bundling(run, CPU, train, train).write(tmp_path / "bundle")

    told: Any = read_manifest(tmp_path / "bundle").provenance["networks"]
    assert told["classifier"]["history"]["bundle"] == "toy"
    assert told["classifier"]["history"]["provenance"]["training"]["classifier"][0]["steps"] == [0, 6]


def test_a_pool_of_no_steps_is_that_of_the_bundle_it_starts_from(
    make_recipe: MakeRecipe, finished: Finished, train: LabeledImages, loop: Loop, tmp_path: Path
) -> None:
    recipe = make_recipe(("[pool.training]\nsteps = 2", f'[pool.training]\nstart = "{finished.output}"\nsteps = 0'))
    lines: list[str] = []
    run = Run(recipe, tmp_path / "run", loop, lines.append)

    run.check(train)
    Bundling(trained(run, train), CPU, train, train).write(tmp_path / "bundle")

    before, after = (read_manifest(folder) for folder in (finished.output, tmp_path / "bundle"))
    assert after.pool.purifiers == before.pool.purifiers
    told: Any = after.provenance
    assert (told["start"]["bundle"], told["training"]["pool-fgsm"]) == ("toy", [])
    assert lines == [f"pool: taken from {finished.output}"]


@pytest.fixture
def trained_on(finished: Finished, make_recipe: MakeRecipe) -> Recipe:
    """The toy recipe whose classifier begins with the weights of a finished one, and hardly moves from them."""
    weights = finished.output / "classifier.safetensors"
    return make_recipe(
        ("seed = 0\n", f'seed = 0\nweights = "{weights}"\n'),
        ("training = { batch_size", "training = { peak_learning_rate = 1e-9, batch_size"),
    )


def test_a_classifier_is_trained_on_from_the_weights_of_another(
    trained_on: Recipe, finished: Finished, train: LabeledImages, loop: Loop, tmp_path: Path
) -> None:
    run = Run(trained_on, tmp_path / "run", loop, print)
    begun = dict(read_bundle(finished.output).classifier.named_parameters())

    run.check(train)
    Bundling(trained(run, train), CPU, train, train).write(tmp_path / "bundle")

    bundle = read_bundle(tmp_path / "bundle")
    for name, parameter in bundle.classifier.named_parameters():
        torch.testing.assert_close(parameter, begun[name])
    told: Any = bundle.manifest.provenance["networks"]
    assert told["classifier"]["weights_sha256"] == read_manifest(finished.output).classifier.weights.sha256
    assert told["classifier"]["history"]["bundle"] == "toy"
    assert told["classifier"]["training"]["peak_learning_rate"] == 1e-9


@pytest.mark.parametrize("training", ["", "training = { batch_size = 4, phases = [{ epochs = 1, resolution = 12 }] }"])
def test_a_classifier_that_does_not_fit_stops_the_run_before_anything_is_trained(
    own_recipe: MakeOwnRecipe, train: LabeledImages, loop: Loop, tmp_path: Path, training: str
) -> None:
    torch.save(ResNetConfig(width=8, blocks=(1, 1, 1, 1)).build(5).state_dict(), tmp_path / "mine.pt")
    architecture = '{ kind = "resnet", width = 8, blocks = [1, 1, 1, 1] }'
    recipe = own_recipe(f"{architecture}\n{training}", tmp_path / "mine.pt", 12)

    with pytest.raises(NetworkError, match=r"mine\.pt: does not fit the architecture and 2 classes"):
        Run(recipe, tmp_path / "run", loop, print).check(train)
    assert not (tmp_path / "run").exists()


def test_another_classifier_of_the_same_name_is_not_gone_on_with(
    own_recipe: MakeOwnRecipe, train: LabeledImages, loop: Loop, tmp_path: Path
) -> None:
    architecture = '{ kind = "resnet", width = 8, blocks = [1, 1, 1, 1] }'
    for attempt in range(2):
        torch.save(ResNetConfig(width=8, blocks=(1, 1, 1, 1)).build(2).state_dict(), tmp_path / "mine.pt")
        run = Run(own_recipe(architecture, tmp_path / "mine.pt", 12), tmp_path / "run", loop, print)
        if attempt == 0:
            run.train_pool(train)

    with pytest.raises(CheckpointError, match=r"surrogate\.weights_sha256 was"):
        run.check(train)
