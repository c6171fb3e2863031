"""What is left of a quota: an answer to whoever asks for some of it, and how HTTP tells it."""

from dataclasses import dataclass, replace
from math import ceil, floor, inf

from limits import RateLimitItem

from service.errors import QuotaExceededError


@dataclass(frozen=True)
class Usage:
    """What a sliding window has counted (Cloudflare's approximation, as `limits` keeps it).

    Images of the previous window count in the share in which it still overlaps the last `limit.get_expiry()` seconds.

    Attributes:
        limit: how many images in how many seconds.
        previous: images of the window before this one.
        previous_seconds: until they no longer count.
        current: images of this window.
        current_seconds: until this window becomes the previous one.
    """

    limit: RateLimitItem
    previous: int
    previous_seconds: float
    current: int
    current_seconds: float

    @property
    def name(self) -> str:
        """Such as `minute`, or `5-minute`."""
        name = self.limit.GRANULARITY.name
        return name if self.limit.multiples == 1 else f"{self.limit.multiples}-{name}"

    @property
    def remaining(self) -> int:
        """Images that may be asked about now."""
        counted = floor(self.previous * self.previous_seconds / self.limit.get_expiry()) + self.current
        return max(0, self.limit.amount - counted)

    def seconds_until(self, images: int) -> float:
        """How long until so many images fit, if nobody asks for others; infinite if they never do."""
        if images > self.limit.amount:
            return inf
        if self.remaining >= images:
            return 0.0
        room = self.limit.amount - images + 1
        if self.current < room:
            return self._seconds_to_decay(self.previous, self.previous_seconds, room - self.current)
        length = self.limit.get_expiry()
        return self.current_seconds + self._seconds_to_decay(self.current, length, room)

    def _seconds_to_decay(self, count: int, seconds: float, below: int) -> float:
        """Until `count` images, which stop counting in `seconds`, weigh less than `below`."""
        return max(0.0, seconds - self.limit.get_expiry() * below / count)

    def after(self, seconds: float) -> "Usage":
        """What it will be in so many seconds, if nobody asks for images until then."""
        if not self.current or seconds < self.current_seconds:
            previous, current = (max(0.0, one - seconds) for one in (self.previous_seconds, self.current_seconds))
            return replace(self, previous_seconds=previous, current_seconds=current)
        left = max(0.0, self.limit.get_expiry() - (seconds - self.current_seconds))
        return replace(self, previous=self.current, previous_seconds=left, current=0, current_seconds=left)

    @property
    def reset_seconds(self) -> float:
        """Until there is more: at once if some is left, and then it is the end of this window that is told."""
        return self.current_seconds if self.remaining else self.seconds_until(1)


@dataclass(frozen=True)
class Allowance:
    """Whether images may be asked about, and what is left.

    Attributes:
        images: that were asked for.
        granted: whether they were counted and may be asked about.
        usages: of every window of the quota, shortest first.
    """

    images: int
    granted: bool
    usages: tuple[Usage, ...]

    def seconds_until(self, images: int) -> float:
        """How long until so many images fit into every window."""
        return max(usage.seconds_until(images) for usage in self.usages)

    def after(self, seconds: float) -> "Allowance":
        """The same in so many seconds."""
        return replace(self, usages=tuple(usage.after(seconds) for usage in self.usages))

    def require(self) -> None:
        """Lets a request pass if its images were granted.

        Raises:
            QuotaExceededError: they were not.
        """
        if self.granted:
            return
        wait = self.seconds_until(self.images)
        if wait == inf:
            smallest = min(usage.limit.amount for usage in self.usages)
            longest = max(usage.limit.get_expiry() for usage in self.usages)
            raise QuotaExceededError(f"the quota never allows {self.images} images at once; send {smallest}", longest)
        raise QuotaExceededError(f"the quota is used up: {', '.join(self._spent())}", wait)

    def _spent(self) -> list[str]:
        return [f"{one.limit.amount} images a {one.name}" for one in self.usages if one.remaining < self.images]

    def headers(self) -> dict[str, str]:
        """The `RateLimit` fields of the IETF draft (draft-ietf-httpapi-ratelimit-headers-10)."""
        policy = [f'"{one.name}";q={one.limit.amount};w={one.limit.get_expiry()}' for one in self.usages]
        state = [f'"{one.name}";r={one.remaining};t={ceil(one.reset_seconds)}' for one in self.usages]
        return {"RateLimit-Policy": ", ".join(policy), "RateLimit": ", ".join(state)}
