"""Where samples come from: a manifest, or a folder with one sub-folder per class.

A manifest is a CSV file, or a Python file whose `manifest()` returns the same table. Columns:
`path` (relative to the manifest's folder, or absolute), one per target, and if wanted a weight,
a group, and whatever else the study names.
"""

import csv
import os
import runpy
import warnings
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from pathlib import Path

import pandas as pd

from tasks.core.errors import HeadstartError, RequestError
from tasks.core.media import IMAGE_SUFFIXES

FOLDER_TARGET = "class"
"""The target's name when folders are the labels."""


def list_samples(place: Path, columns: Iterable[str]) -> pd.DataFrame:
    """Read a manifest, or list a folder that has one sub-folder per class; as `read_manifest` and `scan_folder`."""
    return scan_folder(place) if place.is_dir() else read_manifest(place, columns)


def read_manifest(source: Path, columns: Iterable[str]) -> pd.DataFrame:
    """Read a manifest as text.

    Args:
        source: a `.csv` file, or a `.py` file that defines `manifest()`.
        columns: the columns that the study names, besides `path`.

    Returns:
        One row per line, every column as text, blanks as "".

    Raises:
        RequestError: if the file, a column, or every row is missing, or a column stands twice.
    """
    check_header(source, columns)
    frame = _run(source) if source.suffix == ".py" else _read_csv(source)
    check_columns(source, list(frame.columns), columns)
    if frame.empty:
        raise RequestError(f"{source}: no rows; one line per sample is needed")
    return frame


def check_header(source: Path, columns: Iterable[str]) -> None:
    """Refuse a manifest that is missing, or lacks a column or has it twice, having read its first line alone.

    Raises:
        RequestError: as `read_manifest`. What a `.py` manifest returns is not known before it is run.
    """
    if source.is_file() and source.suffix != ".py":
        with source.open(encoding="utf-8-sig", errors="replace", newline="") as file:
            header = next((row for row in csv.reader(file, skipinitialspace=True) if any(row)), [])
        check_columns(source, header, columns)
    elif not source.is_file():
        raise RequestError(f"{source}: no such manifest; give a CSV file with a column 'path', or a .py file")


