"""Which commit some code is: as git says, and never a word of what is not known."""

import shutil
import subprocess

import pytest

from tasks.core import commit
from tasks.core.commit import commit_of


def git(folder, *words):
    who = ["-c", "user.name=me", "-c", "user.email=me@here"]
    done = subprocess.run(["git", "-C", folder, *who, *words], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path):
    place = tmp_path / "a checkout"
    place.mkdir()
    git(place, "init", "-q")
    (place / "code.py").write_text("1\n")
    git(place, "add", "code.py")
    git(place, "commit", "-q", "-m", "first")
    return place


def test_a_clean_checkout_is_named_by_its_commit(checkout):
    assert commit_of(checkout / "code.py") == git(checkout, "rev-parse", "HEAD")


def test_changes_are_told_and_new_files_are_none(checkout):
    (checkout / "notes.txt").write_text("mine")
    assert "+" not in commit_of(checkout / "code.py")
    (checkout / "code.py").write_text("2\n")
    assert commit_of(checkout / "code.py") == git(checkout, "rev-parse", "HEAD") + "+changes"


def test_code_that_lies_in_anothers_checkout_has_no_commit(checkout):
    """As a package that is installed within a project."""
    package = checkout / "venv" / "package"
    package.mkdir(parents=True)
    (package / "code.py").write_text("1\n")
    assert commit_of(package / "code.py") is None


def test_outside_of_a_checkout_there_is_no_commit(tmp_path):
    assert commit_of(tmp_path / "code.py") is None
    assert commit_of(tmp_path / "no folder" / "code.py") is None


def test_before_the_first_commit_there_is_none(tmp_path):
    git(tmp_path, "init", "-q")
    (tmp_path / "code.py").write_text("1\n")
    git(tmp_path, "add", "code.py")
    assert commit_of(tmp_path / "code.py") is None


def test_without_git_nothing_is_told(checkout, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert commit_of(checkout / "code.py") is None


def test_a_git_that_hangs_is_not_waited_for(checkout, monkeypatch, tmp_path):
    slow = tmp_path / "git"
    slow.write_text("#!/bin/sh\nexec sleep 60\n")
    slow.chmod(0o755)
    monkeypatch.setattr(shutil, "which", lambda name: str(slow))
    monkeypatch.setattr(commit, "SECONDS", 0.2)
    assert commit_of(checkout / "code.py") is None


def test_the_environment_does_not_lead_git_elsewhere(checkout, monkeypatch, tmp_path):
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "nowhere"))
    assert commit_of(checkout / "code.py") is not None


def test_no_program_that_a_checkout_names_is_started(checkout, tmp_path):
    hook = tmp_path / "hook"
    hook.write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    hook.chmod(0o755)
    git(checkout, "config", "core.fsmonitor", str(hook))
    assert commit_of(checkout / "code.py")
    assert not (tmp_path / "started").exists()
