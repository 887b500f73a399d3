"""A verdict in words: what to freeze, whether transfer helps, whether more labels would."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

from tasks.core.metrics import LOWER_IS_BETTER
from tasks.core.verdict import EVERYTHING, HEAD, SCRATCH, SUFFIX, Depth, Difference, Measured, row_of

NO_MATTER = 0.015
"""A difference whose whole interval lies nearer to nought than this, a point when rounded, does not matter."""
HOPELESS = 1000
"""Where so many times the test samples would be needed, no number is told."""

BETTER, WORSE, ALIKE, UNSURE = "better", "worse", "alike", "unsure"
"""What a difference's interval allows to be said."""


def sentence(found: Measured, differences: Sequence[Difference]) -> str:
    """Tell what was measured, in a few plain sentences, and what would settle what cannot be told."""
    if not found.cells:
        return "Cannot tell: nothing was measured; give it more minutes."
    whole = found.shares()[-1]
    best = found.chosen(whole)
    if best is None:
        return f"Cannot tell: {_nothing_chosen(found, whole)}."
    return " ".join(
        [
            *_scores(found, best, whole),
            *_left_out(found, whole),
            *_depth(found, differences, best, whole),
            *_transfer(found, differences, best, whole),
            *_with_few(found, differences, best, whole),
            *_labels(found, differences, whole),
        ]
    )


def _nothing_chosen(found: Measured, share: float) -> str:
    if found.common(share):
        return (
            "no inner folds could be made of the training part, so that no depth can be chosen; "
            "more samples, or more groups, of each class would settle it"
        )
    return "no split was measured at every depth; give it more minutes"


def _scores(found: Measured, best: str, share: float) -> Iterator[str]:
    """What the chosen depth gives, and beside it the best head and the best from scratch.

    The first two are told of the splits that both have, as their difference is.
    """
    frozen, scratch = (_beside(found, best, share, kind) for kind in (HEAD, SCRATCH))
    seeds = sorted(found.of(best, share).keys() & found.of(frozen or best, share).keys())
    row = row_of(found, best, share, seeds)
    told = [f"{_advised(found.depth(best))}: {_score(found, row['value'])}{_within(found, row)}"]
    for name, depth in (("everything frozen", frozen), ("from scratch", scratch)):
        if depth is not None:
            shared = [seed for seed in seeds if seed in found.of(depth, share)]
            score = _score(found, row_of(found, depth, share, shared)["value"])
            few = f" (on {_splits(len(shared))})" if len(shared) < len(seeds) else ""
            told.append(f"{name}{_own_name(found.depth(depth))} {score}{few}")
    yield f"{'; '.join(told)}."


def _beside(found: Measured, best: str, share: float, kind: str) -> str | None:
    """Name the best depth of a kind, unless the best of all is one of them."""
    if found.depth(best).kind == kind:
        return None
    return found.chosen(share, [depth for depth in found.depths if depth.kind == kind])


def _left_out(found: Measured, share: float) -> Iterator[str]:
    """What the choice was not made from."""
    if share < 1:
        yield f"Of the training part no more than {_percent(share)} was measured."
    absent = [depth.name for depth in found.depths if depth.transfers and not found.of(depth.name, share)]
    if absent:
        yield f"Not measured {_at(found, share)}: {', '.join(absent)}."
    common = len(found.common(share))
    most = max(len(found.of(depth.name, share)) for depth in found.depths)
    otherwise = "; other training samples may tell otherwise" if common == 1 else ""
    if common < most:
        yield f"It was chosen on {_splits(common)} alone, where all of this was measured{otherwise}."
    elif common == 1:
        yield f"One split alone was compared{otherwise}."


def _depth(found: Measured, differences: Sequence[Difference], best: str, share: float) -> Iterator[str]:
    """Whether what was chosen is worth more than a head alone; where it is, the scores say so.

    What a start from scratch is worth is told of transfer.
    """
    doing = _doing(found.depth(best))
    for each in differences_of("depth", differences, share) if found.depth(best).transfers else ():
        head, allows = _doing(found.depth(each.second)), allowed(found, each)
        if allows == WORSE:
            yield f"{_capital(head)} is better by {_amount(found, each)}{_chosen_otherwise(each, best)}"
        elif allows == ALIKE:
            yield f"{_capital(head)} is as good (paired difference {_moved(found, each)})."
        elif allows == UNSURE:
            yield f"Whether {doing} is worth more than {head} {_unsure(found, each)}."


