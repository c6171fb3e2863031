"""The end of a process that cannot end by itself: what ends this way is started again, what hangs is not."""

import os
import sys
import threading
import traceback
from collections.abc import Callable

LAST_WORDS_SECONDS = 2.0


def end_process(say: Callable[[str], None]) -> None:
    """Ends the process with status 1, whatever its threads hold.

    Args:
        say: told before that, in a thread of its own, the stack of the main thread. It may take two seconds, or hang.
    """
    try:
        frame = sys._current_frames().get(threading.main_thread().ident or 0)  # noqa: SLF001 - the one way to see it
        stack = "".join(traceback.format_stack(frame)) if frame else ""
        # The main thread may hang in the writing of a line, and whoever writes another would wait for it.
        words = threading.Thread(target=say, args=(stack,), daemon=True)
        words.start()
        words.join(LAST_WORDS_SECONDS)
    finally:
        os._exit(1)


def end_process_in(seconds: float, say: Callable[[str], None]) -> None:
    """Does that if the process is still there after so many seconds."""
    timer = threading.Timer(seconds, end_process, (say,))
    timer.daemon = True
    timer.start()
