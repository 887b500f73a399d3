"""What a run says at its end: one table, and what was run and what was reused."""

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from itertools import dropwhile
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tasks.core.answers import MACRO
from tasks.core.words import points

WIDTH = 100
"""A table is never folded narrower than this, whatever the terminal says."""

MOST_LINES = 10
"""Of differences that are printed."""

COLUMNS = ("weighted accuracy", "accuracy", "balanced accuracy", "average precision")
OF_TARGETS = ("average precision", "AUROC", "F1")
"""The scores of several targets, each the mean over them."""


def show_summary(summary: dict[str, Any], place: Path) -> None:
    """Print a study's summary.

    Args:
        summary: as `summary.json` holds it.
        place: the study's folder of results.
    """
    console = Console(highlight=False, soft_wrap=True)
    wide = console.width
    console.width = max(console.width, WIDTH)
    console.print(_score_table(summary))
    for name, note in summary["notes"].items():
        if note:
            console.print(f"{name}: {note}")
    if summary["near_copies"] is None:
        console.print("near copies were not looked for: too many samples, or no pooled tap")
    for found in summary["near_copies"] or ():
        if found["count"]:
            console.print(
                f"{found['split']}: {_percent(found['share'])} of the test samples have a near copy in the training "
                "part, which flatters; the report shows them, a group column keeps them together"
            )
    console.print(_choice(summary["best"]))
    for line in (*_differences(summary), *_operating(summary), *_several(summary)):
        console.print(Text(line))
    console.print(what_ran(summary))
    for line in _verdict(summary["verdict"], wide):
        console.print(Text(line))
    console.print(f"report: {place / 'report.html'}")


def _score_table(summary: dict[str, Any]) -> Table:
    several = "targets" in summary
    first, *others = OF_TARGETS if several else COLUMNS[COLUMNS.index(summary["headline"]) :]
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("experiment", no_wrap=True)
    table.add_column("split", no_wrap=True)
    over = "macro " if several else ""
    for heading in (f"{over}{first}", "95% interval", *(f"{over}{name}" for name in others)):
        table.add_column(heading.replace(" ", "\n", 1), justify="right", no_wrap=True)
    for row in summary["scores"]:
        scores = row["metrics"]
        interval = " to ".join(_percent(end).removesuffix(" %") for end in scores[first]["ci95"])
        rest = [_percent(scores[name]["value"]) for name in others]
        table.add_row(row["experiment"], row["split"], _percent(scores[first]["value"]), interval, *rest)
    for reference in summary["references"]:
        cells = [
            _percent(reference["value"]) if reference["metric"] == name else "" for name in (first, *others)
        ]
        table.add_row(reference["name"], "", cells[0], "", *cells[1:], style="dim")
    return table


def _several(summary: dict[str, Any]) -> Iterator[str]:
    """What there is to tell of several targets: those left out, each one's score, and what joint training changes."""
    if "targets" not in summary:
        return
    headline = summary["headline"]
    for name, reason in summary["targets"]["left_out"].items():
        yield f"left out: {name}: {reason}"
    if len(summary["best"]["targets"]) > MOST_LINES:
        yield "each target's scores are in the report and in results.csv"
    for row in summary["best"]["targets"] if len(summary["best"]["targets"]) <= MOST_LINES else ():
        yield (
            f"{row['target']}: {_with_ends(headline, {headline: row['metrics'][headline]})}, "
            f"{row['known']:,.0f} known and tested"
        )
    for each in summary["joint_says"]:
        for line in (*_said_of_joint(each["says"]), each["width_says"]):
            yield f"{each['joint']}, {each['split']}: {line}" if line else ""


def _said_of_joint(says: Sequence[str]) -> list[str]:
    """What joint training changes; of many targets what is said of all of them, which begins with their mean."""
    if len(says) <= MOST_LINES:
        return list(says)
    of_all = dropwhile(lambda line: not line.startswith(f"{MACRO}: "), says)
    return ["each target's difference is in the report and in joint.csv", *of_all]


def _choice(best: dict[str, Any]) -> str:
    if best["inner_brier"] is None:
        return f"not chosen, the first: {best['experiment']} (a class has too few training samples for inner folds)"
    return f"chosen on inner folds: {best['experiment']}"


def _differences(summary: dict[str, Any]) -> Iterator[str]:
    """How far each other experiment lies from the chosen one; with many, the report alone tells."""
    others = [row for row in summary["scores"] if row["less_chosen"]]
    for row in others if len(others) <= MOST_LINES else ():
        found = row["less_chosen"]
        ends = " to ".join(_points(end) for end in found["ci95"])
        verdict = "a real difference" if found["real"] else "may be chance"
        yield (
            f"{row['split']}: {row['experiment']} less the chosen one: {_points(found['value'])} points "
            f"({ends}), {verdict}"
        )


def _operating(summary: dict[str, Any]) -> Iterator[str]:
    """What the chosen experiment's operating points give on the test parts."""
    for row in summary["operating_points"]:
        if row["experiment"] == summary["best"]["experiment"]:
            wish = f"{row['split']}: {row['wanted']} of {_percent(row['at_least'])} for {row['class']!r}"
            if "recall" in row:
                yield f"{wish} gives {_with_ends('recall', row)}, {_with_ends('precision', row)}"
            else:
                yield f"{wish}: no threshold reaches it on the inner folds"


def _verdict(verdict: Mapping[str, Any] | None, width: int) -> Iterator[str]:
    """The measured answer between two empty lines, and what it took."""
    if verdict:
        from tasks.core.markdown import told_spent  # brings scipy, for which `headstart plan` shall not wait

        yield ""
        for text in (verdict["sentence"], told_spent(verdict)):
            yield from textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)
        yield ""


def _with_ends(name: str, row: dict[str, Any]) -> str:
    low, high = row[name]["ci95"]
    return f"{name} {_percent(row[name]['value'])} ({_percent(low).removesuffix(' %')} to {_percent(high)})"


def _points(value: float | None) -> str:
    return "-" if value is None else points(value)


def ran_something(summary: dict[str, Any]) -> bool:
    """Whether a run had anything to extract or to train."""
    cells = (summary["verdict"] or {}).get("trained", 0)
    return bool(summary["samples"]["extracted"] or summary["experiments"]["trained"] or cells)


def what_ran(summary: dict[str, Any]) -> str:
    """Say in one line what was run and what was reused."""
    samples, experiments = summary["samples"], summary["experiments"]
    if not ran_something(summary):
        return f"everything was reused: {samples['total']:,} samples, {experiments['total']} heads"
    return (
        f"samples: {samples['extracted']:,} run through the network, {samples['reused']:,} reused, "
        f"{samples['quarantined']} quarantined; heads: {experiments['trained']} trained, {experiments['reused']} reused"
    )


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"