def _transfer(found: Measured, differences: Sequence[Difference], best: str, share: float) -> Iterator[str]:
    """Whether anything pretrained helps with all labels, and with the fewest that were tried."""
    at, few = _at(found, share), _few_transfer(found, differences, share)
    told = differences_of("transfer", differences, share)
    if not told:
        yield f"Whether transfer helps was not measured {at}."
    for each in told:
        allows, otherwise = allowed(found, each), _chosen_otherwise(each, best)
        if allows == BETTER and otherwise == "." and few is not None and few.low > 0:
            otherwise, few = f", and by {_amount(found, few)} {_at(found, few.share)}.", None
        yield {
            BETTER: f"Transfer helps by {_amount(found, each)} {at}{otherwise}",
            WORSE: f"Transfer does not help {at}: a start from scratch is better by {_amount(found, each)}{otherwise}",
            ALIKE: f"Transfer makes hardly any difference {at} ({_moved(found, each)}).",
            UNSURE: f"Whether transfer helps {_unsure(found, each, at)}.",
        }[allows]
    if few is not None:
        helps = "transfer helps" if few.low > 0 else "a start from scratch is better"
        otherwise = _chosen_otherwise(few, found.chosen(few.share))
        yield f"{_capital(_at(found, few.share))} {helps} by {_amount(found, few)}{otherwise}"


def _few_transfer(found: Measured, differences: Sequence[Difference], share: float) -> Difference | None:
    """What transfer is worth with the fewest labels, where that can be told."""
    least = found.shares()[0]
    told = [each for each in differences_of("transfer", differences, least) if each.real]
    return told[0] if told and least < share else None


def _with_few(found: Measured, differences: Sequence[Difference], best: str, share: float) -> Iterator[str]:
    """How a head alone does with the fewest labels that were tried."""
    least = found.shares()[0]
    few = found.chosen(least)
    if least == share or few is None or sum(bool(found.of(depth.name, least)) for depth in found.depths) < 2:
        return
    at, each = _capital(_at(found, least)), _few_depth(found, differences, best, few)
    if each is None:
        yield f"{at} inner folds choose {_doing(found.depth(few))}{', too' if few == best else ''}."
        return
    other, head = _doing(found.depth(each.first)), _doing(found.depth(each.second))
    than = "" if each.first == best else f" as {other}"
    yield {
        BETTER: f"{at} {other} beats {head} by {_amount(found, each)}",
        WORSE: f"{at} {head} beats {other} by {_amount(found, each)}",
        ALIKE: f"{at} {head} is as good{than} (paired difference {_moved(found, each)})",
        UNSURE: f"{at} whether {other} is worth more than {head} {_unsure(found, each)}",
    }[allowed(found, each)] + _chosen_otherwise(each, few)


def _few_depth(found: Measured, differences: Sequence[Difference], best: str, few: str) -> Difference | None:
    """With the fewest labels, what was chosen less a head alone; where a head was, what is best with all less it.

    What a start from scratch is worth is told of transfer.
    """
    least = found.shares()[0]
    if found.depth(few).kind == HEAD:
        deeper = found.depth(best).kind in (SUFFIX, EVERYTHING)
        return found.difference("depth", (best, least), (few, least)) if deeper else None
    told = differences_of("depth", differences, least)
    return told[0] if told and found.depth(few).transfers else None


def _chosen_otherwise(each: Difference, chosen: str | None) -> str:
    """End a sentence, with a word on inner folds that chose what turned out to be worse."""
    worse = each.second if each.low > 0 else each.first
    return ", though inner folds chose otherwise." if each.real and chosen == worse else "."


def _labels(found: Measured, differences: Sequence[Difference], share: float) -> Iterator[str]:
    """Whether the last step to more labels helped."""
    told = differences_of("labels", differences, share)
    if not told:
        yield "Whether more labels would help was not measured."
    for each in told:
        before = max(less for less in found.shares() if less < share and found.chosen(less) is not None)
        step = f"from {_percent(before).removesuffix(' %')} to {_percent(share)}"
        yield {
            BETTER: f"More labels should still help: {_moved(found, each)} {step}.",
            WORSE: f"More labels did not help: {_moved(found, each)} {step}.",
            ALIKE: f"More labels should hardly help: {_moved(found, each)} {step}.",
            UNSURE: f"Whether more labels would help {_unsure(found, each, '', f' {step}')}.",
        }[allowed(found, each)]


