"""Two classes that a tiny network can tell apart, as tensors and as an ImageFolder tree, and a recipe for them.

Networks have 8 channels at least: with fewer before a 1x1 convolution of stride 2, torch 2.15 writes past its memory in
float32 gradients of the weights on a CPU without AVX-512.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from PIL import Image
from torch import nn
from torch.export import Dim, export, save

from trainer.images import LabeledImages

RECIPE = """
name = "toy"

[data]
kind = "folder"
train = "train"
test = "test"

[preprocessing]
resize = 12
height = 12
width = 12

[classifier]
seed = 0
architecture = { kind = "resnet", width = 8, blocks = [1, 1, 1, 1] }
normalization = { mean = [0.5, 0.5, 0.5], std = [0.25, 0.25, 0.25] }
training = { batch_size = 4, phases = [{ epochs = 1, resolution = 8 }, { epochs = 1, resolution = 12 }] }

[surrogate]
seed = 1
architecture = { kind = "resnet", width = 8, blocks = [1, 1, 1, 1] }
training = { batch_size = 4, phases = [{ epochs = 1, resolution = 12 }] }

[pool]
seed = 100
grid = 2
halo = 1

[pool.training]
steps = 2
adversarial = 4
clean = 2
crop = 8

[pool.training.attacks]
fgsm = { kind = "fgsm", epsilon = [4, 12] }
pgd = { kind = "pgd", epsilon = [4, 12], steps = [1, 2], step_size = [0.3, 0.6] }

[pool.training.purifiers]
edsr = { encoder = { kind = "edsr", features = 4, blocks = 1 }, decoder = { hidden = [4] } }
rcan = { encoder = { kind = "rcan", features = 4, groups = 1, blocks = 1 }, decoder = { hidden = [4] } }
"""


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Adds up on one thread: more would add in another order, and these networks are too small to share."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def _seeded_weights() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@pytest.fixture(scope="session")
def fabric() -> Fabric:
    """One process on the CPU, in full precision."""
    opened = Fabric(accelerator="cpu", devices=1, precision="32-true")
    opened.launch()
    return opened


@pytest.fixture(scope="session")
def two_colors() -> LabeledImages:
    """64 noisy images of 12x12 pixels, every other one red, the rest blue."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(64) % 2
    color = torch.tensor([[180, 90, 60], [60, 90, 180]])[labels].view(-1, 3, 1, 1)
    noise = torch.randint(-40, 41, (64, 3, 12, 12), generator=generator)
    return LabeledImages((color + noise).to(torch.uint8), labels, ("red", "blue"))


@pytest.fixture(scope="session")
def write_tree() -> Callable[[Path, int, int], Path]:
    """Writes an ImageFolder tree of two classes into a folder: so many PNGs for each class, from a seed."""

    def write(root: Path, images: int, seed: int) -> Path:
        generator = np.random.default_rng(seed)
        for name, color in (("blue", (60, 90, 180)), ("red", (180, 90, 60))):
            folder = root / name
            folder.mkdir(parents=True)
            for index in range(images):
                pixels = generator.integers(-40, 41, (12, 12, 3)) + color
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{index}.png")
        return root

    return write


@pytest.fixture(scope="session")
def write_program() -> Callable[[nn.Module, Path, int], Path]:
    """Exports a network for images of so many pixels a side and any number of them; gives the path back."""

    def write(network: nn.Module, path: Path, side: int) -> Path:
        images = torch.rand(2, 3, side, side)
        program = export(network.eval(), (images,), dynamic_shapes=({0: Dim("batch", min=1, max=1024)},))
        save(program, path)
        return path

    return write


@pytest.fixture(scope="session")
def toy_recipe() -> str:
    """A recipe that takes a second: two attacks, two purifiers, images of 12x12."""
    return RECIPE


@pytest.fixture
def recipe_file(tmp_path: Path, toy_recipe: str) -> Path:
    """The toy recipe in a file that a test may change."""
    path = tmp_path / "toy.toml"
    path.write_text(toy_recipe)
    return path
