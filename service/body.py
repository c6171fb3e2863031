"""Reading untrusted bodies: bounded in bytes and time, raw or multipart."""

import asyncio
from collections.abc import AsyncGenerator

from fastapi import Request
from python_multipart.multipart import parse_options_header
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from service.bodies import Body
from service.errors import BodyTimeoutError, BodyTooLargeError, MalformedRequestError, UnsupportedImageTypeError
from service.images import SERVED_TYPES
from service.settings import Settings

FILE_PART = "file"
MULTIPART = "multipart/form-data"


async def read_images(request: Request, settings: Settings, max_images: int, body: Body) -> list[bytes]:
    """The images of a request: its raw `image/*` body, or its parts called `file`, in the order sent.

    Raises:
        UnsupportedImageTypeError: the body is neither an image nor multipart.
        BodyTooLargeError: it has more bytes than are accepted.
        QueueFullError: too many bytes of other bodies wait.
        BodyTimeoutError: it did not arrive in time.
        MalformedRequestError: it is empty, not what it promises, or has too few or too many images.
        ClientDisconnect: the client left.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    seconds = settings.body_timeout_ms / 1000
    try:
        async with asyncio.timeout(seconds):
            if media_type == MULTIPART:
                images = await _read_parts(request, settings.max_body_bytes, max_images, body)
            elif media_type.startswith("image/"):
                images = [b"".join([chunk async for chunk in _bounded(request, settings.max_body_bytes, body)])]
            else:
                raise UnsupportedImageTypeError(
                    f"the content type is {media_type or 'missing'}; send {', '.join(SERVED_TYPES.values())} "
                    f"or {MULTIPART}"
                )
    except TimeoutError as error:
        raise BodyTimeoutError(f"the body did not arrive within {seconds:g} s") from error
    if not all(images):
        raise MalformedRequestError("the image is empty")
    return images


async def _bounded(request: Request, limit: int, body: Body) -> AsyncGenerator[bytes, None]:
    """The chunks of a body, as long as they stay within `limit` bytes and there is room for them."""
    too_large = BodyTooLargeError(f"the body has more than {limit} bytes")
    declared = request.headers.get("content-length", "").lstrip("0")
    if len(declared) > len(str(limit)):  # Python makes no number of thousands of digits
        raise too_large
    promised = int(declared) if declared.isdecimal() else 0
    if promised > limit:
        raise too_large
    body.expect(promised)
    received = 0
    more = True
    while more:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunk = message.get("body", b"")
        more = message.get("more_body", False)
        received += len(chunk)
        if received > limit:
            raise too_large
        body.take(len(chunk))
        if chunk:
            yield chunk


class _MultiPartParser(MultiPartParser):
    """Keeps files in memory: a body is bounded already, and the root file system may be read-only."""

    def __init__(self, request: Request, limit: int, max_images: int, body: Body) -> None:
        self.spool_max_size = limit
        stream = _bounded(request, limit, body)
        super().__init__(_without_charset(request.headers), stream, max_files=max_images, max_fields=0)
        self.whole = False

    def on_end(self) -> None:
        """Called at the last boundary."""
        self.whole = True

    def close(self) -> None:
        """Closes every file, those of unfinished parts too."""
        for file in self._files_to_close_on_error:
            file.close()


async def _read_parts(request: Request, limit: int, max_images: int, body: Body) -> list[bytes]:
    parser = _MultiPartParser(request, limit, max_images, body)
    try:
        form = await parser.parse()
        if not parser.whole:
            raise MalformedRequestError("multipart body: the last boundary is missing")
        images = [await _file(name, part).read() for name, part in form.multi_items()]
    except MultiPartException as error:
        raise MalformedRequestError(f"multipart body: {error.message}") from error
    except UnicodeError as error:
        raise MalformedRequestError("multipart body: a name is not in its charset") from error
    finally:
        parser.close()
    if not images:
        raise MalformedRequestError(f"multipart body: no part is called {FILE_PART!r}")
    return images


def _without_charset(headers: Headers) -> Headers:
    """The content type, whose only parameter is the boundary (RFC 7578, section 4).

    Python never forgets the name of a charset that it looked up, and would be filled with invented ones.
    """
    _, parameters = parse_options_header(headers.get("content-type"))
    boundary = parameters.get(b"boundary", b"").replace(b"\\", b"\\\\").replace(b'"', b'\\"')
    told = f'{MULTIPART}; boundary="{boundary.decode("latin-1")}"' if boundary else MULTIPART
    return Headers({"content-type": told})


def _file(name: str, part: UploadFile | str) -> UploadFile:
    if name != FILE_PART or isinstance(part, str):
        raise MalformedRequestError(f"multipart body: a part is called {name!r}; only files called 'file' are taken")
    return part
