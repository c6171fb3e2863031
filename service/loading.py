"""From settings to an engine."""

from pathlib import Path

from models.bundle import read_bundle
from models.device import choose_placement
from service.engine import TorchEngine
from service.metrics import Metrics
from service.network_processes import BundleNetworks, NetworkProcesses
from service.networks import Networks
from service.randomness import choose_randomness, fresh
from service.settings import Settings
from service.workers import choose_workers


def load_engine(settings: Settings, metrics: Metrics) -> TorchEngine:
    """The bundle of the settings on their device, checked but not yet warmed up.

    Raises:
        models.bundle.BundleError: the bundle cannot be served.
        models.device.DeviceMissingError: the device does not exist.
        service.secret_file.SecretError: a secret cannot be read.
    """
    placement = choose_placement(settings.device, settings.precision)
    bundle = read_bundle(settings.bundle)
    workers = choose_workers(settings.workers, placement.device.type)
    networks: Networks | None = None
    if settings.networks == "processes":
        make = BundleNetworks(settings.bundle, bundle.manifest, settings.defense, placement, workers.threads)
        networks = NetworkProcesses(make, workers.count)
    return TorchEngine(
        bundle,
        settings.defense,
        placement,
        settings.max_batch,
        choose_randomness(settings),
        metrics,
        networks=networks,
        workers=workers,
        shadow=settings.shadow,
    )


def check_bundle(folder: Path) -> TorchEngine:
    """Reads a bundle and sends images through every purifier and the classifier, on the CPU, whatever the settings.

    Raises:
        models.bundle.BundleError: the bundle cannot be served.
        FloatingPointError, RuntimeError: its networks fail.
    """
    engine = TorchEngine(
        read_bundle(folder),
        defense="puridefense",
        placement=choose_placement("cpu", "float32"),
        max_batch=1,
        randomness=fresh,
        metrics=Metrics(),
    )
    engine.warm_up()
    return engine
