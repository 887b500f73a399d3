"""A run in a few lines of Markdown, for the Prefect UI."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tasks.core.history import alike
from tasks.core.metrics import LOWER_IS_BETTER
from tasks.core.readings import read_drift
from tasks.core.words import UNKNOWN, lasted, points

UNBROKEN = "\u00a0"
"""A space at which no line is broken."""


@dataclass(frozen=True)
class Grid:
    """A verdict's cells as a table, a row for each depth and a column for each share.

    Attributes:
        depths: in the order of the cells.
        shares: share -> its training samples, the fewest first.
        cells: (depth, share) -> what was measured there.
        chosen: the (depth, share) that the inner folds chose.
    """

    depths: list[str]
    shares: dict[float, float | None]
    cells: dict[tuple[str, float], Mapping[str, Any]]
    chosen: set[tuple[str, float]]


def grid(verdict: Mapping[str, Any]) -> Grid:
    """Lay a verdict's cells out as a table."""
    cells, chosen = verdict["cells"], verdict["chosen"]
    rows = [*cells, *chosen]
    train = {row["share"]: row["train"] for row in rows if row["train"] is not None}
    return Grid(
        depths=list(dict.fromkeys(cell["depth"] for cell in cells)),
        shares={share: train.get(share) for share in sorted({row["share"] for row in rows})},
        cells={(cell["depth"], cell["share"]): cell for cell in cells},
        chosen={(each["depth"], each["share"]) for each in chosen},
    )


def told_spent(verdict: Mapping[str, Any]) -> str:
    """Say what finding a verdict took, and what it was allowed to take."""
    spent, missed = verdict["spent"], len(verdict["left_out"])
    budget = "" if spent["budget"] is None else f" in all, a run at most {lasted(spent['budget'])}"
    counts = [_count(spent[name], name) for name in ("fits", "epochs") if spent[name] is not None]
    counts += [f"{_count(missed, 'cells')} left out"] if missed else []
    return f"Spent {lasted(spent['seconds'])}{budget}{': ' if counts else ''}{', '.join(counts)}."


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
    parts = (
        *(_found(summary), _drift(summary), _depths(summary["verdict"]), _table(summary)),
        *(_drawn(pictures), _did(summary), _at(link)),
    )
    return "\n\n".join(text for part in parts if (text := "\n".join(part)))


def _found(summary: dict[str, Any]) -> Iterator[str]:
    best, headline = summary["best"], summary["headline"]
    score = best["metrics"][headline]
    how = "Chosen on inner folds" if best["inner_brier"] is not None else "Not chosen, the first"
    yield f"# {_text(summary['study'])}: {_percent(score['value'])} {_measure(summary)}"
    yield ""
    if summary["verdict"]:
        yield f"**{_text(summary['verdict']['sentence'])}**"
        yield ""
    yield f"{how}: **{_text(best['experiment'])}**, split {_text(best['split'])}, 95 % interval {_ends(score)}."


def _depths(verdict: Mapping[str, Any] | None) -> Iterator[str]:
    """The score of each depth with each number of training samples, and what it took to know."""
    if not verdict:
        return
    laid, metric = grid(verdict), verdict["metric"]
    if laid.depths:
        yield _row([f"{metric}, {verdict['split']}", *(_samples(train) for train in laid.shares.values())])
        yield f"| --- |{' ---: |' * len(laid.shares)}"
        for depth in laid.depths:
            yield _row([depth]) + "".join(f" {_cell(laid, depth, share, metric)} |" for share in laid.shares)
        yield ""
        yield "In bold: the depth that inner folds chose for so many samples. In brackets: the 95 % interval."
        yield ""
    yield _text(told_spent(verdict))


def _cell(laid: Grid, depth: str, share: float, metric: str) -> str:
    cell = laid.cells.get((depth, share))
    if cell is None:
        return ""
    low, high = (_score(end, metric) for end in cell["ci95"])
    score = _text(_score(cell["value"], metric))
    shown = f"**{score}**" if (depth, share) in laid.chosen else score
    return shown if UNKNOWN in (low, high) else f"{shown} {_text(f'({low} to {high})')}"


def _score(score: float | None, metric: str) -> str:
    """A score in a table that says of what; log loss is no share."""
    if score is None:
        return UNKNOWN
    return f"{score:.3f}" if metric in LOWER_IS_BETTER else f"{100 * score:.1f}"


def _samples(train: float | None) -> str:
    return UNKNOWN if train is None else f"{train:,.0f} samples"


def _count(number: float, of: str) -> str:
    return f"{number:,.0f} {of.removesuffix('s') if number == 1 else of}"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(_text(cell) for cell in cells)} |"


def _table(summary: dict[str, Any]) -> Iterator[str]:
    headline = summary["headline"]
    yield f"| experiment | split | {_measure(summary)} | 95 % interval | less the chosen one's, points |"
    yield "| --- | --- | ---: | ---: | ---: |"
    for row in summary["scores"]:
        score, less = row["metrics"][headline], row["less_chosen"]
        cells = [row["experiment"], row["split"], _percent(score["value"]), _ends(score), _less(less)]
        yield _row(cells)


def _measure(summary: Mapping[str, Any]) -> str:
    """Name the headline score; of several targets it is their mean."""
    headline: str = summary["headline"]
    return f"macro {headline}" if "targets" in summary else headline


def _less(less: dict[str, Any] | None) -> str:
    if less is None or less["value"] is None:
        return ""
    return f"{points(less['value'])}{', real' if less['real'] else ''}"


def _drift(summary: dict[str, Any]) -> Iterator[str]:
    """How the headline score moved since the last run of the same measure, or that there is no such run any more."""
    values = [float(run["value"]) for run in alike(summary["history"])]
    if len(values) > 1:
        yield f"Since the last run: **{points(values[-1] - values[-2])} points**."
    elif drift := read_drift(summary["history"]):
        yield f"{_text(drift[0].upper() + drift[1:])}."


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
