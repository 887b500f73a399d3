"""What joint training changes, in plain sentences."""

from collections.abc import Mapping, Sequence
from typing import Any

from tasks.core.answers import MACRO, MICRO
from tasks.core.words import points

LINEAR = (
    "Linear heads on frozen features share no number, so that training them jointly gives what training each by "
    "itself gives; what joint training can change, it changes by a hidden layer."
)


ONE_SEED = "One seed alone was compared; other training samples and other starts may tell otherwise."


def read_gain(gain: Mapping[str, Any]) -> str:
    """Say whether joint training helps a target, hurts it, or cannot be told to do either."""
    value, low, high = gain["difference"], gain["low"], gain["high"]
    if value is None:
        return f"{gain['target']}: cannot tell; a seed's test part has one answer alone"
    ends = f"({points(low)} to {points(high)})"
    if not gain["real"]:
        return f"{gain['target']}: cannot tell ({points(value)} points, {ends[1:]}"
    does = "helps" if value > 0 else "hurts"
    return f"{gain['target']}: joint {does} by {abs(100 * value):.1f} points {ends}"


def read_gains(
    gains: Sequence[Mapping[str, Any]],
    metric: str,
    counts: Sequence[Mapping[str, Any]],
    joint: str,
    split: str,
    seeds: int,
) -> list[str]:
    """Say it of every target, of their mean, and what the others' data adds to the target with the fewest answers.

    Args:
        gains: as `summary.json` holds them.
        metric: which score.
        counts: known answers of each target.
        joint: which joint experiment, and on which
        split: it was scored.
        seeds: of the split; what one seed alone says holds for this training.
    """
    mine = [
        each for each in gains if (each["joint"], each["split"], each["metric"]) == (joint, split, metric)
    ]
    told = [read_gain(each) for each in mine if each["target"] != MICRO]
    known = {each["target"]: each["known"] for each in counts}
    some = [each for each in mine if each["target"] in known]
    if len(some) > 1:
        least = min(some, key=lambda each: known[each["target"]])
        name = least["target"]
        adds = read_gain(least).partition(": ")[2]
        told.append(
            f"{name} has the fewest answers ({known[name]:,}); what those to the others add to it: {adds}"
        )
    if told and seeds == 1:
        told.append(ONE_SEED)
    return told


def read_widths(widths: Sequence[Mapping[str, Any]]) -> str:
    """Say whether the network is large enough: whether joint training gains on separate where it is wider.

    Args:
        widths: of one pair and split, in the study's order.
    """
    known = [each for each in widths if each["difference"] is not None]
    if len(known) < 2:
        return ""
    best = max(known, key=lambda each: each["joint_value"])
    worse = [each for each in known if each["real"] and each["difference"] < 0]
    small = [
        each
        for each in worse
        if _units(each) < min(map(_units, (e for e in known if e not in worse)), default=0)
    ]
    told = f"On inner folds the joint network is best with a layer of {best['width']}"
    if not worse:
        return f"{told}; of no width can it be told to be worse than separate ones of that width."
    listed = ", ".join(each["width"] for each in worse)
    why = ": too small for all targets" if small == worse else ""
    return f"{told}; with {listed} it is worse than separate ones{why}."


def _units(row: Mapping[str, Any]) -> int:
    return int(row["width"].split("x")[0])


def of_targets(names: Sequence[str]) -> list[str]:
    """Put the targets' names before the means over them."""
    return [*(name for name in names if name not in (MACRO, MICRO)), MACRO, MICRO]
