"""A run in a few lines of Markdown, for the Prefect UI."""

from collections.abc import Iterator, Mapping
from typing import Any

from tasks.core.history import alike

UNKNOWN = "–"
UNBROKEN = "\u00a0"
"""A space at which no line is broken."""


def leaderboard(summary: dict[str, Any]) -> list[dict[str, Any]]:
    """Give each experiment's scores on each split, a row each."""
    return [
        {"experiment": row["experiment"], "split": row["split"]}
        | {name: found["value"] and round(found["value"], 4) for name, found in row["metrics"].items()}
        for row in summary["scores"]
    ]


def page(summary: dict[str, Any], link: str, pictures: Mapping[str, str]) -> str:
    """Say what the run found, how it compares with earlier ones, what it did, and where the report lies.

    Args:
        summary: as `summary.json` holds it.
        link: where the report is to be had.
        pictures: a title -> where the picture is to be had.
    """
    parts = (_found(summary), _drift(summary), _table(summary), _drawn(pictures), _did(summary), _at(link))
    return "\n\n".join(text for part in parts if (text := "\n".join(part)))


def _found(summary: dict[str, Any]) -> Iterator[str]:
    best, headline = summary["best"], summary["headline"]
    score = best["metrics"][headline]
    how = "Chosen on inner folds" if best["inner_brier"] is not None else "Not chosen, the first"
    yield f"# {_text(summary['study'])}: {_percent(score['value'])} {headline}"
    yield ""
    if summary["verdict"]:
        yield f"**{_text(str(summary['verdict']))}**"
        yield ""
    yield f"{how}: **{_text(best['experiment'])}**, split {_text(best['split'])}, 95 % interval {_ends(score)}."


def _table(summary: dict[str, Any]) -> Iterator[str]:
    headline = summary["headline"]
    yield f"| experiment | split | {headline} | 95 % interval | less the chosen one's, points |"
    yield "| --- | --- | ---: | ---: | ---: |"
    for row in summary["scores"]:
        score, less = row["metrics"][headline], row["less_chosen"]
        cells = [row["experiment"], row["split"], _percent(score["value"]), _ends(score), _less(less)]
        yield f"| {' | '.join(_text(cell) for cell in cells)} |"


def _less(less: dict[str, Any] | None) -> str:
    if less is None or less["value"] is None:
        return ""
    return f"{100 * less['value']:+.1f}{', real' if less['real'] else ''}"


def _drift(summary: dict[str, Any]) -> Iterator[str]:
    """How the headline score moved since the last run of the same measure."""
    values = [float(run["value"]) for run in alike(summary["history"])]
    if len(values) > 1:
        yield f"Since the last run: **{100 * (values[-1] - values[-2]):+.1f} points**."


def _drawn(pictures: Mapping[str, str]) -> Iterator[str]:
    for title, place in pictures.items():
        yield f"![{_text(title)}]({place})"
        yield ""
        yield f"*{_text(title)}*"
        yield ""


def _did(summary: dict[str, Any]) -> Iterator[str]:
    samples, heads = summary["samples"], summary["experiments"]
    yield (
        f"{samples['total']:,} samples: {samples['extracted']:,} run through the network, "
        f"{samples['reused']:,} reused, {samples['quarantined']} quarantined. "
        f"{heads['total']:,} heads: {heads['trained']:,} trained, {heads['reused']:,} reused."
    )


def _at(link: str) -> Iterator[str]:
    if link.startswith("http"):
        yield f"[The whole report]({link})"
    else:  # a browser follows no link from a server's page to a file
        yield f"The whole report: `{link}`"


def _ends(score: dict[str, Any]) -> str:
    low, high = score["ci95"]
    return f"{_percent(low).removesuffix(f'{UNBROKEN}%')} to {_percent(high)}"


def _percent(share: float | None) -> str:
    return UNKNOWN if share is None else f"{100 * share:.1f}{UNBROKEN}%"


def _text(written: str) -> str:
    """Keep what users write from being taken for Markdown or HTML."""
    return "".join(f"\\{letter}" if letter in r"\`*_{}[]<>()#+-.!|&~" else letter for letter in written)
