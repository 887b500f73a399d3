"""`headstart doctor STUDY`: whether a long run would go through, what it would do, and how long that takes.

Files are read as a run reads them, and what is found is remembered, so that the run does not read them again.
"""

import os
import platform
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, requires
from importlib.util import find_spec
from pathlib import Path
from urllib.request import build_opener

from rich.console import Console
from rich.table import Table
from rich.text import Text

from flows.forecast import Forecast
from flows.needs import needs_of, steps_of
from flows.sizes import Shapes
from flows.study import Study
from tasks.core.artifacts import Artifacts
from tasks.core.checks import (
    NOTE,
    OK,
    WRONG,
    Check,
    of_copies,
    of_files,
    of_labels,
    of_split,
    of_verdict,
    of_weights,
)
from tasks.core.errors import RequestError
from tasks.core.fits import FOLDS
from tasks.core.machine import library_version
from tasks.core.recipes import AUTO
from tasks.core.resources import free_bytes, of_memory, of_space, of_steps, of_versions
from tasks.core.samples import check_enough
from tasks.core.wishes import check_wishes

SYMBOLS = {OK: ("✓", "green"), NOTE: ("!", "yellow"), WRONG: ("✗", "red")}

NARROWEST, PIPED = 100, 10_000
"""Columns of a terminal, at least; and of what is no terminal, where each check stands on one line."""

EVERY = 1.0
"""Seconds between two updates of the line that counts files."""

ANSWER_WITHIN = 5.0
"""Seconds in which a server must say that it is well."""

TOLD = ("torch", "torchvision", "prefect", "fastapi", "h5py", "timm")
"""Packages whose versions are shown."""

PARTNERS = ("headstart", "torchvision", "prefect")
"""Packages whose requirements are held against what is installed."""


def show_doctor(study: Study, artifacts: Path) -> int:
    """Print a line for each check.

    Args:
        study: what would run.
        artifacts: the folder for all outputs.

    Returns:
        0, the exit code, if a run can go.

    Raises:
        RequestError: if a check says that a run would be refused or fail.
    """
    console = Console(highlight=False, markup=False)
    console.width = max(console.width, NARROWEST) if console.is_terminal else PIPED
    forecast = Forecast(study, Artifacts(artifacts))
    with _counted(len(forecast.listed)) as progress:
        forecast.read(progress)
    wrong = []
    for check in _checks(forecast):
        console.print(_line(check))
        wrong += [check] if check.state == WRONG else []
    if wrong:
        raise RequestError(
            f"a run would be refused or fail: {wrong[0].name}: {wrong[0].found}{_more(len(wrong) - 1)}"
        )
    console.print("a run can go")
    return 0


def _more(count: int) -> str:
    return f" (and {count} more, see above)" if count else ""


def _line(check: Check) -> Table:
    symbol, colour = SYMBOLS[check.state]
    line = Table.grid(padding=(0, 1))
    line.add_column(width=7)
    line.add_column(width=10)
    line.add_column()
    text = f"{check.found}; {check.todo}" if check.todo else check.found
    line.add_row(Text(f"{symbol} {check.state}", style=colour), check.name, text)
    return line


@contextmanager
def _counted(total: int) -> Iterator[Callable[[int], None]]:
    """Count files on a line of the terminal, which is gone at the end."""
    shown = time.monotonic()

    def tell(done: int) -> None:
        nonlocal shown
        if sys.stderr.isatty() and time.monotonic() - shown >= EVERY:
            shown = time.monotonic()
            print(f"\r\x1b[K  {done:,} of at most {total:,} files read", end="", file=sys.stderr, flush=True)

    yield tell
    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def _checks(forecast: Forecast) -> Iterator[Check]:
    """Check a study, part by part; what it would do is told only if it would run."""
    told = []
    for part in (_samples, _networks):
        for check in part(forecast):
            told.append(check)
            yield check
    if any(check.state == WRONG for check in told):
        yield Check("work", NOTE, "not told", "mend what is wrong first")
    else:
        try:
            yield from _work(forecast)
        except RequestError as refusal:
            yield Check("work", WRONG, str(refusal))
    yield from _device(forecast)
    yield _server()
    yield from _versions()


def _samples(forecast: Forecast) -> Iterator[Check]:
    """Files, labels, duplicates, weights, operating points and splits."""
    source, examined = forecast.study.source(), forecast.examined
    unreadable = sum(bool(each.problem) and not each.digest for each in examined)
    yield of_files(len(forecast.listed), forecast.quarantine, unreadable, most_bad=source.most_bad)
    if source.columns.targets:
        yield from _targets(forecast)
        return
    written = forecast.listed[source.columns.target].tolist()
    labels = of_labels(written, forecast.table)
    yield from labels
    yield from of_copies(forecast.listed["path"].tolist(), [each.digest for each in examined], written)
    if source.columns.weight is not None:
        yield of_weights(forecast.table, source.columns.weight)
    try:
        check_wishes(forecast.study.wishes(), sorted(set(forecast.known.label)))
    except RequestError as refusal:
        yield Check("wishes", WRONG, str(refusal))
    for spec in forecast.study.split_specs() if labels[0].state == OK else ():
        yield from of_split(spec, forecast.known, folds=FOLDS)


