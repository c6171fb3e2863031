"""Writes a bundle: weights first, the manifest last, so that a half-written folder is never mistaken for a bundle."""

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

from models.bundle.manifest import MANIFEST_FILE, Manifest, WeightsFile


@contextmanager
def staged(output: Path) -> Iterator[Path]:
    """An empty folder beside `output` to write a bundle in; it takes the place of `output` when the block ends well.

    Until then, and if anything fails, what lies in `output` stays as it is. Afterwards nothing of it is left.

    Raises:
        OSError: the folder cannot be made or moved.
    """
    output = output.resolve()  # of a link, the folder that it names is replaced
    partial = output.with_name(f".{output.name}.partial")
    if partial.exists():
        shutil.rmtree(partial)
    partial.mkdir(parents=True)
    try:
        yield partial
        _exchange(partial, output)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def write_weights(folder: Path, name: str, network: nn.Module) -> WeightsFile:
    """Writes the weights of `network` to `folder/name.safetensors`.

    Matrices and kernels are stored as float16, which halves a bundle and costs no accuracy that we could measure;
    biases and the statistics of batch norms stay float32.
    """
    tensors = {key: _compact(tensor) for key, tensor in network.state_dict().items()}
    return write_file(folder, f"{name}.safetensors", safetensors.torch.save(tensors))


def write_file(folder: Path, name: str, content: bytes) -> WeightsFile:
    """Writes one file of a bundle and says what the manifest has to say of it."""
    folder.mkdir(parents=True, exist_ok=True)
    _replace(folder / name, content)
    return WeightsFile(file=name, sha256=hashlib.sha256(content).hexdigest(), size=len(content))


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Writes `folder/bundle.json`, which makes the folder a bundle."""
    _replace(folder / MANIFEST_FILE, (manifest.model_dump_json(indent=2) + "\n").encode())


def _compact(tensor: Tensor) -> Tensor:
    dtype = torch.float16 if tensor.is_floating_point() and tensor.ndim > 1 else tensor.dtype
    return tensor.detach().to("cpu", dtype).contiguous()


def _exchange(new: Path, output: Path) -> None:
    """Moves `new` to `output`; what was there goes, or comes back if that fails."""
    old = output.with_name(f".{output.name}.old")
    try:
        if output.exists():
            if old.exists():
                shutil.rmtree(old)
            output.rename(old)
        new.rename(output)
    except BaseException:
        if old.exists() and not output.exists():
            old.rename(output)
        raise
    shutil.rmtree(old, ignore_errors=True)  # the new bundle is in its place; the next one clears away what is left


def _replace(path: Path, content: bytes) -> None:
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(content)
    partial.replace(path)
