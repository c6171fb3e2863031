"""A user's own classifier as a `torch.export` program: the graph and the weights in one file, no code to import.

PyTorch's loader unpickles some parts of such an archive: sample inputs, tensor subclasses, script and opaque objects.
None of them is needed to run a classifier, so `read_program` lets through only the files that `torch.export.save`
writes for a plain network, empties the sample inputs, and refuses all others before PyTorch sees the archive. Symbolic
sizes, which PyTorch evaluates, may hold nothing but arithmetic. What PyTorch's reader does beyond that is PyTorch's:
serve only a file whose origin you trust.
"""

import io
import json
import re
import zipfile
from collections.abc import Iterator
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, fx, nn
from torch.fx.node import Argument, map_aggregate

SAMPLE_INPUTS = "data/sample_inputs/"
COMPILED_CODE = "data/aotinductor/"
GRAPH = "models/model.json"
PAYLOAD_CONFIGS = frozenset({"data/weights/model_weights_config.json", "data/constants/model_constants_config.json"})
PAYLOAD = re.compile(r"(weight|tensor)_\d+")
ENTRY = re.compile(
    r"archive_format|archive_version|byteorder|\.data/(version|serialization_id)|models/model\.json|extra/.*"
    r"|data/weights/(model_weights_config\.json|weight_\d+)"
    r"|data/constants/(model_constants_config\.json|tensor_\d+)|data/sample_inputs/model\.pt"
)
"""The files that are let through, in their exact case: PyTorch finds a file whatever the case of its name."""
SIZE = re.compile(r"([A-Z]\w*\(|'[\w.+-]*'|[a-z_]+=(True|False|\d)|\d|[-+*/,() ])*")
"""A symbolic size: numbers, names and constructors. PyTorch hands it to sympy, which evaluates it as Python."""

CHECK = torch.ops.aten._assert_tensor_metadata.default  # noqa: SLF001 - the operator has no other name
WHEREABOUTS = "purigate_whereabouts"
RESHAPES = {
    torch.ops.aten.view.default: torch.ops.aten.reshape.default,
    torch.ops.aten.view_as.default: torch.ops.aten.reshape_as.default,
}


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

    It runs where its weights are moved to, under autocast and on channels-last images, however it was exported.

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
                raise UnsafeProgramError(f"{inner or entry.filename}: {reason}")
            copy.writestr(entry, b"" if inner.startswith(SAMPLE_INPUTS) else content)
    safe.seek(0)
    program = torch.export.load(safe).module()
    for module in program.modules():
        _take_constants_along(module)
        if isinstance(module, fx.GraphModule):
            _adapt(module)
    return program


def _take_constants_along(module: nn.Module) -> None:
    """Makes buffers of the tensors that a program holds beside its weights; they move with it then."""
    for name, constant in list(vars(module).items()):
        if isinstance(constant, Tensor):
            delattr(module, name)
            module.register_buffer(name, constant, persistent=False)


def _adapt(program: fx.GraphModule) -> None:
    """Frees a graph of the device, number format and memory format that it was exported with."""
    for node in list(program.graph.nodes):
        if node.target is CHECK:  # of the device and number format of a tensor, before each conversion
            program.graph.erase_node(node)
        # There is no view of a channels-last tensor with its channels and pixels in one. Of what is written through a
        # view there must be no copy: it is left to fail.
        elif node.target in RESHAPES and not _is_written(node):
            node.target = RESHAPES[node.target]
    _follow_device(program)
    program.recompile()


def _is_written(node: fx.Node) -> bool:
    """Whether something is written into a tensor, be it through views of it."""
    return any(_schema_of(user, "is_mutable") or (_is_view(user) and _is_written(user)) for user in node.users)


def _is_view(node: fx.Node) -> bool:
    return any(one.alias_info is not None for one in _schema_of(node, "returns") or ())


def _schema_of(node: fx.Node, name: str) -> Any:
    return getattr(getattr(node.target, "_schema", None), name, None)


def _follow_device(program: fx.GraphModule) -> None:
    """Creates tensors where the program was moved to, not on a fixed device: where a buffer of it is."""
    graph = program.graph
    program.register_buffer(WHEREABOUTS, torch.empty(0), persistent=False)
    with graph.inserting_before(next(node for node in graph.nodes if node.op != "placeholder")):
        here = graph.get_attr(WHEREABOUTS)
        device = graph.call_function(getattr, (here, "device"))

    def followed(value: Argument) -> Argument:
        return device if isinstance(value, torch.device) else value

    for node in graph.nodes:
        node.args = map_aggregate(node.args, followed)
        node.kwargs = map_aggregate(node.kwargs, followed)
    if not device.users:
        graph.erase_node(device)
        graph.erase_node(here)
        delattr(program, WHEREABOUTS)


def _objections(name: str, content: bytes) -> Iterator[str]:
    if name.startswith(COMPILED_CODE):
        yield "compiled code is not loaded"
    elif not ENTRY.fullmatch(name):
        yield "not a file that a current torch.export.save writes; what is pickled is not loaded"
    elif name in PAYLOAD_CONFIGS:
        for tensor, payload in json.loads(content)["config"].items():
            if payload["use_pickle"] or not PAYLOAD.fullmatch(payload["path_name"]):
                yield f"{tensor} is pickled"
    elif name == GRAPH:
        yield from (f"{size!r} is not a size" for size in _sizes(json.loads(content)) if not SIZE.fullmatch(size))


def _sizes(node: object) -> Iterator[str]:
    """Every symbolic size of a graph."""
    if isinstance(node, dict):
        if "expr_str" in node:
            yield str(node["expr_str"])
        for value in node.values():
            yield from _sizes(value)
    elif isinstance(node, list):
        for value in node:
            yield from _sizes(value)
