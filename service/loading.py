"""From settings to an engine."""

from pathlib import Path

from models.bundle import Bundle, read_bundle
from models.device import choose_placement
from models.inference.preparation import require_precision
from service.engine import TorchEngine
from service.exposure import warn_of_public_bundle
from service.metrics import Metrics
from service.network_processes import BundleNetworks, network_processes
from service.networks import LocalNetworks, Networks
from service.randomness import choose_randomness, fresh
from service.settings import Settings
from service.shared_networks import shared_networks
from service.workers import Workers, choose_workers


def load_engine(settings: Settings, metrics: Metrics) -> TorchEngine:
    """The bundle of the settings on their device, checked but not yet warmed up; warns where its purifiers are public.

    Raises:
        models.bundle.BundleError: the bundle cannot be served.
        models.device.PlacementError: the device does not exist, or cannot compute in the precision.
        service.network_calls.NetworksEndedError: nobody holds the networks that are to be shared.
        service.secret_file.SecretError: a secret cannot be read.
    """
    bundle = read_bundle(settings.bundle)
    randomness = choose_randomness(settings)
    warn_of_public_bundle(settings, bundle.manifest)
    networks, workers = _networks(settings, bundle)  # from here on nothing fails, and would leave them behind
    return TorchEngine(
        bundle,
        settings.defense,
        networks,
        settings.max_batch,
        randomness,
        metrics,
        workers=workers,
        shadow=settings.shadow,
    )


def _networks(settings: Settings, bundle: Bundle) -> tuple[Networks, Workers]:
    """The networks of a bundle, where the settings want them, and who will ask them."""
    if settings.networks_socket:
        return shared_networks(settings.networks_socket, bundle.manifest, settings.defense), choose_workers(1, "cpu")
    placement = choose_placement(settings.device, settings.precision)
    require_precision(bundle.classifier, placement.precision)  # before others begin, to say it at once
    workers = choose_workers(settings.workers, placement.device.type)
    if settings.networks == "processes":
        make = BundleNetworks(settings.bundle, bundle.manifest, settings.defense, placement, workers.threads)
        return network_processes(make, workers.count, placement), workers
    return LocalNetworks(bundle, settings.defense, placement), workers


def check_bundle(folder: Path) -> TorchEngine:
    """Reads a bundle and sends images through every purifier and the classifier, on the CPU, whatever the settings.

    Raises:
        models.bundle.BundleError: the bundle cannot be served.
        FloatingPointError, RuntimeError: its networks fail.
    """
    bundle = read_bundle(folder)
    engine = TorchEngine(
        bundle,
        defense="puridefense",
        networks=LocalNetworks(bundle, "puridefense", choose_placement("cpu", "float32")),
        max_batch=1,
        randomness=fresh,
        metrics=Metrics(),
    )
    engine.warm_up()
    return engine
