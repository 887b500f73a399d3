"""`headstart cache` as a user meets it."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from flows.arguments import parser
from flows.cache import run_cache
from tasks.core.digest import digest_bytes
from tasks.core.errors import RequestError
from tasks.core.store import write_shard

STORY = {"backbone": "tiny", "tap": "last:mean", "view": "hflip", "engine": "openvino"}


def cache(folder: Path, *words: str) -> int:
    return run_cache(parser().parse_args(["cache", *words, "--artifacts", str(folder)]))


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    """One set of 1,200 samples in one shard, used two days ago."""
    folder = tmp_path / "features" / ("a" * 40)
    digests = [digest_bytes(str(number).encode()) for number in range(1200)]
    write_shard(folder, digests, np.ones((1200, 10), "float16"), STORY)
    os.utime(folder, (time.time() - 2 * 86_400,) * 2)
    return tmp_path


def shard(stored: Path) -> Path:
    [path] = (stored / "features").rglob("*.h5")
    return path


def hurt(stored: Path) -> Path:
    path = shard(stored)
    data = bytearray(path.read_bytes())
    data[3000] ^= 4
    path.write_bytes(data)
    return path


def test_ls_shows_each_set_on_one_line(stored, capsys):
    assert cache(stored, "ls") == 0
    told = capsys.readouterr().out
    [line] = [line for line in told.splitlines() if "tiny" in line]
    for part in ("last:mean", "hflip", "float16", "1,200", "openvino", "aaaaaaaa", "KB"):
        assert part in line
    assert "1 feature sets" in told


def test_verify_says_all_is_whole_or_which_file_is_not_and_what_follows(stored, capsys):
    assert cache(stored, "verify") == 0
    assert "everything is whole" in capsys.readouterr().out
    path = hurt(stored)
    assert cache(stored, "verify") == 1
    [line] = [line for line in capsys.readouterr().out.splitlines() if path.name in line]
    assert str(path.relative_to(stored)) in line
    assert "checksum" in line
    assert "extracts its samples again" in line
    cache(stored, "ls")
    assert "1 shards are damaged" in capsys.readouterr().out


def test_gc_shows_what_it_would_remove_and_then_removes_it(stored, capsys):
    path = hurt(stored)
    size = f"{path.stat().st_size / 1000:.1f} KB"
    assert cache(stored, "gc", "--dry-run") == 0
    told = capsys.readouterr().out
    assert path.exists()
    assert path.name in told
    assert f"{size} would be freed" in told
    assert cache(stored, "gc") == 0
    told = capsys.readouterr().out
    assert not (stored / "features" / ("a" * 40)).exists()
    assert f"{size} freed" in told


@pytest.mark.parametrize(
    ("option", "value", "stays"),
    [
        ("--older-than", "3d", True),
        ("--older-than", "1d", False),
        ("--keep", "1GB", True),
        ("--keep", "1KB", False),
    ],
)
def test_gc_removes_what_its_options_ask_for(option, value, stays, stored, capsys):
    assert cache(stored, "gc", option, value) == 0
    assert (stored / "features" / ("a" * 40)).exists() == stays
    assert ("0 B freed" in capsys.readouterr().out) == stays


def test_checkpoints_of_stopped_trainings_are_listed_checked_and_tidied_away(tmp_path, capsys):
    place = tmp_path / "checkpoints" / f"{'a' * 40}-{'b' * 40}"
    path = place / "x.checkpoint"
    place.mkdir(parents=True)
    path.write_bytes(digest_bytes(b"0" * 4960).encode() + b"0" * 4960)
    cache(tmp_path, "ls")
    assert "checkpoints of trainings that are not done: 5.0 KB" in capsys.readouterr().out
    assert cache(tmp_path, "verify") == 0
    assert cache(tmp_path, "gc") == 0
    assert path.exists()
    for each in (path, place):
        os.utime(each, (time.time() - 8 * 86_400,) * 2)
    capsys.readouterr()
    assert cache(tmp_path, "gc") == 0
    told = capsys.readouterr().out
    assert not place.exists()
    assert "its training was stopped long ago" in told
    assert "5.0 KB freed" in told


def test_a_damaged_checkpoint_is_told(tmp_path, capsys):
    path = tmp_path / "checkpoints" / "a-b" / "x.checkpoint"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"half")
    assert cache(tmp_path, "verify") == 1
    assert "a run trains from the start again" in capsys.readouterr().out


@pytest.mark.parametrize("words", [("gc", "--older-than", "soon"), ("gc", "--keep", "much")])
def test_an_option_that_cannot_be_understood_is_a_wrong_request(words, stored):
    with pytest.raises(RequestError, match=words[-1]):
        cache(stored, *words)
    assert shard(stored).exists()


def test_a_folder_that_is_not_there_is_a_wrong_request(tmp_path):
    with pytest.raises(RequestError, match="no such folder"):
        cache(tmp_path / "artefacts", "ls")
    assert list(tmp_path.iterdir()) == []


def test_the_command_loads_neither_prefect_nor_torch(stored):
    look = (
        "import sys, argparse; from pathlib import Path; from flows.cache import cache_ls, cache_verify, cache_gc;"
        "folder = Path(sys.argv[1]); codes = [cache_ls(folder), cache_verify(folder), cache_gc(folder)];"
        "assert codes == [0, 0, 0]; assert not {'prefect', 'torch'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", look, str(stored)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
