"""The start of the `purigate` command, before anything that takes time to import."""

import signal


def main() -> None:
    """Runs the command. SIGHUP asks for a reload; while nothing is loaded yet there is nothing to do."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    from service.cli import app  # noqa: PLC0415 - it takes seconds, in which SIGHUP would end the process

    app()
