"""Where a deployment's randomness comes from; nothing that a client sends can choose or reset it."""

import hashlib
import hmac
import os
from collections.abc import Sequence
from typing import Protocol

from models.preprocessing import Pixels
from service.secret_file import read_secret
from service.settings import MIN_SECRET_LENGTH, Settings

PURPOSE = b"purigate sticky draw 1"
SIDE_BYTES = 4
TURN_BYTES = 4


class Randomness(Protocol):
    """Gives uniform bytes for the draws of a batch."""

    def __call__(self, images: Sequence[Pixels], count: int, turn: int) -> bytes:
        """`count` bytes for each of `images`, in order; `turn` numbers the calls for one batch."""


def fresh(images: Sequence[Pixels], count: int, turn: int) -> bytes:  # noqa: ARG001 - it depends on neither
    """Bytes from the operating system's cryptographic generator: every query draws anew."""
    return os.urandom(len(images) * count)


class Sticky:
    """Bytes that are a keyed hash of the image: the very same pixels always draw the same.

    Asking again about one image then tells nothing new, so its draws cannot be averaged out. One changed bit draws
    anew. Without the secret the draws can neither be told nor chosen.

    Args:
        secret: shared by all replicas, and by nobody else.
    """

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def __call__(self, images: Sequence[Pixels], count: int, turn: int) -> bytes:
        """`count` bytes for each of `images`: `(height, width, 3)` uint8, as the classifier takes them."""
        return b"".join(self._bytes(image, count, turn) for image in images)

    def _bytes(self, image: Pixels, count: int, turn: int) -> bytes:
        shape = b"".join(side.to_bytes(SIDE_BYTES) for side in image.shape[:2])
        seed = hmac.digest(self._secret, PURPOSE + shape + image.tobytes(), "sha256")
        return hashlib.shake_256(seed + turn.to_bytes(TURN_BYTES)).digest(count)


def choose_randomness(settings: Settings) -> Randomness:
    """What the settings ask for.

    Raises:
        service.secret_file.SecretError: the file of the secret cannot be read, or holds too little.
    """
    if settings.randomness == "fresh":
        return fresh
    if settings.sticky_secret:
        return Sticky(settings.sticky_secret.get_secret_value().encode())
    assert settings.sticky_secret_file
    return Sticky(read_secret(settings.sticky_secret_file, MIN_SECRET_LENGTH))
