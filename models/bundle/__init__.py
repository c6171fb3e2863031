"""Bundles: folders that hold everything one deployment serves."""

from models.bundle.errors import BundleError
from models.bundle.manifest import Manifest, read_manifest
from models.bundle.reader import Bundle, read_bundle

__all__ = ["Bundle", "BundleError", "Manifest", "read_bundle", "read_manifest"]
