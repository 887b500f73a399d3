"""What a drawing of the report says, in one plain sentence."""

from collections.abc import Mapping, Sequence
from textwrap import shorten
from typing import Any

from tasks.core.history import alike
from tasks.core.metrics import LOWER_IS_BETTER
from tasks.core.words import points

SHOWN = 120
"""So many letters at most name the targets of another run."""


def read_curve(curve: Mapping[str, Any]) -> str:
    """Say whether more labels would help: whether the last step gained more than the interval explains.

    Args:
        curve: as `summary.json` holds it, with two points at least.
    """
    before, last = curve["points"][-2:]
    if None in (before["value"], last["value"], *last["ci95"]):
        return ""
    better = -1 if curve["metric"] in LOWER_IS_BETTER else 1
    gain = better * (last["value"] - before["value"])
    within = better * last["value"] - min(better * end for end in last["ci95"])
    step = f"From {before['train']:,.0f} to {last['train']:,.0f} training samples it"
    moved = _moved(gain, curve["metric"])
    if gain > within:
        return f"{step} gained {moved[1:]}, more than the interval allows for: more labels would likely help."
    if gain > 0:
        return (
            f"{step} gained {moved[1:]}, no more than the interval allows for: more labels may help little."
        )
    return f"{step} gained nothing ({moved}): more labels alike would hardly help."


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
    told = [row.get("targets", "") for row in rows[-2:]]
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
