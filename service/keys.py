"""API keys: who may ask. The file holds only hashes, so reading it gives no key away."""

import hashlib
import hmac
import secrets
from pathlib import Path
from typing import Annotated

from limits import RateLimitItem, parse_many
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from service.errors import UnauthenticatedError
from service.schemas import Output

KEY_PREFIX = "pg_"
KEY_BYTES = 32


class KeysFileError(Exception):
    """The file of keys cannot be read; the message says why."""


class Key(BaseModel):
    """One key of a keys file.

    Attributes:
        id: its name in logs and metrics; never the key.
        sha256: of the key. Keys are 256 random bits, so a fast hash cannot be searched.
        output: what of the scores its holder is told.
        quota: images it may ask about, such as `600/minute; 50000/day`; without one, any number.
        admin: whether it may reload the service.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    output: Output = "scores"
    quota: str | None = None
    admin: bool = False

    @field_validator("quota")
    @classmethod
    def _parses(cls, quota: str | None) -> str | None:
        if quota is not None:
            parse_quota(quota)
        return quota

    @property
    def limits(self) -> tuple[RateLimitItem, ...]:
        """The windows of the quota, shortest first; none if there is no quota."""
        return parse_quota(self.quota) if self.quota is not None else ()


class KeysFile(BaseModel):
    """The contents of a keys file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    keys: tuple[Key, ...] = ()

    @field_validator("keys")
    @classmethod
    def _distinct(cls, keys: tuple[Key, ...]) -> tuple[Key, ...]:
        names = [key.id for key in keys]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two keys have the same id: {', '.join(twice)}")
        return keys

    @classmethod
    def read(cls, path: Path) -> "KeysFile":
        """Reads a keys file.

        Raises:
            KeysFileError: it is missing or malformed.
        """
        try:
            return cls.model_validate_json(path.read_bytes())
        except OSError as error:
            raise KeysFileError(f"{path}: {error.strerror}") from error
        except ValidationError as error:
            reasons = "; ".join(": ".join([*map(str, one["loc"]), one["msg"]]) for one in error.errors())
            raise KeysFileError(f"{path}: not a keys file: {reasons}") from None

    def issue(
        self, name: str, *, output: Output = "scores", quota: str | None = None, admin: bool = False
    ) -> tuple["KeysFile", str]:
        """A keys file with one more key, and that key itself, which is nowhere else.

        Raises:
            KeysFileError: `name` is taken, or not a plain name; `quota` is not one.
        """
        if any(key.id == name for key in self.keys):
            raise KeysFileError(f"a key is already called {name!r}")
        secret = KEY_PREFIX + secrets.token_urlsafe(KEY_BYTES)
        try:
            key = Key(id=name, sha256=digest(secret), output=output, quota=quota, admin=admin)
        except ValidationError as error:
            if any(one["loc"] == ("quota",) for one in error.errors()):
                raise KeysFileError(f"{quota!r} is no quota: write '600/minute; 50000/day'") from error
            raise KeysFileError(f"{name!r} is no plain name: use letters, digits, '.', '_' and '-'") from error
        return KeysFile(keys=(*self.keys, key)), secret

    def revoke(self, name: str) -> "KeysFile":
        """A keys file without the key called `name`.

        Raises:
            KeysFileError: no key has that name.
        """
        kept = tuple(key for key in self.keys if key.id != name)
        if len(kept) == len(self.keys):
            raise KeysFileError(f"no key is called {name!r}")
        return KeysFile(keys=kept)

    def write(self, path: Path) -> None:
        """Writes the file, readable by its owner alone; whoever reads meanwhile sees the old one or the new one."""
        partial = path.with_name(f".{path.name}.partial")
        partial.unlink(missing_ok=True)  # one that was left would keep its mode
        partial.touch(mode=0o600, exist_ok=False)
        partial.write_text(self.model_dump_json(indent=2) + "\n")
        partial.replace(path)

    def identify(self, secret: str) -> Key:
        """The key that `secret` is; how long that takes does not depend on which one, nor on how much of it is right.

        Raises:
            UnauthenticatedError: it is none of ours.
        """
        offered = digest(secret)
        found = [key for key in self.keys if hmac.compare_digest(key.sha256, offered)]
        if not found:
            raise UnauthenticatedError("this key is not known")
        return found[0]


def digest(secret: str) -> str:
    """The hash under which a key is stored."""
    return hashlib.sha256(secret.encode()).hexdigest()


def parse_quota(quota: str) -> tuple[RateLimitItem, ...]:
    """The windows of a quota such as `600/minute; 50000/day`, shortest first.

    Raises:
        ValueError: it is not one, has two windows of one length, or lets nothing through.
    """
    windows = sorted(parse_many(quota), key=RateLimitItem.get_expiry)
    lengths = [window.get_expiry() for window in windows]
    if len(set(lengths)) < len(lengths):
        raise ValueError(f"{quota!r} has two windows of the same length")
    if not all(window.amount for window in windows):
        raise ValueError(f"{quota!r} lets nothing through; revoke the key instead")
    return tuple(windows)
