"""Tables of samples as CSV files: text as it was written, odd file names and all."""

import codecs
import csv
from pathlib import Path

import pandas as pd

from tasks.core.files import replacing

NAME_BYTES = "headstart.name-bytes"
"""How text is encoded: bytes of file names as they are; half a surrogate pair, which has none, is spelled."""


def _name_bytes(error: UnicodeError) -> tuple[str | bytes, int]:
    try:
        return codecs.lookup_error("surrogateescape")(error)
    except UnicodeError:
        return codecs.lookup_error("backslashreplace")(error)


codecs.register_error(NAME_BYTES, _name_bytes)


def told(column: str) -> str:
    """Name a manifest's own column in the table of samples, apart from the table's `label`, `weight` and so on."""
    return f"manifest.{column}"


def readable(text: str) -> str:
    """Put a name of any bytes on one line: what cannot be shown is spelled, as `\\n` or `\\udce9`."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def write_table(place: Path, table: pd.DataFrame) -> None:
    """Write a table under `place`, whole or not at all; a name's own bytes are written as they are."""
    with (
        replacing(place) as partial,
        partial.open("w", encoding="utf-8", errors=NAME_BYTES, newline="") as file,
    ):
        table.to_csv(file, index=False, quoting=csv.QUOTE_NONNUMERIC)


def read_table(place: Path) -> pd.DataFrame:
    """Read a table back: every column as text, but `weight` as float."""
    table = pd.read_csv(place, dtype=str, keep_default_na=False, encoding_errors="surrogateescape")
    return table.astype({"weight": float}) if "weight" in table else table
