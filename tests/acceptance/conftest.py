"""A place of its own for each test."""

from pathlib import Path

import pytest
from served import Place


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A Prefect home and outputs that only this test has."""
    return Place(tmp_path)
