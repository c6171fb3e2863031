"""Everything that can go wrong with a request, and the one table that gives each its HTTP status.

The errors themselves know nothing of HTTP. Their messages are shown to clients: they say what to change and nothing of
the inside.
"""

from dataclasses import dataclass
from http import HTTPStatus


class GatewayError(Exception):
    """A request that cannot be answered, for a reason its sender may know."""


class RetryableError(GatewayError):
    """The same request may succeed later.

    Attributes:
        retry_after: seconds after which to try again.
    """

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class MalformedRequestError(GatewayError):
    """The body is empty or not what its content type promises."""


class UnauthenticatedError(GatewayError):
    """No key, or not one of ours."""


class ForbiddenError(GatewayError):
    """The key is one of ours, and may not do this."""


class ReloadRunningError(GatewayError):
    """A bundle is being loaded already."""


class BundleRefusedError(GatewayError):
    """The new bundle cannot be served; the old one is."""


class BodyTimeoutError(GatewayError):
    """The body did not arrive in time."""


class BodyTooLargeError(GatewayError):
    """The body has more bytes than are accepted."""


class BadImageError(GatewayError):
    """Something about an image itself; each kind has a class of its own below."""


class UnsupportedImageTypeError(BadImageError):
    """The request is not an image, or an image of a format that is not served."""


class UndecodableImageError(BadImageError):
    """The bytes are not a whole image of their format."""


class TooManyPixelsError(BadImageError):
    """The image is larger than is accepted."""


class InvalidParameterError(GatewayError):
    """A parameter has a value that is not allowed."""


class QuotaExceededError(RetryableError):
    """The holder of the key has asked about as many images as it may."""


class QuotaStoreError(RetryableError):
    """The store of the quotas is away, and without it nobody with a quota is served."""


class QueueFullError(RetryableError):
    """More queries wait than can be answered soon."""


class NotReadyError(RetryableError):
    """The service is loading, draining or recovering."""


class DeviceFaultError(RetryableError):
    """The device failed while it worked on this query."""


class DeadlinePassedError(GatewayError):
    """The answer was not there in time."""


@dataclass(frozen=True)
class Problem:
    """How an error is told over HTTP (RFC 9457).

    Attributes:
        slug: names the kind of problem in its `type` and in metrics.
        status: the HTTP status.
        title: the kind of problem in words.
    """

    slug: str
    status: HTTPStatus
    title: str


PROBLEMS: dict[type[GatewayError], Problem] = {
    MalformedRequestError: Problem("malformed-request", HTTPStatus.BAD_REQUEST, "Malformed request"),
    UnauthenticatedError: Problem("unauthenticated", HTTPStatus.UNAUTHORIZED, "No valid key"),
    ForbiddenError: Problem("forbidden", HTTPStatus.FORBIDDEN, "Not an admin key"),
    ReloadRunningError: Problem("reload-running", HTTPStatus.CONFLICT, "Reload running"),
    BundleRefusedError: Problem("bundle-refused", HTTPStatus.UNPROCESSABLE_ENTITY, "Bundle refused"),
    BodyTimeoutError: Problem("body-timeout", HTTPStatus.REQUEST_TIMEOUT, "Body too slow"),
    BodyTooLargeError: Problem("body-too-large", HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "Body too large"),
    UnsupportedImageTypeError: Problem(
        "unsupported-image-type", HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "Image type not served"
    ),
    UndecodableImageError: Problem("undecodable-image", HTTPStatus.UNPROCESSABLE_ENTITY, "Undecodable image"),
    TooManyPixelsError: Problem("too-many-pixels", HTTPStatus.UNPROCESSABLE_ENTITY, "Too many pixels"),
    InvalidParameterError: Problem("invalid-parameter", HTTPStatus.UNPROCESSABLE_ENTITY, "Invalid parameter"),
    QuotaExceededError: Problem("quota-exceeded", HTTPStatus.TOO_MANY_REQUESTS, "Over quota"),
    QuotaStoreError: Problem("quota-unavailable", HTTPStatus.SERVICE_UNAVAILABLE, "Quotas unavailable"),
    QueueFullError: Problem("queue-full", HTTPStatus.SERVICE_UNAVAILABLE, "Too busy"),
    NotReadyError: Problem("not-ready", HTTPStatus.SERVICE_UNAVAILABLE, "Not ready"),
    DeviceFaultError: Problem("device-fault", HTTPStatus.SERVICE_UNAVAILABLE, "Device fault"),
    DeadlinePassedError: Problem("deadline-passed", HTTPStatus.GATEWAY_TIMEOUT, "Deadline passed"),
}

TOO_MANY_CONNECTIONS = Problem("too-many-connections", HTTPStatus.SERVICE_UNAVAILABLE, "Too many connections")
HEAD_TOO_LARGE = Problem("head-too-large", HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "Head too large")
INTERNAL = Problem("internal", HTTPStatus.INTERNAL_SERVER_ERROR, "Internal error")
