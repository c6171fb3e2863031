"""What can be wrong with a bundle, each with its own name and a message that says where."""


class BundleError(Exception):
    """A bundle cannot be served; the message says which file and why."""


class ManifestMissingError(BundleError):
    """The folder has no `bundle.json`."""


class ManifestInvalidError(BundleError):
    """`bundle.json` is not JSON, or lacks or misspells something."""


class FormatTooNewError(BundleError):
    """The bundle was written for a newer Purigate."""


class UnknownArchitectureError(BundleError):
    """The manifest names a classifier or encoder that this version does not know."""


class WeightsMissingError(BundleError):
    """A weights file that the manifest names does not exist."""


class WeightsCorruptError(BundleError):
    """A weights file does not have the size or the SHA-256 of the manifest, or is not in its format."""


class WeightsMismatchError(BundleError):
    """Weights do not have the names and shapes of the architecture."""


class LabelsMismatchError(BundleError):
    """The classifier does not give one logit for each label."""


class ClassifierFailedError(BundleError):
    """The classifier fails on an image of the declared size."""
