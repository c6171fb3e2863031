"""The limit of open files follows the limit of connections, and is told where it cannot."""

import subprocess
import sys

import pytest

WITHIN = """
import resource, sys
soft, hard, connections = map(int, sys.argv[1:])
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
from service.open_files import allow_connections
print(allow_connections(connections), *resource.getrlimit(resource.RLIMIT_NOFILE))
"""


@pytest.mark.parametrize(
    ("soft", "hard", "connections", "limit", "told"),
    [(128, 900, 500, 756, False), (800, 900, 500, 800, False), (128, 600, 500, 600, True), (600, 600, 500, 600, True)],
)
def test_the_process_may_open_a_file_for_each_connection_or_says_that_it_may_not(
    soft: int, hard: int, connections: int, limit: int, *, told: bool
) -> None:
    command = [sys.executable, "-c", WITHIN, str(soft), str(hard), str(connections)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)

    assert done.stdout.splitlines()[-1] == f"{limit} {limit} {hard}"
    assert ("too_few_open_files" in done.stdout) is told