def _targets(forecast: Forecast) -> Iterator[Check]:
    """Answers, what each split gives, duplicates and weights."""
    from tasks.core.answer_checks import of_answer_copies, of_answer_weights, of_answers, of_spellings

    study, listed, columns = forecast.study, forecast.listed, forecast.study.source().columns
    try:
        check_enough(forecast.table, forecast.quarantine, len(listed), most_bad=1)
    except RequestError as refusal:
        what, _, todo = str(refusal).partition("; ")
        yield Check("targets", WRONG, what, todo)
    else:
        yield from of_answers(forecast.table, study.split_specs(), study.data.least_known)
    written = {target: listed[target.name].tolist() for target in columns.targets}
    yield from of_spellings(written)
    yield from of_answer_copies(listed["path"].tolist(), [each.digest for each in forecast.examined], written)
    if columns.weight is not None:
        yield of_answer_weights(forecast.table, columns.weight)


def _networks(forecast: Forecast) -> Iterator[Check]:
    """Whether the networks have the taps and cuts, and whether their weights are here."""
    for name in forecast.backbones:
        try:
            shapes = forecast.shapes(name)
        except RequestError as refusal:
            yield Check("network", WRONG, f"{name}: {refusal}")
            continue
        found = f"{name}: {_told_rows(shapes)}"
        if name in forecast.far:
            yield Check(
                "network", NOTE, f"{found}; its weights are not on this machine", "a run downloads them"
            )
        else:
            yield Check("network", OK, found)


def _told_rows(shapes: Shapes) -> str:
    """Say what the rows are that are kept of a network."""
    if shapes is None:
        return "rows of a size that only a pass tells"
    rows = [f"{tap} {' x '.join(f'{n:,}' for n in shape)}" for tap, shape in shapes.items()]
    return f"rows of {', '.join(rows)}" if rows else "no rows are kept, all of it is trained"


def _work(forecast: Forecast) -> Iterator[Check]:
    """What a run would do, and what it takes of disk, memory and time."""
    plan, verdict = forecast.plan, forecast.plan.verdict
    told = [f"{len(wave.samples):,} passes of {wave.backbone} ({wave.view})" for wave in forecast.waves]
    told += [
        f"{count:,} {what}"
        for count, what in (
            (forecast.lacking(layers=False), "heads to train"),
            (forecast.lacking(layers=True), "searches of layers"),
            (len(verdict.lacking) if verdict else 0, "cells of the verdict"),
        )
        if count
    ]
    yield Check("work", OK, ", ".join(told) or "nothing to do: a run would reuse everything")
    writes = plan.writes()
    yield of_space(writes.features, writes.layers, free_bytes(forecast.here.root), writes.unknown)
    yield from _memory(forecast)
    if verdict:
        needed = sum(each.needed for each in verdict.depths)
        yield of_verdict(needed, verdict.skipped, forecast.cells, verdict.seconds)
    if told:
        yield Check("time", OK, forecast.time())


def _memory(forecast: Forecast) -> Iterator[Check]:
    """What training takes of memory; on a GPU the steps of layers are cut until they fit."""
    import torch

    if forecast.heads:
        yield from of_memory(needs_of(forecast))
    if forecast.layers and not torch.cuda.is_available():
        yield from of_steps(steps_of(forecast))


def _device(forecast: Forecast) -> Iterator[Check]:
    """What runs the networks, and whether an engine that the study pins is to be had."""
    import torch

    lacking = {
        "openvino": find_spec("openvino") is None
        and "openvino is not installed; pip install 'headstart[cpu]'",
        "compiled": not any(map(shutil.which, ("g++", "clang++", "c++"))) and "there is no C++ compiler",
    }
    for name in forecast.backbones:
        pinned = forecast.study.recipe(name).engine
        if reason := lacking.get(pinned):
            what, _, todo = reason.partition("; ")
            yield Check("device", WRONG, f'{name}: engine = "{pinned}": {what}', todo or f'choose "{AUTO}"')
    cores = f"{os.cpu_count()} cores"
    if torch.cuda.is_available():
        yield Check("device", OK, f"{torch.cuda.get_device_name()}, {cores}")
        return
    engines = ", ".join(["eager", "channels_last", *(name for name, reason in lacking.items() if not reason)])
    found = f"no GPU, {cores}; engines: {engines}"
    if lacking["openvino"]:
        todo = "OpenVINO, the fastest on most CPUs, is lacking: pip install 'headstart[cpu]'"
        yield Check("device", NOTE, found, todo)
    else:
        yield Check("device", OK, found)


def _server() -> Check:
    """Which Prefect server a run would report to."""
    from flows.server import find_server

    api = find_server()
    if api is None:
        return Check("server", OK, "none is running: a run starts one of its own, which ends with it")
    try:
        with build_opener().open(f"{api}/health", timeout=ANSWER_WITHIN):
            return Check("server", OK, f"Prefect at {api}")
    except (OSError, ValueError):
        return Check(
            "server", WRONG, f"no Prefect server answers at {api}", "start it, or unset PREFECT_API_URL"
        )


def _versions() -> Iterator[Check]:
    """Whether what is installed goes together."""
    needed = {package: _requirements(package) for package in PARTNERS}
    wrong = of_versions(needed, library_version)
    yield from wrong
    if not wrong:
        told = ", ".join(f"{package} {library_version(package)}" for package in TOLD)
        yield Check("versions", OK, f"python {platform.python_version()}, {told}: they go together")


def _requirements(package: str) -> list[str]:
    try:
        return requires(package) or []
    except PackageNotFoundError:
        return []
