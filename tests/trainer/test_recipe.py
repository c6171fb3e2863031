"""Recipes are checked to the last key before anything is trained."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from models.patches import PatchGrid
from models.purifier import Purifier
from trainer.data import FolderData
from trainer.errors import TrainerError
from trainer.own_recipe import OwnRecipe
from trainer.recipe import Recipe, RecipeError, check_recipe, read_recipe, shipped_recipes

Change = Callable[[str, str], str]


@pytest.fixture
def change(recipe_file: Path) -> Change:
    """Writes the toy recipe with one change; gives the file's name back."""

    def write(right: str, wrong: str) -> str:
        text = recipe_file.read_text()
        assert right in text
        recipe_file.write_text(text.replace(right, wrong, 1))
        return str(recipe_file)

    return write


@pytest.mark.parametrize("name", shipped_recipes())
def test_every_shipped_recipe_describes_networks_that_can_be_built(name: str) -> None:
    recipe = read_recipe(name)
    size = recipe.preprocessing.height

    with torch.device("meta"):
        images = torch.zeros(2, 3, size, size)
        for network in (recipe.classifier, recipe.surrogate):
            if network:
                assert network.build(10)(images).shape == (2, 10)
        for config in recipe.pool.training.purifiers.values():
            assert Purifier(config)(images).shape == images.shape


def test_the_recipes_that_the_docs_promise_are_shipped() -> None:
    assert set(shipped_recipes()) == {"cifar10-resnet18", "cifar10-wrn28-10", "imagenet-resnet50"}


@pytest.mark.parametrize("name", shipped_recipes())
def test_every_shipped_recipe_trains_the_twelve_purifiers_of_the_paper(name: str) -> None:
    training = read_recipe(name).pool.training

    assert sorted(attack.kind for attack in training.attacks.values()) == ["bim", "fgsm", "pgd"]
    assert sorted((one.encoder.kind, one.encoder.features) for one in training.purifiers.values()) == [
        ("edsr", 32),
        ("edsr", 64),
        ("rcan", 32),
        ("rcan", 64),
    ]


def test_the_surrogate_of_the_embedded_bundle_is_another_network() -> None:
    recipe = read_recipe("cifar10-resnet18")

    assert recipe.surrogate
    assert recipe.surrogate.architecture != recipe.classifier.architecture


def test_a_recipe_is_read_from_any_file(recipe_file: Path) -> None:
    assert read_recipe(str(recipe_file)).name == "toy"


def test_a_recipe_survives_the_manifest(recipe_file: Path) -> None:
    recipe = read_recipe(str(recipe_file))

    assert Recipe.model_validate(recipe.model_dump(mode="json")) == recipe


def test_an_unknown_recipe_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(RecipeError, match=r"no-such-recipe.*cifar10-resnet18"):
        read_recipe("no-such-recipe")


def test_a_folder_is_no_recipe(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="shipped recipes are"):
        read_recipe(str(tmp_path))


@pytest.mark.parametrize("content", [b"name = ", b"\xff\xfe"], ids=["cut", "bytes"])
def test_a_file_that_is_no_toml_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.toml"
    path.write_bytes(content)

    with pytest.raises(RecipeError, match=r"broken\.toml: not TOML"):
        read_recipe(str(path))


