"""A verdict in words: what to freeze, whether transfer helps, whether more labels would; and rules of thumb."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tasks.core.metrics import LOWER_IS_BETTER
from tasks.core.verdict import EVERYTHING, HEAD, SCRATCH, SUFFIX, Depth, Difference, Measured, ends

FEW, MANY = 100, 1000
"""Samples a class: below the first labels are few, from the second on they are many. Books name no numbers."""
MUCH_LARGER = 10
"""So many times as many samples make a source that is much larger than the target."""
NO_MATTER = 0.01
"""A difference that lies within one point, its whole interval, does not matter."""
HOPELESS = 1000
"""Where so many times the test samples would be needed, no number is told."""


@dataclass(frozen=True)
class Target:
    """What rules of thumb go by.

    Attributes:
        classes: how many there are.
        source: samples that the backbone learnt from, None if nobody said.
    """

    classes: int
    source: int | None


def sentence(found: Measured, differences: Sequence[Difference]) -> str:
    """Tell what was measured, in a few plain sentences."""
    if not found.cells:
        return "Cannot tell: nothing was measured; give it more minutes."
    whole = found.shares()[-1]
    best = found.chosen(whole)
    if best is None:
        return "Cannot tell: the training part is too small for inner folds, so that no depth can be chosen."
    return " ".join(
        [
            *_scores(found, best, whole),
            *_depth(found, differences, best, whole),
            *_transfer(found, differences, whole),
            *_at_least(found, differences),
            *_labels(found, differences, whole),
        ]
    )


def _scores(found: Measured, best: str, share: float) -> Iterator[str]:
    """What the chosen depth gives, and beside it a head alone and a random start."""
    row = ends(found, best, share)
    half = None if None in row["ci95"] else (row["ci95"][1] - row["ci95"][0]) / 2
    others = [
        f"{_named(depth)} {_score(found, ends(found, depth.name, share)['value'])}"
        for depth in found.depths
        if depth.kind in (HEAD, SCRATCH) and depth.name != best and found.of(depth.name, share)
    ]
    told = f"{_advised(found.depth(best))}: {_score(found, row['value'])}{_within(found, half)}"
    yield f"{'; '.join([told, *others])}."


def _depth(found: Measured, differences: Sequence[Difference], best: str, share: float) -> Iterator[str]:
    """Whether what was chosen is worth more than a head alone."""
    for each in _of("depth", differences, share):
        if not each.real:
            yield (
                f"Whether that is worth more than a head alone cannot be told ({_moved(found, each)}); "
                f"{_settles(found, each)}."
            )


def _transfer(found: Measured, differences: Sequence[Difference], share: float) -> Iterator[str]:
    """Whether anything pretrained helps with all labels."""
    at = f"at {found.train(share):,.0f} samples"
    told = _of("transfer", differences, share)
    if not told:
        yield f"Whether transfer helps was not measured {at}."
    for each in told:
        if each.real and each.value > 0:
            yield f"Transfer helps by {_amount(found, each)} {at}."
        elif each.real:
            yield f"Transfer does not help: a start from scratch is better by {_amount(found, each, -1)} {at}."
        elif found.metric not in LOWER_IS_BETTER and max(-each.low, each.high) < NO_MATTER:
            yield f"Transfer does not help {at}: it makes no difference worth a point ({_moved(found, each)})."
        else:
            yield f"Whether transfer helps cannot be told {at} ({_moved(found, each)}); {_settles(found, each)}."


def _at_least(found: Measured, differences: Sequence[Difference]) -> Iterator[str]:
    """What holds with the fewest labels that were tried."""
    share = found.shares()[0]
    best = found.chosen(share)
    if share == found.shares()[-1] or best is None:
        return
    at = f"At {found.train(share):,.0f} samples"
    if found.depth(best).kind == HEAD:
        yield f"{at} a head alone is best."
    for each in _of("depth", differences, share):
        if each.real and each.value > 0:
            yield f"{at} to {_verb(found.depth(best))} is better than a head alone by {_amount(found, each)}."
        elif each.real:
            yield f"{at} a head alone is better by {_amount(found, each, -1)}, though inner folds chose {best}."
        else:
            yield f"{at} a head alone is as good (paired difference {_moved(found, each)})."
    for each in _of("transfer", differences, share):
        if each.real:
            helps = (
                f"transfer helps by {_amount(found, each)}" if each.value > 0 else "transfer does not help"
            )
            yield f"There {helps}."


def _labels(found: Measured, differences: Sequence[Difference], share: float) -> Iterator[str]:
    """Whether the last step to more labels helped."""
    shares = found.shares()
    for each in _of("labels", differences, share):
        step = f"{_moved(found, each)} from {100 * shares[-2]:.3g} to {100 * share:.3g} %"
        if each.real and each.value > 0:
            yield f"More labels should still help: {step}."
        else:
            yield f"Whether more labels would help cannot be told: {step}."


def rules(found: Measured, target: Target) -> list[dict[str, Any]]:
    """Hold rules of thumb against what was measured.

    They are the usual advice of textbooks and courses (such as Stanford's CS231n, "Transfer learning"): how
    much to train goes by how many labels there are, and whether transfer helps by how much larger the
    source is. A rule agrees where it names what the inner folds chose, or where what it names is no worse.
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
    named = [depth for depth in found.depths if depth.kind == says and found.of(depth.name, share)]
    agrees = found.depth(best).kind == says or any(
        _no_worse(found, depth.name, best, share) for depth in named
    )
    return {
        "rule": f"{found.train(share):,.0f} samples, {each_class:,.0f} a class: {rule}",
        "says": says,
        "measured": best,
        "agrees": agrees,
    }


def _no_worse(found: Measured, name: str, best: str, share: float) -> bool:
    apart = found.difference("rule", (best, share), (name, share))
    return apart is not None and not (apart.real and apart.value > 0)


def _source_rule(found: Measured, target: Target) -> Iterator[dict[str, Any]]:
    """What the sizes of source and target say of transfer, where both are known."""
    share = found.shares()[-1] if found.cells else 0.0
    told = _of("transfer", [each for each in _transfers(found, share) if each is not None], share)
    if target.source is None or not told:
        return
    much = target.source >= MUCH_LARGER * found.train(share)
    says = "transfer" if much else SCRATCH
    helps = told[0].real and told[0].value > 0
    yield {
        "rule": f"a source of {target.source:,} samples is {'' if much else 'not '}much larger than the target: "
        f"{'transfer helps' if much else 'transfer hardly helps'}",
        "says": says,
        "measured": told[0].first if helps else SCRATCH,
        "agrees": helps == much,
    }


def _transfers(found: Measured, share: float) -> Iterator[Difference | None]:
    moved = found.chosen(share, [depth for depth in found.depths if depth.transfers])
    for depth in found.depths:
        if moved is not None and not depth.transfers:
            yield found.difference("transfer", (moved, share), (depth.name, share))


def _of(what: str, differences: Sequence[Difference], share: float) -> list[Difference]:
    return [each for each in differences if (each.what, each.share) == (what, share)]


def _advised(depth: Depth) -> str:
    told = _verb(depth)
    return told[:1].upper() + told[1:]


def _verb(depth: Depth) -> str:
    return {
        HEAD: "freeze everything and train a head alone",
        SUFFIX: f"freeze up to {depth.cut}",
        EVERYTHING: "fine-tune everything",
        SCRATCH: "train from scratch",
    }[depth.kind]


def _named(depth: Depth) -> str:
    return "everything frozen" if depth.kind == HEAD else "from scratch"


def _score(found: Measured, value: float | None) -> str:
    if value is None:
        return "not known"
    return f"{value:.3f}" if found.metric in LOWER_IS_BETTER else f"{100 * value:.1f} %"


def _within(found: Measured, half: float | None) -> str:
    if half is None:
        return ""
    return f" ± {half:.3f}" if found.metric in LOWER_IS_BETTER else f" ± {100 * half:.1f}"


def _amount(found: Measured, each: Difference, sign: int = 1) -> str:
    if found.metric in LOWER_IS_BETTER:
        return f"{sign * each.value:.3f} ± {each.half:.3f}"
    return f"{100 * sign * each.value:.1f} ± {100 * each.half:.1f} points"


def _moved(found: Measured, each: Difference) -> str:
    if found.metric in LOWER_IS_BETTER:
        return f"{each.value:+.3f} ± {each.half:.3f}"
    return f"{100 * each.value + 0.0:+.1f} ± {100 * each.half:.1f} points"


def _settles(found: Measured, each: Difference) -> str:
    """Say how many test samples would tell such a difference from nought: its interval narrows with their root."""
    if each.value == 0 or not math.isfinite(each.half / each.value):
        return "no number of test samples settles that"
    times = (each.half / abs(each.value)) ** 2
    if times > HOPELESS:
        return "it is too small for any number of test samples to settle"
    needed = times * found.test
    digits = max(0, math.floor(math.log10(max(needed, 1))) - 1)
    return f"about {round(needed, -digits):,.0f} test samples instead of {found.test:,} would settle it"
