"""Trained heads on disk, without pickle.

A shelf is a folder: all heads that were trained on the same rows, features and split. Heads trained in one
go lie in one file of it, a safetensors file named by the digest of its bytes, so that a hundred heads cost
one write, and an added one its own. What several heads of a file hold alike, such as the training rows
among which neighbours are looked for, lies there once.
"""

import errno
import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from tasks.core import versions
from tasks.core.digest import DIGEST_BYTES, Stamp, StatCache, digest_bytes, digest_value
from tasks.core.errors import StoreError
from tasks.core.files import replacing
from tasks.core.hyper import JOINT, Hyper, Network, spelled
from tasks.core.predictors import KINDS, Predictor
from tasks.core.taps import CENTRE, parse_tap, spell

SUFFIX, COST = ".safetensors", ".seconds"
MEND = "; run the study again"


@dataclass(frozen=True)
class Inputs:
    """What a head is trained on: taps side by side, of one or several views.

    Attributes:
        backbone: the name of the backbone in the study; the features' identity decides.
        taps: as text, side by side in one row of features.
        views: of each sample; a head is trained on all of them, and says the mean of what it says of each.
    """

    backbone: str
    taps: tuple[str, ...]
    views: tuple[str, ...] = (CENTRE,)

    def sets(self, known: Mapping[str, str]) -> list[str]:
        """Name the feature sets, every tap of the first view, then of the next: (V * T,).

        Args:
            known: a tap of a view, as `spell` names it -> its feature set.
        """
        return [known[spell(parse_tap(tap), view)] for view in self.views for tap in self.taps]

    def identity(self, sets: Sequence[str]) -> list[object]:
        """Say which rows of features these are, as plain values."""
        views = [] if self.views == (CENTRE,) else [list(self.views)]
        return [list(sets), *views]


@dataclass(frozen=True)
class Grid:
    """Experiments of one name: the same inputs, and hyper-parameters of which inner folds choose.

    Attributes:
        name: what tables call it; it decides nothing.
        inputs: what its heads are trained on.
        hypers: a head for each.
    """

    name: str
    inputs: Inputs
    hypers: tuple[Hyper, ...]

    @property
    def is_network(self) -> bool:
        """Whether layers are trained, not a head alone."""
        return any(isinstance(hyper, Network) for hyper in self.hypers)

    @property
    def is_joint(self) -> bool:
        """Whether several targets share what is trained."""
        return any(hyper.kind in JOINT for hyper in self.hypers)


@dataclass(frozen=True)
class HeadFile:
    """A trained head, what it says of the rows that it has not seen, and its story.

    Attributes:
        predictor: takes raw features.
        log_proba: (n, C) of the test part.
        test_rows: (n,) digests of the test part.
        inner: (N, C) of the training part, by fits that did not see a row's fold; None without folds.
        train_rows: (N,) digests of the training part.
        story: classes, hyper-parameters, inner scores, certificate, versions.
    """

    predictor: Predictor
    log_proba: np.ndarray
    test_rows: list[str]
    inner: np.ndarray | None
    train_rows: list[str]
    story: dict[str, Any]


def head_key(hyper: Hyper) -> str:
    """Name a head among those of its shelf by all that decides it."""
    version = versions.FINETUNER if isinstance(hyper, Network) else versions.TRAINER
    return digest_value([version, *spelled(hyper)])


def shelf_key(
    inputs: Inputs,
    sets: Sequence[str],
    rows: Sequence[tuple[str, str, float, str]],
    test: np.ndarray,
    seed: int,
) -> str:
    """Name a shelf by all that its heads share.

    Args:
        inputs: of the heads.
        sets: the identities of their feature sets, in order.
        rows: (N,) digest, label, weight and group of each sample, sorted.
        test: (N,) bool.
        seed: of the inner folds.
    """
    parts = [[*row, bool(held_out)] for row, held_out in zip(rows, test, strict=True)]
    return digest_value([inputs.identity(sets), parts, seed])


def save_heads(shelf: Path, heads: Mapping[str, HeadFile]) -> Path:
    """Write heads trained in one go as one file, whole or not at all.

    Args:
        shelf: the folder.
        heads: key -> head; one or more, of the same rows. Their order decides nothing.

    Returns:
        The file.
    """
    first = next(iter(heads.values()))
    arrays = {"test_rows": _packed(first.test_rows), "train_rows": _packed(first.train_rows)}
    told = []
    for key, head in sorted(heads.items()):
        own = head.predictor.arrays() | {"log_proba": head.log_proba.astype(np.float32)}
        own |= {} if head.inner is None else {"inner": head.inner.astype(np.float32)}
        places = {}
        for name, array in own.items():
            flat = np.ascontiguousarray(array)
            places[name] = digest_value([flat.dtype.str, list(flat.shape), digest_bytes(flat.data)])
            arrays[places[name]] = flat
        told.append({"key": key, "kind": head.predictor.kind, "arrays": places, "story": head.story})
    data = save(arrays, {"heads": json.dumps(told)})  # of two entries the order would vary
    path = shelf / f"{digest_bytes(data)}{SUFFIX}"
    with replacing(path) as partial:
        partial.write_bytes(data)
    return path


def load_heads(path: Path) -> dict[str, HeadFile]:
    """Read the heads of a file, by their keys.

    Raises:
        StoreError: if the file is missing or damaged.
    """
    with _reading(path):
        data = path.read_bytes()
        _check(path, digest_bytes(data))
        arrays, told = load(data), _told(data[8 : 8 + _header(data)])
        rows = {name: _unpacked(arrays[name]) for name in ("test_rows", "train_rows")}
        return {each["key"]: _head(each, arrays, rows) for each in told}


