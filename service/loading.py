"""From settings to an engine."""

import structlog

from models.bundle import read_bundle
from service.engine import TorchEngine, choose_device, choose_precision
from service.metrics import Metrics
from service.randomness import system_randomness
from service.settings import Settings

log = structlog.get_logger()


def load_engine(settings: Settings, metrics: Metrics) -> TorchEngine:
    """The bundle of the settings on their device, checked but not yet warmed up.

    Raises:
        models.bundle.BundleError: the bundle cannot be served.
        ValueError: the device does not exist.
    """
    device = choose_device(settings.device)
    precision = choose_precision(settings.precision, device)
    bundle = read_bundle(settings.bundle)
    log.info("bundle_read", bundle=bundle.manifest.name, version=bundle.manifest.version, device=str(device))
    return TorchEngine(bundle, settings.defense, device, precision, settings.max_batch, system_randomness, metrics)
