"""Memory does not grow with the data set, but for the list of its samples."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parents[1] / "benchmarks" / "many_samples.py"
MOST = 300  # MB


def peak(number: int, folder: Path) -> float:
    """Extract in a process of its own; return its peak memory in MB."""
    told = subprocess.run(
        [sys.executable, str(PROGRAM), str(number), str(folder)], capture_output=True, text=True, check=True
    )
    shutil.rmtree(folder)
    return float(told.stdout)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_two_hundred_thousand_pictures_need_little_more_memory_than_two_thousand(tmp_path):
    few, many = peak(2_000, tmp_path / "few"), peak(200_000, tmp_path / "many")
    print(f"peak memory: {few:.0f} MB for 2,000 pictures, {many:.0f} MB for 200,000")
    assert many - few < MOST
