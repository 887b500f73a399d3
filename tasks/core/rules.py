"""Rules of thumb on how much to train, held against what was measured."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tasks.core.advice import ALIKE, BETTER, UNSURE, WORSE, allowed, differences_of
from tasks.core.verdict import EVERYTHING, HEAD, SCRATCH, SUFFIX, Measured
from tasks.core.verdict import differences as compare

FEW, MANY = 100, 1000
"""Samples a class: below the first labels are few, from the second on they are many. Books name no numbers."""
MUCH_LARGER = 10
"""So many times as many samples make a source that is much larger than the target."""


@dataclass(frozen=True)
class Target:
    """What rules of thumb go by.

    Attributes:
        classes: how many there are.
        source: samples that the backbone learnt from, None if nobody said.
    """

    classes: int
    source: int | None


def rules(found: Measured, target: Target) -> list[dict[str, Any]]:
    """Hold rules of thumb against what was measured.

    They are the usual advice of textbooks and courses (such as Stanford's CS231n, "Transfer learning"): how
    much to train goes by how many labels there are, and whether transfer helps by how much larger the
    source is. A rule agrees where it names what the inner folds chose, or where what it names is no worse;
    where that was not measured, or cannot be told of transfer, it neither agrees nor disagrees: None.
    """
    told = []
    for share in found.shares():
        best, each_class = found.chosen(share), found.train(share) / max(1, target.classes)
        if best is not None:
            told.append(_rule(found, share, best, each_class))
    return [*told, *_source_rule(found, target)]


def _rule(found: Measured, share: float, best: str, each_class: float) -> dict[str, Any]:
    if each_class < FEW:
        says, rule = HEAD, "few labels: freeze everything and train a head alone"
    elif each_class < MANY:
        says, rule = SUFFIX, "more labels: freeze fewer layers"
    else:
        says, rule = EVERYTHING, "many labels: pretrained weights are the start for everything"
    return {
        "rule": f"{found.train(share):,.0f} samples, {each_class:,.0f} a class: {rule}",
        "says": says,
        "measured": best,
        "agrees": found.depth(best).kind == says or _any_no_worse(found, says, best, share),
    }


def _any_no_worse(found: Measured, kind: str, best: str, share: float) -> bool | None:
    """Whether some depth of a kind is no worse than the best; None if none was measured beside it."""
    named = [depth.name for depth in found.depths if depth.kind == kind]
    apart = [found.difference("rule", (best, share), (name, share)) for name in named]
    told = [not each.low > 0 for each in apart if each is not None]
    return any(told) if told else None


def _source_rule(found: Measured, target: Target) -> Iterator[dict[str, Any]]:
    """What the sizes of source and target say of transfer, where both are known."""
    told = differences_of("transfer", compare(found), found.shares()[-1]) if found.cells else []
    if target.source is None or not told:
        return
    [each], much = told, target.source >= MUCH_LARGER * found.train(told[0].share)
    allows = allowed(found, each)
    yield {
        "rule": f"a source of {target.source:,} samples is {'' if much else 'not '}much larger than the target: "
        f"{'transfer helps' if much else 'transfer hardly helps'}",
        "says": "transfer" if much else SCRATCH,
        "measured": {
            BETTER: each.first,
            WORSE: each.second,
            ALIKE: "no difference",
            UNSURE: "cannot be told",
        }[allows],
        "agrees": None if allows == UNSURE else (allows == BETTER) == much,
    }
