"""Tables of samples as CSV files: text as it was written, odd file names and all."""

import csv
from pathlib import Path

import pandas as pd

from tasks.core.files import replacing


def told(column: str) -> str:
    """Name a manifest's own column in the table of samples, apart from the table's `label`, `weight` and so on."""
    return f"manifest.{column}"


def write_table(place: Path, table: pd.DataFrame) -> None:
    """Write a table under `place`, whole or not at all."""
    with replacing(place) as partial:
        table.to_csv(partial, index=False, quoting=csv.QUOTE_NONNUMERIC, errors="surrogateescape")


def read_table(place: Path) -> pd.DataFrame:
    """Read a table back: every column as text, but `weight` as float."""
    table = pd.read_csv(place, dtype=str, keep_default_na=False, encoding_errors="surrogateescape")
    return table.astype({"weight": float}) if "weight" in table else table