@pytest.mark.parametrize(
    ("right", "wrong", "where"),
    [
        ("halo = 1", "hallo = 1", r"pool\.hallo"),
        ("crop = 8", "krop = 8", r"pool\.training\.krop"),
        ("crop = 8", "crop = 20", r"pool\.training\.crop is 20, but images have 12"),
        ("step_size", "stepsize", r"pool\.training\.attacks\.pgd\.stepsize"),
        ("batch_size = 4, phases", "batchsize = 4, phases", r"classifier\.training\.batchsize"),
        ("training = { batch", "training = { warmup = 2.0, batch", r"classifier\.training\.warmup"),
        ("training = { batch", "training = { padding = 12, batch", r"classifier\.training\.padding is not below"),
        ("phases = [{ epochs = 1, resolution = 12 }]", "phases = []", r"surrogate\.training\.phases"),
        ("features = 4, blocks", "feature = 4, blocks", r"pool\.training\.purifiers\.edsr.*feature"),
        ('kind = "edsr"', 'kind = "edsir"', r"pool\.training\.purifiers\.edsr.*'edsir'"),
        ('kind = "resnet", width = 8', 'kind = "exported", width = 8', r"classifier\.architecture\.exported\.width"),
        ('kind = "resnet", width = 8, blocks = [1, 1, 1, 1]', 'kind = "exported"', "cannot be trained here"),
        ('kind = "resnet", width = 8, blocks = [1, 1, 1, 1]', 'kind = "torchvision", name = "resnet5"', "'resnet5'"),
        (
            'kind = "resnet", width = 8, blocks = [1, 1, 1, 1]',
            'kind = "torchvision", name = "googlenet"',
            r"classifier\.architecture\.torchvision\.name: .*googlenet has auxiliary heads .*export it as a program",
        ),
        ("fgsm = {", '"my attack" = {', r"pool\.training\.attacks\.my attack"),
        ("fgsm = {", '"../../x" = {', r"pool\.training\.attacks\.\.\./\.\./x"),
        ("edsr = {", '"e.dsr" = {', r"pool\.training\.purifiers\.e\.dsr"),
        ("epsilon = [4, 12]", "epsilon = [4, inf]", r"pool\.training\.attacks\.fgsm\.epsilon\.1"),
        ("epsilon = [4, 12]", "epsilon = [12, 4]", "a range is written low first"),
        ("grid = 2", "grid = 0", r"pool\.grid"),
        ("grid = 2", "grid = 13", r"pool\.grid is 13, but images have 12"),
        ("height = 12", "height = 13", "does not fit"),
        ("height = 12", "height = 10", "square"),
        ('kind = "folder"', 'kind = "floppy"', r"data.*'floppy'"),
        ('train = "train"', "", r"data\.folder\.train"),
        ('test = "test"', 'labels = ["blue", "red", "blue"]', r"data\.folder\.labels: .*same label: blue"),
        ('name = "toy"', 'name = "../toy"', "name"),
        ('name = "toy"', "", "name: Field required"),
        ("[pool]", "[pool]\nselection = { keep = 5 }", r"selection\.keep is 5, but only 4 purifiers are trained"),
        ("[pool]", "[pool]\nselection = { keep = 1 }", r"pool\.selection\.keep"),
        ("crop = 8", "guidance = { weight = 1, images = 3 }", r"guidance\.images: 3 of each sort, but clean is 2"),
        ("crop = 8", "guidance = { weight = 1, images = 0 }", r"pool\.training\.guidance\.images"),
    ],
)
def test_a_mistake_is_told_by_file_and_key(change: Change, right: str, wrong: str, where: str) -> None:
    with pytest.raises(RecipeError, match=rf"toy\.toml: .*{where}"):
        read_recipe(change(right, wrong))


def test_every_mistake_is_told_at_once(change: Change) -> None:
    change("halo = 1", "hallo = 1")

    with pytest.raises(RecipeError, match=r"pool\.halo: Field required.*pool\.hallo: .*pool\.grid|pool\.grid.*hallo"):
        read_recipe(change("grid = 2", "grid = 0"))


def test_purifiers_learn_on_crops_of_the_side_of_a_served_window(change: Change) -> None:
    recipe = read_recipe(change("crop = 8", ""))

    side = recipe.preprocessing.height
    assert recipe.pool_training.crop == PatchGrid(side, side, 2, 1).rows.window == 7


def test_a_crop_that_is_named_is_kept(recipe_file: Path) -> None:
    assert read_recipe(str(recipe_file)).pool_training.crop == 8


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("pool.training.steps=7", 7),
        ("pool.training.peak_learning_rate=2e-4", 2e-4),
        ("pool.training.attacks.fgsm.epsilon=[1, 2]", [1, 2]),
        ("pool.selection={ keep = 3, most_lost = 0.5 }", {"keep": 3, "most_lost": 0.5}),
        ("pool.selection.keep=3", 3),
        ('name="mine"', "mine"),
        ("name=mine", "mine"),
        ("data.train=some folder/of mine", "some folder/of mine"),
        ("data.train=a=b", "a=b"),
    ],
)
def test_a_setting_goes_over_what_the_recipe_says(recipe_file: Path, setting: str, expected: object) -> None:
    found: object = read_recipe(str(recipe_file), [setting]).model_dump(mode="json")

    for key in setting.partition("=")[0].split("."):
        assert isinstance(found, dict)
        found = found[key]
    assert found == expected


def test_a_setting_without_a_value_takes_the_key_out(recipe_file: Path) -> None:
    assert read_recipe("cifar10-resnet18").pool.training.guidance
    assert read_recipe("cifar10-resnet18", ["pool.training.guidance="]).pool.training.guidance is None
    assert read_recipe(str(recipe_file), ["pool.training.guidance="]) == read_recipe(str(recipe_file))


@pytest.mark.parametrize("setting", ["pool.selection.keep=", "no.such.section="])
def test_a_setting_that_takes_out_of_a_section_that_is_not_there_changes_nothing(
    recipe_file: Path, setting: str
) -> None:
    assert read_recipe(str(recipe_file), [setting]) == read_recipe(str(recipe_file))


