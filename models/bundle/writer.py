"""Writes a bundle: weights first, the manifest last, so that a half-written folder is never mistaken for a bundle."""

import hashlib
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

from models.bundle.manifest import MANIFEST_FILE, Manifest, WeightsFile


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


def _replace(path: Path, content: bytes) -> None:
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(content)
    partial.replace(path)