def keys_in(path: Path) -> list[str]:
    """List the keys of the heads of a file, after a look at each of its bytes.

    Raises:
        StoreError: if the file is missing or damaged.
    """
    with _reading(path), path.open("rb") as file:
        told = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=DIGEST_BYTES))
        _check(path, told.hexdigest())
        end = file.tell()
        file.seek(0)
        size = _header(file.read(8))
        return [each["key"] for each in _told(file.read(min(size, end)))]


def stories_in(path: Path) -> dict[str, dict[str, Any]]:
    """Read what a file tells of each of its heads, by their keys, and nothing else; not checked.

    Raises:
        StoreError: if it cannot be read.
    """
    with _reading(path), path.open("rb") as file:
        told = _told(file.read(_header(file.read(8))))
        return {each["key"]: each["story"] for each in told}


def cost_of(path: Path) -> Path:
    """Name what is kept beside a file of heads: the seconds that training them took."""
    return path.with_suffix(COST)


def seconds_of(files: Mapping[str, Path]) -> float | None:
    """Tell what training heads took, by their keys and files; None if that was not kept.

    What is trained in one go lies in one file, and each head has an even share of its time. Heads do not tell it
    themselves: the same heads are the same bytes.
    """
    try:
        return sum(
            mine * float(cost_of(path).read_text()) / len(stories_in(path))
            for path, mine in Counter(files.values()).items()
        )
    except (OSError, ValueError):
        return None


def damage(path: Path) -> str:
    """Say what is wrong with a file of heads, or "" if it is whole or not there.

    Raises:
        StoreError: if it cannot be read for a reason that is not the file's.
    """
    try:
        keys_in(path)
    except _DamageError as error:
        return str(error).removeprefix(f"{path}: ").removesuffix(MEND) if path.exists() else ""
    return ""


def held(shelf: Path, seen: StatCache) -> tuple[dict[str, Path], list[Path]]:
    """Say which heads lie on a shelf.

    Args:
        shelf: the folder; it need not exist.
        seen: remembers which keys stand in a file that has not changed.

    Returns:
        Key -> file, and the files that are damaged.

    Raises:
        StoreError: if a file cannot be read for a reason that is not the file's.
    """
    keys, damaged = _look(shelf, seen)
    return {key: path for path, some in keys.items() for key in some}, damaged


def whole(shelf: Path, seen: StatCache) -> list[Path]:
    """List the files of a shelf that are not damaged; arguments and errors as for `held`."""
    return list(_look(shelf, seen)[0])


def _look(shelf: Path, seen: StatCache) -> tuple[dict[Path, list[str]], list[Path]]:
    """List the keys in each whole file of a shelf, and its damaged files."""
    found: dict[Path, list[str]] = {}
    damaged, learnt = [], {}
    files = sorted(shelf.glob(f"*{SUFFIX}"))
    known, stamps = seen.recall(files)
    for path in files:
        keys = _remembered(known.get(path, ""))
        if keys is None:
            try:
                stamps.setdefault(path, Stamp.of(path))
                keys = keys_in(path)
            except FileNotFoundError:
                continue  # removed by another process a moment ago
            except _DamageError:
                damaged.append(path)
                continue
            learnt[path] = json.dumps(keys)
        found[path] = keys
    if learnt:
        seen.remember(learnt, stamps)
    return found, damaged


class _DamageError(StoreError):
    """A file is not what its name promises."""


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Tell whatever goes wrong with a file in one line, and whether the file is to blame."""
    try:
        yield
    except StoreError:
        raise
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.EIO):
            raise StoreError(f"{path}: cannot be read ({error.strerror}); nothing was changed") from error
        raise _DamageError(f"{path}: no heads can be read ({error.strerror}){MEND}") from error
    except (SafetensorError, LookupError, ValueError, TypeError, AttributeError) as error:
        raise _DamageError(f"{path}: no heads can be read ({error}){MEND}") from error


def _check(path: Path, digest: str) -> None:
    if digest != path.stem:
        raise _DamageError(f"{path}: its bytes are not those that it is named by{MEND}")


def _header(data: bytes) -> int:
    """Say how long the header is that follows a file's first 8 bytes."""
    return int.from_bytes(data[:8], "little")


def _told(header: bytes) -> list[dict[str, Any]]:
    """Read what a file's header tells of its heads."""
    told: list[dict[str, Any]] = json.loads(json.loads(header)["__metadata__"]["heads"])
    return told


def _head(told: dict[str, Any], arrays: Mapping[str, np.ndarray], rows: dict[str, list[str]]) -> HeadFile:
    own = {name: arrays[place] for name, place in told["arrays"].items()}
    log_proba, inner = own.pop("log_proba").astype(np.float64), own.pop("inner", None)
    return HeadFile(
        predictor=KINDS[told["kind"]].of(own),
        log_proba=log_proba,
        inner=None if inner is None else inner.astype(np.float64),
        story=told["story"],
        **rows,
    )


def _remembered(value: str) -> list[str] | None:
    """Read keys that were remembered; None if they were not, or by another version."""
    try:
        keys = json.loads(value)
    except ValueError:
        return None
    return keys if isinstance(keys, list) else None


def _packed(digests: Sequence[str]) -> np.ndarray:
    rows = np.frombuffer(bytes.fromhex("".join(digests)), dtype=np.uint8)
    return rows.reshape(len(digests), len(rows) // max(1, len(digests)))


def _unpacked(rows: np.ndarray) -> list[str]:
    return [row.tobytes().hex() for row in rows]
