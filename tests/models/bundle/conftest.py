"""A bundle that a test may damage."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from models.bundle.writer import write_file

EditManifest = Callable[[Callable[[dict[str, Any]], object]], None]
ReplaceWeights = Callable[[str, bytes], None]


@pytest.fixture
def bundle_copy(bundle_folder: Path, tmp_path: Path) -> Path:
    """A copy of the toy bundle, to be damaged."""
    folder = tmp_path / "bundle"
    shutil.copytree(bundle_folder, folder)
    return folder


@pytest.fixture
def edit_manifest(bundle_copy: Path) -> EditManifest:
    """Changes the manifest of `bundle_copy` in place, as JSON."""

    def edit(change: Callable[[dict[str, Any]], object]) -> None:
        path = bundle_copy / "bundle.json"
        manifest = json.loads(path.read_bytes())
        change(manifest)
        path.write_text(json.dumps(manifest))

    return edit


@pytest.fixture
def replace_weights(bundle_copy: Path, edit_manifest: EditManifest) -> ReplaceWeights:
    """Writes other weights into `bundle_copy`, for `classifier` or a purifier, with the manifest that fits them."""

    def replace(owner: str, content: bytes) -> None:
        weights = write_file(bundle_copy, f"{owner}.safetensors", content).model_dump()

        def change(manifest: dict[str, Any]) -> None:
            owners = {purifier["name"]: purifier for purifier in manifest["pool"]["purifiers"]}
            {**owners, "classifier": manifest["classifier"]}[owner]["weights"] = weights

        edit_manifest(change)

    return replace
