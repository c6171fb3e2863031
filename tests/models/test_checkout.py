"""The commit that is told is that of our code, not of a repository that happens to lie around it."""

import subprocess
from pathlib import Path

import pytest

from models.checkout import commit


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=test", "-c", "user.email=test@localhost", "-c", "commit.gpgsign=false"]
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Of a user, with one commit; the virtual environment in it, where we are installed, is ignored."""
    folder = tmp_path / "theirs"
    for name in ("ours.py", ".venv/ours.py", "new.py"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    (folder / ".gitignore").write_text("/.venv/\n")
    git(folder, "init", "--quiet")
    git(folder, "add", "ours.py", ".gitignore")
    git(folder, "commit", "--quiet", "--message", "first")
    return folder


def test_the_commit_of_a_tracked_file_is_told(repository: Path) -> None:
    assert commit(repository / "ours.py") == git(repository, "rev-parse", "HEAD")


def test_a_changed_checkout_is_marked(repository: Path) -> None:
    (repository / "ours.py").write_text("changed")

    assert commit(repository / "ours.py") == git(repository, "rev-parse", "HEAD") + "-dirty"


@pytest.mark.parametrize("name", [".venv/ours.py", "new.py"])
def test_the_commit_of_a_repository_that_does_not_track_the_code_is_not_told(repository: Path, name: str) -> None:
    assert commit(repository / name) is None


def test_there_is_no_commit_outside_a_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    (tmp_path / "ours.py").touch()

    assert commit(tmp_path / "ours.py") is None


def test_there_is_no_commit_without_git(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(repository))

    assert commit(repository / "ours.py") is None
