"""A service whose engine is dead ends, even if something holds its end."""

import json
import subprocess
import sys
from pathlib import Path

PATIENCE_SECONDS = 60
SERVICE = """
import asyncio, sys, threading
from pathlib import Path
from service import networks, server
from service.logs import configure_logs
from service.settings import Settings

class Dying(server.Server):
    def _opened(self, state):
        asyncio.get_running_loop().call_later(0.1, self._died)

networks.LocalNetworks.close = lambda self: threading.Event().wait()  # as a device that is never done
server.Server, server.ENDING_SECONDS = Dying, 0.5
configure_logs()
server.run(Settings(bundle=Path(sys.argv[1]), port=0, device="cpu", drain_timeout_ms=100))
"""


def test_a_device_that_is_never_done_does_not_hold_the_end_of_the_process(bundle_folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SERVICE, str(bundle_folder)],
        check=False,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
    )

    assert done.returncode == 1, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["event"] == "end_hangs"
