"""An errand: the way of one request's images through threads, of which the event loop hears nothing but the end.

The thread that decodes the last of them puts them into the queue itself. The event loop would do nothing but hand them
on, and to wake it for that costs more than to decode a small image.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from typing import Any

from models.preprocessing import Pixels
from service.engine import Prediction
from service.errors import BadImageError, NotReadyError
from service.lane import Lane


class Errand:
    """Decodes images and has them answered; constructing it starts it. Belongs to the event loop that it is made on.

    Args:
        lane: decodes and answers.
        replaced: whether another lane took its place, which is then to be asked instead.
        contents: the images as they came; at least one.
        deadline: of the answers.
        decoders: threads that decode.
        on_decoded: told, mostly in one of those threads, how many seconds the decoding took; nothing if it failed.

    Attributes:
        images: as they were decoded, in order, once `answered` has a result.
        answered: the prediction of each, or the first error; an image that is bad spoils the whole request.
    """

    def __init__(
        self,
        lane: Lane,
        replaced: Callable[[], bool],
        contents: Sequence[bytes],
        deadline: float,
        decoders: Executor,
        on_decoded: Callable[[float | None], None],
    ) -> None:
        self.images: list[Pixels] = []
        self._loop = asyncio.get_running_loop()
        self.answered: asyncio.Future[list[Prediction]] = self._loop.create_future()
        self._lane = lane
        self._replaced = replaced
        self._deadline = deadline
        self._on_decoded = on_decoded
        self._begin = time.perf_counter()
        self._over = False
        self._answering: list[Future[Prediction]] = []
        self._contents = list(contents)
        self._count = len(contents)
        self._decoding = [decoders.submit(self._decode, index) for index in range(len(contents))]
        self._follow(self._decoding, self._submit)

    def cancel(self) -> None:
        """Drops what is not begun, and the bytes of it; nobody waits for it any more.

        A task that is cancelled stays in the line before the decoders, which are busy: it must not hold an image.
        """
        self._over = True
        self._contents.clear()
        for futures in (self._decoding, self._answering):
            for future in futures:
                future.cancel()

    def _decode(self, index: int) -> Pixels:
        try:
            return self._lane.decoder.decode(self._contents[index])
        except BadImageError as error:
            if self._count == 1:
                raise
            raise type(error)(f"image {index + 1} of {self._count}: {error}") from error

    def _follow(self, futures: Sequence[Future[Any]], then: Callable[[], None]) -> None:
        """Calls `then` after the last of `futures`, in its thread, or now; tells at once of one that fails."""
        left = len(futures)
        counting = threading.Lock()

        def ended(future: Future[Any]) -> None:
            nonlocal left
            if not future.cancelled() and (error := future.exception()):
                self._tell(error)
            with counting:
                left -= 1
                last = left == 0
            if last:
                then()

        for future in futures:
            future.add_done_callback(ended)

    def _submit(self) -> None:
        """Called when the last is decoded."""
        seconds = time.perf_counter() - self._begin
        whole = all(map(_succeeded, self._decoding))
        try:
            if whole and not self._over:
                self._queue()
        finally:  # only now, for until they are in the queue these places are what keeps others out of it
            self._on_decoded(seconds if whole else None)

    def _queue(self) -> None:
        if self._replaced():
            self._tell(NotReadyError("another bundle came meanwhile", retry_after=1))
            return
        self.images = [one.result() for one in self._decoding]
        try:
            self._answering = self._lane.submit(self.images, self._deadline)
        except Exception as error:  # noqa: BLE001 - whoever waits must hear of it, whatever it is
            self._tell(error)
            return
        if self._over:  # meanwhile
            self.cancel()
        self._follow(self._answering, self._finish)

    def _finish(self) -> None:
        """Called when the last is answered."""
        if all(map(_succeeded, self._answering)):
            self._tell([one.result() for one in self._answering])

    def _tell(self, outcome: list[Prediction] | BaseException) -> None:
        if not self._over and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._resolve, outcome)

    def _resolve(self, outcome: list[Prediction] | BaseException) -> None:
        if self.answered.done():
            return
        if isinstance(outcome, BaseException):
            self.answered.set_exception(outcome)
        else:
            self.answered.set_result(outcome)


def _succeeded(future: Future[Any]) -> bool:
    return not future.cancelled() and future.exception() is None
