"""What a study file says, before it is known to be a study: TOML, changes from the command line, paths made whole."""

import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tasks.core.errors import RequestError

CHECKPOINTS = (".pth", ".pt", ".safetensors")


def folder_study(folder: Path) -> dict[str, Any]:
    """Sensible defaults: the last layer alone, and with two earlier depths beside it."""
    name = re.sub(r"[^A-Za-z0-9._ -]+", "-", folder.resolve().name).strip("-. ") or "folder"
    return {
        "name": name,
        "data": {"folder": str(folder.resolve())},
        "experiments": [
            {"name": "last layer"},
            {"name": "three depths", "taps": ["last:mean", "blocks.4:mean+std", "blocks.5:mean+std"]},
        ],
    }


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises:
        RequestError: if there is none, or it cannot be read.
    """
    if not path.is_file():
        raise RequestError(
            f"{path}: no such file or folder; give a study.toml, or a folder with one sub-folder per class"
        )
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RequestError(f"{path}: not a TOML file ({error})") from None
    except OSError as error:
        raise RequestError(f"{path}: cannot be read ({error.strerror})") from None


def apply_change(fields: dict[str, Any], change: str) -> None:
    """Set one dotted key; list items are named by their number, from 0."""
    key, separator, text = change.partition("=")
    if not separator or not key:
        raise RequestError(f"--set {change!r}: write key=value, such as data.max_bad=0.1")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    *parents, last = key.split(".")
    place: Any = fields
    try:
        for parent in parents:
            place = place[int(parent)] if isinstance(place, list) else place.setdefault(parent, {})
        place[int(last) if isinstance(place, list) else last] = value
    except (ValueError, IndexError, TypeError, AttributeError):
        raise RequestError(f"--set {change!r}: the study has no place {key!r}") from None


def from_here(fields: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Resolve the paths of data and weights, which are relative to the study file."""
    data, backbones = fields.get("data"), fields.get("backbones")
    placed = dict(fields)
    if isinstance(data, dict):
        placed["data"] = _placed(data, ("manifest", "folder", "root"), folder)
    if isinstance(backbones, dict):
        placed["backbones"] = {
            name: _placed(each, ("weights", *_checkpoint_key(each)), folder)
            if isinstance(each, dict)
            else each
            for name, each in backbones.items()
        }
    return placed


def _placed(fields: dict[str, Any], keys: Sequence[str], folder: Path) -> dict[str, Any]:
    return {
        key: str((folder / value).resolve()) if isinstance(value, str) and key in keys else value
        for key, value in fields.items()
    }


def _checkpoint_key(backbone: dict[str, Any]) -> tuple[str, ...]:
    """A network that is named by its file has a path there."""
    return ("network",) if str(backbone.get("network", "")).endswith(CHECKPOINTS) else ()


def first_complaint(error: ValidationError) -> str:
    """Put the first complaint on one line."""
    found = error.errors()[0]
    where = ".".join(str(part) for part in found["loc"])
    text = found["msg"].removeprefix("Value error, ").replace("a valid tuple", "a list")
    return f"{where}: {text}" if where else text
