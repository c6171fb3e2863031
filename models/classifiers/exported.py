"""A user's own classifier as a `torch.export` program: the graph and the weights in one file, no code to import.

PyTorch's loader unpickles some parts of such an archive: sample inputs, tensor subclasses, script and opaque objects.
None of them is needed to run a classifier, so `read_program` drops the sample inputs and refuses the others before
PyTorch sees the file. The graph itself is still a program: serve only a file whose origin you trust.
"""

import io
import json
import zipfile
from collections.abc import Iterator
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict
from torch import nn

SAMPLE_INPUTS = "data/sample_inputs/"
COMPILED_CODE = "data/aotinductor/"
PAYLOAD_CONFIGS = ("_weights_config.json", "_constants_config.json")
TENSOR_PREFIXES = ("weight_", "tensor_")


class UnsafeProgramError(Exception):
    """An exported program holds something that only unpickling or running foreign code could load."""


class ExportedConfig(BaseModel):
    """A classifier whose architecture is in its weights file: a `.pt2` archive of `torch.export.save`.

    The program takes `(N, 3, H, W)` floats with a dynamic N and gives `(N, classes)` logits.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["exported"] = "exported"


def read_program(archive: bytes) -> nn.Module:
    """The module in a `.pt2` archive, without unpickling anything.

    Raises:
        UnsafeProgramError: the archive holds compiled code, pickled weights or constants, or custom objects.
        zipfile.BadZipFile: it is no archive.
    """
    safe = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as original, zipfile.ZipFile(safe, "w") as copy:
        for entry in original.infolist():
            content = original.read(entry)
            inner = entry.filename.partition("/")[2]
            for reason in _objections(inner, content):
                raise UnsafeProgramError(f"{inner}: {reason}")
            copy.writestr(entry, b"" if inner.startswith(SAMPLE_INPUTS) else content)
    safe.seek(0)
    return torch.export.load(safe).module()


def _objections(name: str, content: bytes) -> Iterator[str]:
    if name.startswith(COMPILED_CODE):
        yield "compiled code is not loaded"
    elif name.endswith(".pt") and not name.startswith(SAMPLE_INPUTS):
        yield "weights are pickled; export again with a current PyTorch"
    elif name.endswith(PAYLOAD_CONFIGS):
        for tensor, payload in json.loads(content)["config"].items():
            if payload["use_pickle"] or not payload["path_name"].startswith(TENSOR_PREFIXES):
                yield f"{tensor} is pickled"
