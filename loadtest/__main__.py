"""Starts a gateway, loads it, ends it, and passes Locust's verdict on.

    python -m loadtest [-f loadtest/step.py] [anything that locust takes]

The gateway takes its settings from PURIGATE_* in the environment. Reports land in loadtest-report/.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from benchmarks.server import running_server

REPORTS = Path("loadtest-report")
SHORT = ("--users", "10", "--spawn-rate", "10", "--run-time", "30s")
LOCUSTFILE = Path(__file__).with_name("locustfile.py")
ENDS_BY_ITSELF = Path(__file__).with_name("step.py")


def main(arguments: list[str]) -> int:
    """Gives the exit code of Locust, which runs with `arguments`, for half a minute unless they say otherwise."""
    REPORTS.mkdir(exist_ok=True)
    with running_server() as server:
        return subprocess.run(command(server.url, arguments), check=False).returncode  # noqa: S603 - our own command


def command(url: str, arguments: list[str]) -> list[str]:
    """Locust against `url`; of an option that is given twice it takes the last, so `arguments` win."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("-f", "--locustfile", type=Path)
    named: Path | None = parser.parse_known_args(arguments)[0].locustfile
    file = [] if named else ["-f", str(LOCUSTFILE)]
    # A run time would cut the steps off in the middle.
    length = () if named and named.resolve() == ENDS_BY_ITSELF else SHORT
    reports = ["--csv", str(REPORTS / "run"), "--html", str(REPORTS / "report.html")]
    locust = str(Path(sys.executable).with_name("locust"))
    return [locust, "--headless", "--only-summary", "--host", url, *reports, *file, *length, *arguments]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
