"""Classifiers: the networks that are defended, each configured by what is stored beside its weights."""

from typing import Annotated

from pydantic import Field

from models.classifiers.exported import ExportedConfig
from models.classifiers.resnet import ResNetConfig
from models.classifiers.torchvision_model import TorchvisionConfig
from models.classifiers.wide_resnet import WideResNetConfig

ClassifierConfig = Annotated[
    ResNetConfig | WideResNetConfig | TorchvisionConfig | ExportedConfig, Field(discriminator="kind")
]

__all__ = ["ClassifierConfig", "ExportedConfig", "ResNetConfig", "TorchvisionConfig", "WideResNetConfig"]
