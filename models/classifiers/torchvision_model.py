"""Any classifier of torchvision by its name, with the weights of a local file.

Importing torchvision takes as long as all the rest of a start, so only those who use it pay for it.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, field_validator
from torch import nn

WITH_AUXILIARY_HEADS = ("googlenet", "inception_v3")
"""They give several tensors in training, and torchvision's weights of them expect a normalization of their own."""


class TorchvisionConfig(BaseModel):
    """A torchvision classifier.

    Attributes:
        name: as `torchvision.models.list_models` has it, `resnet50` for one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["torchvision"] = "torchvision"
    name: str

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in classifiers():
            raise ValueError(f"torchvision has no classifier called {name!r}")
        if name in WITH_AUXILIARY_HEADS:
            raise ValueError(f"{name} has auxiliary heads and scales its input itself: export it as a program instead")
        return name

    def build(self, classes: int) -> nn.Module:
        """An untrained network with one logit for each of `classes`."""
        from torchvision.models import get_model  # noqa: PLC0415

        network: nn.Module = get_model(self.name, weights=None, num_classes=classes)
        return network


def classifiers() -> list[str]:
    """The names of torchvision's classifiers of single images."""
    import torchvision.models  # noqa: PLC0415

    names: list[str] = torchvision.models.list_models(module=torchvision.models)
    return names