def check_columns(source: Path, found: list[str], needed: Iterable[str]) -> None:
    """Refuse a table that lacks a column, or has it twice; a column that nobody needs may stand twice.

    Raises:
        RequestError: naming the column, and of a missing one the nearest found.
    """
    for column in ("path", *needed):
        if found.count(column) > 1:
            raise RequestError(f"{source}: column {column!r} stands twice; rename or remove one")
        if column not in found:
            near = get_close_matches(column, found, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise RequestError(f"{source}: no column {column!r}{hint} (found: {', '.join(found)})")


def scan_folder(folder: Path) -> pd.DataFrame:
    """List the pictures of a folder with one sub-folder per class.

    Hidden files, and files whose names do not end like a picture's, are passed over.

    Returns:
        Columns `path` (relative to the folder) and `class`, sorted by path.

    Raises:
        RequestError: if there are fewer than two sub-folders with pictures, or one cannot be listed.
    """
    if not folder.is_dir():
        raise RequestError(
            f"{folder}: no such folder; give a folder with one sub-folder per class, or a study.toml"
        )
    top = os.path.join(folder, "")  # noqa: PTH118 - a hundred thousand names are put together as text
    rows = [(path, kind) for kind in _sub_folders(folder) for path in _pictures(top, kind)]
    classes = {name for _, name in rows}
    if len(classes) < 2:
        raise RequestError(
            f"{folder}: pictures in {len(classes)} sub-folder(s); at least two are needed, one for each class"
        )
    return pd.DataFrame(sorted(rows), columns=["path", FOLDER_TARGET])


def locate(paths: Iterable[str], folder: Path) -> tuple[list[str], list[str]]:
    """Turn a manifest's paths into places.

    A relative path stays below `folder`; an absolute one is taken as the user's own word.

    Args:
        paths: as written in the manifest.
        folder: the data folder.

    Returns:
        One absolute place for each path, and beside it what is wrong with the path, or "".
    """
    base = os.path.abspath(folder)  # noqa: PTH100 - links inside stay as the user made them
    inside = base.rstrip("/") + "/"
    places, problems = [], []
    for path in paths:
        place = os.path.normpath(os.path.join(base, path))  # noqa: PTH118 - ten times as fast as Path
        places.append(place)
        problems.append(_path_problem(path, place, base, inside))
    return places, problems


def _path_problem(path: str, place: str, base: str, inside: str) -> str:
    if not path:
        return "no path given"
    if "\0" in path:
        return "the path holds a zero byte"
    if not path.startswith("/") and not place.startswith(inside) and place != base:
        return f"outside the data folder {base}; write an absolute path if that is meant"
    return "" if path.isascii() or _names_a_file(path) else "the path holds what no file name can"


def _names_a_file(path: str) -> bool:
    """Whether the file system can be asked for it at all: half a surrogate pair has no bytes."""
    try:
        os.fsencode(path)
    except UnicodeEncodeError:
        return False
    return True


def _sub_folders(folder: Path) -> list[str]:
    try:
        names = os.listdir(folder)  # noqa: PTH208 - names alone are wanted
    except OSError as error:
        raise _cannot_list(error) from None
    return sorted(name for name in names if not name.startswith(".") and (folder / name).is_dir())


def _pictures(top: str, kind: str) -> Iterator[str]:
    """List the pictures of a sub-folder of `top`, at any depth; links to folders are not followed."""

    def refuse(error: OSError) -> None:
        raise _cannot_list(error)

    for parent, folders, names in os.walk(top + kind, onerror=refuse):
        below = parent[len(top) :] + "/"
        for name in (*names, *folders):
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES:  # noqa: PTH122
                yield below + name
        folders[:] = [name for name in folders if not name.startswith(".")]


def _cannot_list(error: OSError) -> RequestError:
    return RequestError(
        f"{error.filename}: the folder cannot be listed ({error.strerror}); mend its permissions or move it away"
    )


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _read_csv(source: Path) -> pd.DataFrame:
    """Read a CSV file; a path may hold any bytes that a file's name can, all else is UTF-8."""
    try:
        return _parse_csv(source, "strict")
    except UnicodeDecodeError as error:
        frame = _parse_csv(source, "surrogateescape")
        others = frame.drop(columns="path", errors="ignore")
        if not all(
            _is_unicode(text) for column in (others, others.columns) for text in column.to_numpy().flat
        ):
            raise RequestError(
                f"{source}: not a CSV file with a header line ({_one_line(error)}); save it as UTF-8"
            ) from None
        return frame


def _parse_csv(source: Path, encoding_errors: str) -> pd.DataFrame:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # a row has more fields than the header
            return pd.read_csv(
                source,
                dtype=str,
                keep_default_na=False,
                skipinitialspace=True,
                encoding="utf-8-sig",
                encoding_errors=encoding_errors,
                index_col=False,
            )
    except (pd.errors.ParserError, pd.errors.ParserWarning, pd.errors.EmptyDataError) as error:
        raise RequestError(f"{source}: not a CSV file with a header line ({_one_line(error)})") from error


def _is_unicode(text: str) -> bool:
    return text.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in text)


def _run(source: Path) -> pd.DataFrame:
    """Call the user's own `manifest()`; its floats become the shortest text that reads back."""
    try:
        table = runpy.run_path(str(source)).get("manifest")
        frame = table() if callable(table) else None
    except HeadstartError:
        raise
    except Exception as error:  # the user's code may raise anything
        raise RequestError(f"{source}: cannot be run ({type(error).__name__}: {_one_line(error)})") from error
    if not isinstance(frame, pd.DataFrame):
        raise RequestError(f"{source}: needs a function manifest() that returns a pandas DataFrame")
    return frame.astype(object).where(frame.notna(), "").map(str)
