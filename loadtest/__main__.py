"""Starts a gateway, loads it, ends it, and passes Locust's verdict on.

    python -m loadtest [-f loadtest/step.py] [anything that locust takes]

The gateway takes its settings from PURIGATE_* in the environment. Reports land in loadtest-report/.
"""

import subprocess
import sys
from pathlib import Path

from benchmarks.server import running_server

REPORTS = Path("loadtest-report")
SHORT = ("--users", "10", "--spawn-rate", "10", "--run-time", "30s")
LOCUSTFILE = str(Path(__file__).with_name("locustfile.py"))


def main(arguments: list[str]) -> int:
    """Gives the exit code of Locust, which runs with `arguments`, or for half a minute if there are none."""
    REPORTS.mkdir(exist_ok=True)
    chosen = arguments or [*SHORT]
    if not {"-f", "--locustfile"} & set(chosen):
        chosen = ["-f", LOCUSTFILE, *chosen]
    reports = ["--csv", str(REPORTS / "run"), "--html", str(REPORTS / "report.html")]
    locust = str(Path(sys.executable).with_name("locust"))
    with running_server() as server:
        command = [locust, "--headless", "--only-summary", "--host", server.url, *reports, *chosen]
        return subprocess.run(command, check=False).returncode  # noqa: S603 - our own command


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
