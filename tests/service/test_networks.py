"""The networks in this process, closed: whoever asked them may be kept for long, as after a reload, but not they."""

import gc
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from models.bundle import read_bundle
from models.device import Placement
from service.engine import TorchEngine
from service.lane import Lane
from service.metrics import Metrics
from service.networks import LocalNetworks
from service.randomness import fresh
from service.settings import Settings

PLACEMENT = Placement(torch.device("cpu"), "bfloat16")


def weights() -> int:
    """How many there are in this process."""
    gc.collect()
    return sum(type(one) is nn.Parameter for one in gc.get_objects())


async def test_a_lane_that_was_closed_keeps_no_more_weights_than_those_it_drew_for(bundle_folder: Path) -> None:
    settings, metrics = Settings(), Metrics()
    bundle = read_bundle(bundle_folder)
    drawn_for = sum(1 for purifier in bundle.purifiers.values() for _ in purifier.parameters())
    del bundle
    before = weights()
    bundle = read_bundle(bundle_folder)
    networks = LocalNetworks(bundle, "puridefense", PLACEMENT)
    engine = TorchEngine(bundle, "puridefense", networks, settings.max_batch, fresh, metrics)
    del bundle
    assert weights() > before + drawn_for
    lane = Lane(settings, engine, metrics, lambda _lane, _health: None)
    lane.start()

    await lane.close(1)

    assert weights() == before + drawn_for


def test_closed_networks_answer_nobody(bundle_folder: Path) -> None:
    networks = LocalNetworks(read_bundle(bundle_folder), "puridefense", PLACEMENT)
    networks.close()
    networks.close()
    with pytest.raises(RuntimeError, match="closed"):
        networks.infer([np.zeros((32, 32, 3), np.uint8)], None)