def test_of_two_settings_of_one_key_the_last_holds(recipe_file: Path) -> None:
    assert read_recipe(str(recipe_file), ["pool.grid=3", "pool.grid=4"]).pool.grid == 4


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("pool.grid", r"--set pool\.grid: not of the form key\.key=value"),
        ("=3", "--set =3: not of the form"),
        ("pool..grid=3", r"--set pool\.\.grid=3: not of the form"),
        ("name.first=3", "--set name.first=3: name is not a section"),
        ("name.first=", "--set name.first=: name is not a section"),
        ("pool.grit=3", r"toy\.toml: pool\.grit"),
        ("pool.grid=three", r"toy\.toml: pool\.grid"),
    ],
)
def test_a_setting_that_makes_no_sense_is_told(recipe_file: Path, setting: str, told: str) -> None:
    with pytest.raises(RecipeError, match=told):
        read_recipe(str(recipe_file), [setting])


OWN = {
    "small": OwnRecipe("mine", Path("train"), Path("test"), 32),
    "large": OwnRecipe("mine", Path("train"), Path("test"), 224),
    "trained by name": OwnRecipe("mine", Path("train"), Path("test"), 64, architecture="squeezenet1_1"),
    "small weights": OwnRecipe("mine", Path("train"), Path("test"), 32, Path("mine.pt"), "squeezenet1_1"),
    "large weights": OwnRecipe("mine", Path("train"), Path("test"), 224, Path("mine.safetensors"), "resnet50"),
    "program": OwnRecipe("mine", Path("train"), Path("test"), 64, Path("mine.pt2")),
    "program of another name": OwnRecipe("mine", Path("train"), Path("test"), 64, Path("mine.bin"), "exported"),
    "awkward names": OwnRecipe("mine", Path('t"r\\a in'), Path("té/st"), 64, Path("m'i ne.pt2")),
}


def read_text(text: str, tmp_path: Path) -> Recipe:
    path = tmp_path / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return read_recipe(str(path))


@pytest.mark.parametrize("own", OWN.values(), ids=OWN)
def test_a_users_own_recipe_is_valid_and_holds_what_they_have(own: OwnRecipe, tmp_path: Path) -> None:
    recipe = read_text(own.text(), tmp_path)

    assert recipe.name == "mine"
    assert recipe.data == FolderData(kind="folder", train=own.train, test=own.test)
    assert recipe.preprocessing.height == recipe.preprocessing.width == own.size
    assert recipe.classifier.weights == own.weights
    assert (recipe.classifier.training is None) == (own.weights is not None)
    assert len(recipe.pool.training.attacks) * len(recipe.pool.training.purifiers) == 12


@pytest.mark.parametrize(("own", "resize"), [("small", 32), ("large", 256)])
def test_large_images_are_scaled_larger_than_their_crop_as_the_field_does(
    own: str, resize: int, tmp_path: Path
) -> None:
    assert read_text(OWN[own].text(), tmp_path).preprocessing.resize == resize


@pytest.mark.parametrize(("own", "pool"), [("small", "cifar10-resnet18"), ("large", "imagenet-resnet50")])
def test_the_pool_is_the_shipped_one_for_images_of_that_size(own: str, pool: str, tmp_path: Path) -> None:
    shipped = read_recipe(pool).pool
    assert read_text(OWN[own].text(), tmp_path).pool == shipped.model_copy(update={"seed": OWN[own].pool_seed})


def test_each_recipe_has_a_seed_of_its_own_for_the_pool(tmp_path: Path) -> None:
    recipes = [OwnRecipe("mine", Path("a"), Path("b"), 64) for _ in range(3)]

    assert len({read_text(one.text(), tmp_path).pool.seed for one in recipes}) == 3


def test_a_classifier_that_is_trained_has_a_surrogate_of_another_seed(tmp_path: Path) -> None:
    recipe = read_text(OWN["small"].text(), tmp_path)

    assert recipe.surrogate
    assert recipe.surrogate.seed != recipe.classifier.seed


@pytest.mark.parametrize(
    ("own", "told"),
    [
        (OwnRecipe("mine", Path("a"), Path("b"), 64, Path("mine.pt")), "say which network"),
        (OwnRecipe("mine", Path("a"), Path("b"), 64, Path("mine.pt"), "resnet5"), "resnet5: neither"),
        (OwnRecipe("mine", Path("a"), Path("b"), 64, None, "exported"), "name the program's file with --classifier"),
        (OwnRecipe("my recipe", Path("a"), Path("b"), 64), "my recipe: name"),
    ],
)
def test_what_makes_no_recipe_is_told(own: OwnRecipe, told: str) -> None:
    with pytest.raises(TrainerError, match=told):
        own.text()


def test_a_recipe_that_is_no_table_of_sections_is_told() -> None:
    with pytest.raises(RecipeError, match=r"here: .*pool"):
        check_recipe({"name": "toy", "pool": 3}, "here")
