"""What a run says at its end: one table, and what was run and what was reused."""

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

COLUMNS = ("weighted accuracy", "accuracy", "balanced accuracy", "average precision")


def show_summary(summary: dict[str, Any], place: Path) -> None:
    """Print a study's summary.

    Args:
        summary: as `summary.json` holds it.
        place: the study's folder of results.
    """
    console = Console(highlight=False, soft_wrap=True)
    console.print(_score_table(summary))
    for name, note in summary["notes"].items():
        if note:
            console.print(f"{name}: {note}")
    console.print(f"chosen on inner folds: {summary['best']['experiment']}")
    console.print(_what_ran(summary))
    console.print(f"report: {place / 'report.html'}")


def _score_table(summary: dict[str, Any]) -> Table:
    table = Table()
    table.add_column("experiment")
    table.add_column("split")
    for column in COLUMNS:
        table.add_column(column, justify="right")
    for row in summary["scores"]:
        first = f"{_percent(row['metrics'][COLUMNS[0]]['value'])} [{_interval(row['metrics'][COLUMNS[0]]['ci95'])}]"
        others = [_percent(row["metrics"][name]["value"]) for name in COLUMNS[1:]]
        table.add_row(row["experiment"], row["split"], first, *others)
    for reference in summary["references"]:
        cells = [_percent(reference["value"]) if reference["metric"] == column else "" for column in COLUMNS]
        table.add_row(reference["name"], "", *cells, style="dim")
    return table


def _what_ran(summary: dict[str, Any]) -> str:
    samples, experiments = summary["samples"], summary["experiments"]
    if not samples["extracted"] and not experiments["trained"]:
        return f"everything was reused: {samples['total']:,} samples, {experiments['total']} heads"
    return (
        f"samples: {samples['extracted']:,} run through the network, {samples['reused']:,} reused, "
        f"{samples['quarantined']} quarantined; heads: {experiments['trained']} trained, {experiments['reused']} reused"
    )


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"


def _interval(ends: list[float | None]) -> str:
    return " to ".join("-" if end is None else f"{100 * end:.1f}" for end in ends)
