"""Whether the machine has what a run takes: disk, memory, and packages that go together."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement

from tasks.core.checks import NOTE, OK, WRONG, Check
from tasks.core.stored import BYTES_A_NUMBER, SHARE, fits_in_memory, machine_memory
from tasks.core.tables import readable
from tasks.core.words import size

NEARLY_FULL = 0.9
"""Of the free space, or of the memory."""


@dataclass(frozen=True)
class Need:
    """What training on some features takes.

    Attributes:
        experiment: the first that is trained on them.
        heads: the kinds of its heads, and of the others on the same features.
        rows: samples times views.
        columns: features side by side.
        many: targets, of several, that have more than two answers.
    """

    experiment: str
    heads: frozenset[str]
    rows: int
    columns: int
    many: tuple[str, ...] = ()

    def fits(self) -> bool:
        """Whether the features are held in memory, as the training asks itself."""
        return fits_in_memory(self.rows, self.columns)


@dataclass(frozen=True)
class Step:
    """What a step of training layers takes.

    Attributes:
        experiment: whose layers they are.
        batch: samples of the step.
        bytes: of memory.
    """

    experiment: str
    batch: int
    bytes: int


def free_bytes(folder: Path) -> int:
    """Say how many bytes are free on the disk of a folder, which need not be there yet."""
    place = next(each for each in (folder, *folder.parents) if each.exists())
    return shutil.disk_usage(place).free


def of_space(features: int, layers: int, free: int, unknown: Sequence[str]) -> Check:
    """Tell whether what a run writes fits on the disk.

    Args:
        features: bytes of those that are still to be written, as far as known.
        layers: bytes of trained layers and their checkpoints, likewise.
        free: bytes.
        unknown: backbones and experiments of which nobody knows how much they write.
    """
    needed = features + layers
    more = f", trained layers and their checkpoints {size(layers)}" if layers else ""
    more += f", and those of {', '.join(unknown)}, of unknown size" if unknown else ""
    found = f"features take {size(features)}{more}; {size(free)} are free"
    if needed > free:
        return Check(
            "disk",
            WRONG,
            found,
            "free some, choose another disk with --artifacts, or take fewer taps, cuts or views",
        )
    if unknown or needed > NEARLY_FULL * free:
        return Check("disk", NOTE, found, "see that there is room: heads and results come on top")
    return Check("disk", OK, found)


def of_steps(steps: Sequence[Step]) -> list[Check]:
    """Tell which layers are trained in steps that are too large for this machine's memory."""
    if not steps:
        return [Check("memory", NOTE, "not told of layers, whose network cannot be run without numbers")]
    whole, largest = machine_memory(), max(step.bytes for step in steps)
    return [
        Check(
            "memory",
            NOTE,
            f"{step.experiment}: a step of {step.batch:,} samples takes about {size(step.bytes)}; this machine has "
            f"{size(whole)}",
            "set a smaller batch, or choose a later cut",
        )
        for step in steps
        if step.bytes > NEARLY_FULL * whole
    ] or [
        Check(
            "memory",
            OK,
            f"a step of layers takes about {size(largest)} at most; this machine has {size(whole)}",
        )
    ]


def of_memory(needs: Sequence[Need]) -> list[Check]:
    """Tell which features are held in memory for training, and which heads cannot do without that."""
    if not needs:
        return [Check("memory", NOTE, "not told, since nobody knows how large a row of features is")]
    limit, checks = SHARE * machine_memory(), []
    for need in (need for need in needs if not need.fits()):
        found = (
            f"{need.experiment}: training on {need.rows:,} rows of {need.columns:,} features takes "
            f"{size(need.rows * need.columns * BYTES_A_NUMBER)}, more than the {size(limit)} it may"
        )
        checks += _refused(need, found) or [
            Check("memory", NOTE, found, "nothing: the heads are trained from a stream, which is slower")
        ]
    largest = max(need.rows * need.columns * BYTES_A_NUMBER for need in needs)
    fine = Check("memory", OK, f"training takes at most {size(largest)}; it may take {size(limit)}")
    return checks or [fine]


def _refused(need: Need, found: str) -> list[Check]:
    """Tell what is not trained from a stream: other heads than softmax, and targets of more than two answers."""
    others, checks = ", ".join(sorted(need.heads - {"softmax"})), []
    if others:
        todo = (
            'only head "softmax" is trained from a stream; leave the others out, or take fewer taps or views'
        )
        checks.append(Check("memory", WRONG, f"{found}; head {others} needs that", todo))
    if need.many and "softmax" in need.heads:
        names = ", ".join(map(readable, need.many))
        todo = "only questions of two answers are learnt from a stream; leave others out, or take fewer taps or views"
        checks.append(Check("memory", WRONG, f"{found}; head softmax needs that for {names}", todo))
    return checks


def of_versions(needed: Mapping[str, Sequence[str]], installed: Callable[[str], str]) -> list[Check]:
    """Hold installed packages against what others say that they need.

    Args:
        needed: package -> its requirements, as its metadata spells them.
        installed: package -> its version, or "".
    """
    return [
        Check(
            "versions",
            WRONG,
            f"{package} needs {wish.name}{wish.specifier}, {installed(wish.name) or 'none'} is installed",
            f"pip install '{wish.name}{wish.specifier}'",
        )
        for package, texts in needed.items()
        for wish in map(_requirement, texts)
        if wish is not None and not _is_met(wish, installed(wish.name))
    ]


def _is_met(wish: Requirement, version: str) -> bool:
    return bool(version) and wish.specifier.contains(version, prereleases=True)


def _requirement(text: str) -> Requirement | None:
    """Read a requirement; None if it is for an extra, for another system, or cannot be read."""
    try:
        wish = Requirement(text)
    except InvalidRequirement:
        return None
    return wish if wish.marker is None or wish.marker.evaluate({"extra": ""}) else None
