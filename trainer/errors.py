"""What can go wrong in a training, told in one line."""


def first_line(error: Exception) -> str:
    """What an error says, in one line, for a message of ours; its type where it says nothing."""
    return next(iter(str(error).splitlines()), type(error).__name__)


class TrainerError(Exception):
    """A training cannot begin, go on or be used; the message says why."""


class CheckpointError(TrainerError):
    """A checkpoint cannot be written, read, or belongs to another training."""


class DataError(TrainerError):
    """Images cannot be had, are damaged, or are not of the classes that were named."""


class DeviceError(TrainerError):
    """The device, the number of processes or the precision cannot be had."""


class DivergedError(TrainerError):
    """A loss or a weight is no longer a number; the last checkpoint is from before."""


class TooFewImagesError(TrainerError):
    """There are fewer images than one batch takes."""


class FirstProcessError(TrainerError):
    """The first of several processes cannot go on; it says why."""


class NetworkError(TrainerError):
    """A user's own network cannot be read, or is not what the recipe says."""


class RunError(TrainerError):
    """A step of a run cannot be taken; the message says what has to come before or differs."""


class SelectionError(TrainerError):
    """No pool of the size that was asked for can be chosen out of what was trained."""
