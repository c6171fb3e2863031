"""What can go wrong in a training, told in one line."""


class TrainerError(Exception):
    """A training cannot begin, go on or be used; the message says why."""


class DivergedError(TrainerError):
    """The loss is no longer a number; the last checkpoint is from before."""


class TooFewImagesError(TrainerError):
    """There are fewer images than one batch takes."""


class RunError(TrainerError):
    """A step of a run cannot be taken; the message says what has to come before or differs."""
