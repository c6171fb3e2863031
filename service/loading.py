"""From settings to an engine."""

from models.bundle import read_bundle
from service.engine import TorchEngine, choose_device, choose_precision
from service.metrics import Metrics
from service.randomness import system_randomness
from service.settings import Settings


def load_engine(settings: Settings, metrics: Metrics) -> TorchEngine:
    """The bundle of the settings on their device, checked but not yet warmed up.

    Raises:
        models.bundle.BundleError: the bundle cannot be served.
        DeviceMissingError: the device does not exist.
    """
    device = choose_device(settings.device)
    precision = choose_precision(settings.precision, device)
    bundle = read_bundle(settings.bundle)
    return TorchEngine(bundle, settings.defense, device, precision, settings.max_batch, system_randomness, metrics)
