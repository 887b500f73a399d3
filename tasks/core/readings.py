"""What a drawing of the report says, in one plain sentence."""

from collections.abc import Mapping, Sequence
from textwrap import shorten
from typing import Any

from tasks.core.advice import NO_MATTER
from tasks.core.history import alike
from tasks.core.metrics import LOWER_IS_BETTER
from tasks.core.words import points

SHOWN = 120
"""So many letters at most name the targets of another run."""


def read_curve(curve: Mapping[str, Any], of: str = "labels") -> str:
    """Say whether the last step of a learning curve gained, and so whether more labels would help.

    Args:
        curve: "points", the last two of which it is about, and "gain" between them, as `summary.json` holds them.
        of: what there may be more of.
    """
    gain, (before, last) = curve["gain"], (f"{point['train']:,.0f}" for point in curve["points"][-2:])
    value, low, high = gain["difference"], gain["low"], gain["high"]
    if value is None or low is None:
        return f"whether more {of} would help cannot be told: a test part lacks a class"
    step = f"{points(value)} points ({points(low)} to {points(high)}) from {before} to {last} {of}"
    if low > 0:
        return f"{step}: more should still help"
    if max(-low, high) < NO_MATTER:
        return f"{step}: more should hardly help"
    return f"{step}: {'more did not help' if high < 0 else 'cannot tell whether more would help'}"


def read_drift(rows: Sequence[Mapping[str, Any]]) -> str:
    """Say how the headline moved since the last run that it can be held against.

    If there is none, say whether that is because the targets changed, and else nothing.

    Args:
        rows: of a history, this run last.
    """
    same = alike(rows)
    if not same or same[-1] is not rows[-1]:
        return ""
    if len(same) < 2:
        return _other_targets(rows)
    before, now = same[-2:]
    since = f"since the last run ({told_time(before['ended'])})"
    difference = now["value"] - before["value"]
    if abs(difference) < 1e-9:
        return f"unchanged {since}{_other(before, now)}"
    outside = not before["low"] <= now["value"] <= before["high"]
    where = "outside that run's interval" if outside else "within that run's interval"
    return f"{_moved(difference, now['metric'])} {since}, {where}{_other(before, now)}"


def told_time(ended: str) -> str:
    """Spell an ISO time of day for people, to the minute."""
    day, _, time = ended.partition("T")
    return f"{day} {time[:5]} UTC"


def _other_targets(rows: Sequence[Mapping[str, Any]]) -> str:
    """Say that the last run's mean is over other targets, where both are known."""
    told = [row["targets"] for row in rows[-2:]]
    if len(set(told)) < 2 or not all(told):
        return ""
    since = f"since the last run ({told_time(rows[-2]['ended'])})"
    were = shorten(told[0], SHOWN, placeholder=" …")
    return f"the targets changed {since}, so its score is not held against this one; then {were}"


def _other(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What else changed between two runs, which may be why."""
    told = []
    if before["experiment"] != now["experiment"]:
        told.append(f"then {before['experiment']} was chosen")
    if before["samples"] != now["samples"]:
        told.append(f"then of {before['samples']:,} samples")
    return "".join(f"; {each}" for each in told)


def _moved(difference: float, metric: str) -> str:
    """A difference of scores; of shares in points."""
    if metric in LOWER_IS_BETTER:
        return f"{difference:+.3f}"
    return f"{points(difference)} points"
