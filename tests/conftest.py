"""A small real bundle: every part is real, only the widths are those of toys."""

from pathlib import Path

import pytest
import torch
from torch import nn

from models.bundle import Manifest
from models.bundle.manifest import FORMAT, Classifier, Normalization, Pool, PoolPurifier
from models.bundle.writer import write_manifest, write_weights
from models.classifiers import ResNetConfig
from models.decoder import DecoderConfig
from models.encoders import EDSRConfig, RCANConfig
from models.preprocessing import Preprocessing
from models.purifier import Purifier, PurifierConfig

LABELS = ("airplane", "bird", "cat", "deer")
CLASSIFIER = ResNetConfig(width=4, blocks=(1, 1, 1, 1))
DECODER = DecoderConfig(hidden=(8,))
PURIFIERS = {
    "fgsm-edsr": PurifierConfig(encoder=EDSRConfig(features=4, blocks=1), decoder=DECODER),
    "fgsm-rcan": PurifierConfig(encoder=RCANConfig(features=4, groups=1, blocks=1), decoder=DECODER),
    "pgd-edsr": PurifierConfig(encoder=EDSRConfig(features=8, blocks=1, unshuffle=2), decoder=DECODER),
    "pgd-rcan": PurifierConfig(encoder=RCANConfig(features=8, groups=1, blocks=1, unshuffle=2), decoder=DECODER),
}


def untrained_purifier(config: PurifierConfig) -> Purifier:
    """A purifier that changes images: a new one is the identity."""
    purifier = Purifier(config)
    correction = purifier.decoder.layers[-1]
    assert isinstance(correction, nn.Conv2d)
    nn.init.normal_(correction.weight, std=0.2)
    return purifier


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skips what needs a GPU where there is none."""
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("cuda"):
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture(scope="session")
def bundle_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of four purifiers and a classifier of four classes at 32x32; read it, do not change it."""
    folder = tmp_path_factory.mktemp("bundle")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        classifier = write_weights(folder, "classifier", CLASSIFIER.build(len(LABELS)))
        purifiers = tuple(
            PoolPurifier(
                name=name,
                attack=name.partition("-")[0],
                architecture=config,
                weights=write_weights(folder, name, untrained_purifier(config)),
            )
            for name, config in PURIFIERS.items()
        )
    manifest = Manifest(
        format=FORMAT,
        name="toy",
        version="1",
        labels=LABELS,
        preprocessing=Preprocessing(resize=32, height=32, width=32),
        classifier=Classifier(
            architecture=CLASSIFIER,
            classes=len(LABELS),
            normalization=Normalization(mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25)),
            weights=classifier,
        ),
        pool=Pool(grid=2, halo=2, purifiers=purifiers),
    )
    write_manifest(folder, manifest)
    return folder