def differences_of(what: str, differences: Sequence[Difference], share: float) -> list[Difference]:
    """Pick the differences of one kind on one share."""
    return [each for each in differences if (each.what, each.share) == (what, share)]


def allowed(found: Measured, each: Difference) -> str:
    """Tell what a difference's interval allows to be said; log loss has no points by which to call two alike."""
    if each.real:
        return BETTER if each.low > 0 else WORSE
    return ALIKE if found.metric not in LOWER_IS_BETTER and each.reach < NO_MATTER else UNSURE


def _advised(depth: Depth) -> str:
    told = {
        HEAD: "Freeze everything and train a head alone",
        SUFFIX: f"Freeze up to {depth.cut}",
        EVERYTHING: "Fine-tune everything",
        SCRATCH: "Train from scratch",
    }[depth.kind]
    return f"{told}{_own_name(depth)}"


def _doing(depth: Depth) -> str:
    told = {
        HEAD: "a head alone",
        SUFFIX: f"freezing up to {depth.cut}",
        EVERYTHING: "fine-tuning everything",
        SCRATCH: "training from scratch",
    }[depth.kind]
    return f"{told}{_own_name(depth)}"


def _own_name(depth: Depth) -> str:
    """What tables call a depth, where that is not plain from what it does."""
    return "" if depth.name in (depth.kind, depth.cut) else f" ({depth.name})"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _at(found: Measured, share: float) -> str:
    return f"at {found.train(share):,.0f} samples"


def _splits(count: int) -> str:
    return f"{count} split{'s' * (count != 1)}"


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def _score(found: Measured, value: float | None) -> str:
    if value is None:
        return "not known"
    return f"{value:.3f}" if found.metric in LOWER_IS_BETTER else f"{100 * value:.1f} %"


def _within(found: Measured, row: dict[str, Any]) -> str:
    """How far a score's interval reaches to its wider side."""
    value, (low, high) = row["value"], row["ci95"]
    if None in (value, low, high):
        return ""
    wider = max(value - low, high - value)
    return f" ± {wider:.3f}" if found.metric in LOWER_IS_BETTER else f" ± {100 * wider:.1f}"


def _amount(found: Measured, each: Difference) -> str:
    """How far apart two scores are, whichever is better."""
    return _spelled(found, abs(each.value), each.half, "")


def _moved(found: Measured, each: Difference) -> str:
    """A difference with its sign."""
    return _spelled(found, each.value, each.half, "+")


def _spelled(found: Measured, value: float, half: float, plus: str) -> str:
    """Spell a difference in points, or of log loss; what rounds to nought has no sign."""
    unit, digits, points = (1, 3, "") if found.metric in LOWER_IS_BETTER else (100, 1, " points")
    value, half = round(unit * value, digits), round(unit * half, digits)
    if value == half == 0:
        return f"less than {10**-digits:g}{points}"
    return f"{value or 0.0:{plus if value else ''}.{digits}f} ± {half:.{digits}f}{points}"


def _unsure(found: Measured, each: Difference, where: str = "", step: str = "") -> str:
    """Say that a difference cannot be told, and what would settle it."""
    told = " ".join(["cannot be told", *filter(None, [where])])
    if math.isnan(each.low):
        return f"{told}: these test parts give no interval"
    return f"{told} ({_moved(found, each)}{step}); {_settles(found, each)}"


def _settles(found: Measured, each: Difference) -> str:
    """Say how many test samples would tell a difference from nought, or that it does not matter.

    An interval narrows with the root of their number; what the seeds differ by does not, so more may be needed.
    """
    gap = NO_MATTER - abs(each.value) if found.metric not in LOWER_IS_BETTER else 0.0
    ways = [(each.half, abs(each.value)), (max(each.value - each.low, each.high - each.value), gap)]
    times = min((wide / wanted for wide, wanted in ways if wanted > 0), default=math.inf) ** 2
    if times <= 1:  # an end of the interval is nought itself, as where few samples tell the two apart
        return "more test samples would settle it"
    if times > HOPELESS:
        return "it is too small for any likely number of test samples to settle"
    needed = max(times * found.test, found.test + 1)
    unit = 10 ** max(0, math.floor(math.log10(needed)) - 1)
    needed = math.ceil(needed / unit) * unit
    return f"about {needed:,.0f} test samples or more (now {found.test:,}) would settle it"
