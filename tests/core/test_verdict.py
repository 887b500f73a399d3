"""What cells tell: scores over seeds, paired differences, and a choice that test scores have no part in."""

import json
import math
from collections import Counter
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, chisquare, norm

from tasks.core.metrics import (
    METRICS,
    Drawn,
    TestPart,
    draw_groups,
    draw_scores,
    intervals,
    over_seeds,
    percentiles,
)
from tasks.core.verdict import (
    Cell,
    Depth,
    Difference,
    Measured,
    as_rows,
    differences,
    row_of,
    spelled,
)

TestPart.__test__ = False  # a name that pytest would take for tests

DEPTHS = (
    Depth("head", "head"),
    Depth("blocks.3", "suffix", "blocks.3"),
    Depth("everything", "everything"),
    Depth("scratch", "scratch"),
)
NAMES = [depth.name for depth in DEPTHS]
REPLICATES = 200


def drawn(value: float = 0.5, wobble: float = 0.02, seed: int | list[int] = 0, groups: int = 50) -> Drawn:
    """A score with made-up draws."""
    noise = np.random.default_rng(seed).normal(size=REPLICATES)
    return Drawn(value, value + wobble * noise, np.arange(groups))


def flat(value: float, groups: int) -> Drawn:
    """A score that no draw moves."""
    return Drawn(value, np.full(REPLICATES, value), np.arange(groups))


def cell(
    depth: str = "head",
    share: float = 1.0,
    seed: int = 0,
    inner: float | None = 0.3,
    score: Drawn | None = None,
    **changes: object,
) -> Cell:
    told = {"train": round(1000 * share), "seconds": 2.0, "without_cache": 3.0} | changes
    return Cell(depth, share, seed, inner=inner, score=drawn() if score is None else score, **told)


def measured(*cells: Cell, metric: str = "accuracy", depths: tuple[Depth, ...] = DEPTHS) -> Measured:
    return Measured(metric, depths, cells, test=200)


def scored(
    depth: str, seed: int, right: float, *, share: float = 1.0, metric: str = "accuracy", n: int = 300
) -> Cell:
    """A cell of so many right answers on a quarter of n samples, scored under draws that all cells share."""
    draws = draw_groups([str(row) for row in range(n)], replicates=REPLICATES)
    rows = np.random.default_rng(seed).permutation(n)[: n // 4]
    is_right = np.random.default_rng([seed, *depth.encode()]).uniform(size=len(rows)) < right
    labels = rows % 2
    log_proba = np.log(np.where(np.eye(2)[labels] == is_right[:, None], 0.9, 0.1))
    score = draw_scores(TestPart(rows, labels, np.ones(len(rows)), log_proba), draws)[metric]
    return cell(depth, share, seed, score=score)


def spread(drawn: Drawn) -> float:
    low, high = percentiles(drawn.draws)
    return high - low


# Scores over seeds


def test_of_one_seed_alone_the_draws_are_its_own():
    one = scored("head", 0, 0.8).score
    found = over_seeds([one])
    assert found.value == one.value
    np.testing.assert_array_equal(found.draws, one.draws)
    np.testing.assert_array_equal(found.groups, one.groups)


@pytest.mark.parametrize("count", [2, 3])
def test_each_replicate_is_the_mean_of_as_many_seeds_drawn_with_replacement(count):
    """Every replicate is one of the S ^ S means that there can be, and each of these is as frequent as it should be."""
    replicates = 6000
    draws = np.random.default_rng(0).normal(size=(count, replicates))
    found = over_seeds([Drawn(0.0, each, np.arange(3)) for each in draws]).draws
    picks = list(product(range(count), repeat=count))
    means = np.array([draws[list(pick)].mean(axis=0) for pick in picks])  # (S ^ S, B)
    fits = np.isclose(means, found)
    assert fits.any(axis=0).all()
    kinds = Counter(tuple(sorted(pick)) for pick in picks)
    first = [tuple(sorted(picks[number])) for number in fits.argmax(axis=0)]
    seen = Counter(first)
    expected = [replicates * kinds[kind] / len(picks) for kind in kinds]
    assert chisquare([seen[kind] for kind in kinds], expected).pvalue > 1e-3


def test_the_interval_is_that_of_a_naive_two_stage_loop():
    scores = [scored("head", seed, right, n=400).score for seed, right in enumerate((0.7, 0.8, 0.75))]
    random, looped = np.random.default_rng(7), []
    for _ in range(100):
        for replicate in range(REPLICATES):
            seeds = random.integers(0, 3, size=3)
            looped.append(sum(scores[seed].draws[replicate] for seed in seeds) / 3)
    found = over_seeds(scores)
    assert found.value == np.mean([each.value for each in scores])
    assert percentiles(found.draws) == pytest.approx(np.percentile(looped, [2.5, 97.5]), abs=0.012)
    assert found.draws.std() == pytest.approx(np.std(looped), rel=0.15)


@given(st.lists(st.floats(-0.2, 0.2), min_size=2, max_size=5), st.floats(1.5, 5))
def test_the_more_the_seeds_differ_the_wider_is_the_interval(offsets, times):
    def wide(stretch: float) -> float:
        draws = drawn(0.5, 0.01).draws
        return spread(over_seeds([Drawn(0.5, draws + stretch * each, np.arange(9)) for each in offsets]))

    assert wide(0) == pytest.approx(spread(drawn(0.5, 0.01)))
    if np.ptp(offsets) > 0.1:
        assert wide(0) < wide(1) < wide(times)


def test_a_draw_that_a_seed_lacks_is_lost_only_where_that_seed_is_drawn():
    """A replicate may leave out all samples of a class, so that there is no average precision in it."""
    one, other = drawn(0.6, seed=1), drawn(0.5, seed=2)
    one.draws[: REPLICATES // 2] = math.nan
    found = over_seeds([one, other])
    lost = np.isnan(found.draws)
    assert not lost[REPLICATES // 2 :].any()
    assert 0.6 < lost[: REPLICATES // 2].mean() < 0.9  # three quarters of the pairs hold the first
    kept = found.draws[: REPLICATES // 2][~lost[: REPLICATES // 2]]
    assert np.isin(kept, other.draws).all()
    assert all(map(math.isfinite, percentiles(found.draws)))


def test_where_one_seeds_score_cannot_be_had_the_mean_is_not_known():
    gone = Drawn(math.nan, np.full(REPLICATES, math.nan), np.arange(9))
    found = over_seeds([drawn(), gone, drawn(seed=1)])
    assert math.isnan(found.value)
    assert np.isnan(found.draws).all()


def test_the_groups_are_those_that_any_seed_tested():
    parts = [Drawn(0.5, drawn().draws, np.array(groups)) for groups in ([1, 3], [2, 3], [5])]
    assert over_seeds(parts).groups.tolist() == [1, 2, 3, 5]


def test_the_same_cells_give_the_same_draws_and_another_seed_others():
    scores = [drawn(0.5, seed=seed) for seed in range(3)]
    np.testing.assert_array_equal(over_seeds(scores).draws, over_seeds(scores).draws)
    assert (over_seeds(scores).draws != over_seeds(scores, seed=1).draws).any()


def test_seeds_are_not_drawn_by_the_numbers_that_draw_groups():
    """Three seeds and three groups: a replicate's counts of the one would be the other's."""
    draws = [np.full(500, float(seed == 0)) for seed in range(3)]
    times = 3 * over_seeds([Drawn(0.0, each, np.arange(3)) for each in draws]).draws
    counts = draw_groups(["a", "b", "c"], replicates=500).counts[0]
    assert abs(np.corrcoef(times, counts)[0, 1]) < 0.2


def share_held(seeds: int, luck: float, trials: int = 150) -> float:
    """How often the interval holds the truth, where training parts move the chance of a right answer."""
    n, random, held = 200, np.random.default_rng(seeds), 0
    draws = draw_groups([str(row) for row in range(n)], replicates=300)
    threshold = norm.ppf(0.8)
    truth = norm.cdf(threshold / math.sqrt(1 + luck**2))
    for _ in range(trials):
        hard, scores = random.normal(size=n), []
        for _ in range(seeds):
            rows = random.permutation(n)[: n // 4]
            noise = (hard[rows] + random.normal(size=len(rows))) / math.sqrt(2)
            is_right, times = noise < threshold + luck * random.normal(), draws.times(rows)
            scores.append(Drawn(is_right.mean(), (is_right @ times) / times.sum(axis=0), rows))
        low, high = percentiles(over_seeds(scores).draws)
        held += low <= truth <= high
    return held / trials


@pytest.mark.parametrize(("seeds", "luck"), [(1, 0), (3, 0), (3, 0.2), (5, 0.2)])
def test_intervals_hold_the_truth_where_training_parts_matter_no_more_than_test_parts(seeds, luck):
    """Luck of 0.2 moves accuracy by 5.6 points, as the 50 test samples do."""
    assert share_held(seeds, luck) >= 0.9


def test_one_seed_tells_nothing_of_other_training_parts():
    assert share_held(1, 0.4) < 0.8 < share_held(5, 0.4)


# Differences


@given(st.sets(st.integers(0, 4)), st.sets(st.integers(0, 4)), st.sampled_from(METRICS))
@settings(max_examples=60, deadline=None)
def test_a_difference_is_paired_on_the_seeds_that_both_have(ones, others, metric):
    found = measured(
        *(cell("head", seed=seed, score=drawn(0.6 + seed / 50, seed=seed)) for seed in ones),
        *(cell("scratch", seed=seed, score=drawn(0.5 - seed / 90, seed=10 + seed)) for seed in others),
        metric=metric,
    )
    told = found.difference("x", ("head", 1.0), ("scratch", 1.0))
    both = sorted(ones & others)
    if not both:
        assert told is None
        return
    first, second = (
        over_seeds([found.of(name, 1.0)[seed].score for seed in both]) for name in ("head", "scratch")
    )
    sign = -1 if metric == "log loss" else 1
    assert told.value == pytest.approx(sign * (first.value - second.value))
    assert (told.low, told.high) == pytest.approx(percentiles(sign * (first.draws - second.draws)))
    assert (told.what, told.first, told.second, told.share) == ("x", "head", "scratch", 1.0)


@given(st.integers(0, 10**6), st.integers(1, 4))
def test_the_second_less_the_first_is_the_same_the_other_way_round(seed, seeds):
    found = measured(
        *(
            cell(name, seed=s, score=drawn(0.5, seed=[seed, s, *name.encode()]))
            for s in range(seeds)
            for name in NAMES
        )
    )
    one = found.difference("x", ("head", 1.0), ("scratch", 1.0))
    other = found.difference("x", ("scratch", 1.0), ("head", 1.0))
    assert (one.value, one.low, one.high) == pytest.approx((-other.value, -other.high, -other.low))
    assert one.real == other.real
    assert one.half == pytest.approx(other.half)
    assert one.reach == pytest.approx(other.reach)


@pytest.mark.parametrize("metric", METRICS)
def test_better_is_positive_in_every_metric(metric):
    """Also in log loss, of which less is better."""
    cells = [
        scored(name, s, right, metric=metric)
        for name, right in (("head", 0.9), ("scratch", 0.6))
        for s in range(3)
    ]
    found = measured(*cells, metric=metric)
    told = found.difference("x", ("head", 1.0), ("scratch", 1.0))
    assert told.low > 0
    assert told.real
    assert found.difference("x", ("scratch", 1.0), ("head", 1.0)).high < 0


def test_pairs_tell_apart_what_their_own_intervals_do_not():
    """Two depths under the same draws: what moves both alike moves their difference not at all."""
    common = drawn(0.0, 0.05).draws
    few, more = (
        Drawn(value, value + common + drawn(0.0, 0.003, seed=seed).draws, np.arange(99))
        for seed, value in ((1, 0.80), (2, 0.82))
    )
    found = measured(cell("head", score=few), cell("everything", score=more))
    assert percentiles(few.draws)[1] > percentiles(more.draws)[0]
    assert found.difference("x", ("everything", 1.0), ("head", 1.0)).low > 0


@given(st.floats(-1, 1), st.floats(0, 1), st.floats(0, 1))
def test_a_difference_is_real_where_it_is_more_than_what_it_is_told_with(value, below, above):
    each = Difference(1.0, 100, "x", "a", "b", value, value - below, value + above)
    assert each.real == (each.half < abs(value))
    assert each.low >= -each.reach
    assert each.high <= each.reach
    assert each.reach in (-each.low, each.high)


@pytest.mark.parametrize("groups", [1, 2, 5, 40, 600])
def test_where_no_draw_differs_the_bound_is_exact(groups):
    """As many alike of as many: the lowest share of such groups that still gives this one time in forty."""
    found = measured(
        cell("head", score=flat(0.5, groups)),
        cell("everything", score=flat(0.5, groups)),
        cell("scratch", score=flat(0.0, groups)),
    )
    none = found.difference("x", ("head", 1.0), ("everything", 1.0))
    assert (none.value, none.real) == (0.0, False)
    assert binom.pmf(groups, groups, 1 - none.high) == pytest.approx(0.025)
    assert none.low == -none.high
    some = found.difference("x", ("head", 1.0), ("scratch", 1.0))
    assert (some.value, some.real) == (0.5, groups >= 10)
    assert some.low <= some.value <= some.high <= 1


def test_one_group_alone_tells_no_difference():
    """Every draw of the one group is the same, so the bootstrap's interval is a point, and says nothing."""
    for metric in METRICS:
        cells = [cell(name, score=flat(value, 1)) for name, value in (("head", 1.0), ("scratch", 0.0))]
        assert not measured(*cells, metric=metric).difference("x", ("head", 1.0), ("scratch", 1.0)).real


def test_networks_that_say_the_same_do_not_differ_in_log_loss():
    cells = [cell(name, score=drawn(0.7)) for name in ("head", "scratch")]
    told = measured(*cells, metric="log loss").difference("x", ("head", 1.0), ("scratch", 1.0))
    assert (told.value, told.low, told.high, told.real) == (0, 0, 0, False)


def test_what_is_not_known_is_not_real():
    """A test part may lack what a score needs."""
    gone = Drawn(math.nan, np.full(REPLICATES, math.nan), np.arange(9))
    found = measured(
        *(cell("head", seed=seed, score=drawn(0.9, seed=seed)) for seed in range(2)),
        *(cell("scratch", seed=seed, score=score) for seed, score in enumerate((drawn(0.1), gone))),
    )
    told = found.difference("x", ("head", 1.0), ("scratch", 1.0))
    assert math.isnan(told.value)
    assert not told.real
    [row] = spelled([told])
    assert (row["difference"], row["ci95"], row["real"]) == (None, [None, None], False)


# The choice

INNERS = st.one_of(st.none(), st.sampled_from([0.1, 0.2, 0.3, math.nan]))
CELLS = st.dictionaries(
    st.tuples(st.sampled_from(NAMES), st.sampled_from([0.25, 1.0]), st.integers(0, 2)), INNERS, max_size=24
)


@given(CELLS)
def test_the_lowest_inner_brier_on_common_seeds_is_chosen_the_first_of_equals(inners):
    found = measured(*(cell(*where, inner=inner) for where, inner in inners.items()))
    for share in found.shares():
        there = [name for name in NAMES if any((name, share, seed) in inners for seed in range(3))]
        common = [seed for seed in range(3) if all((name, share, seed) in inners for name in there)]
        assert found.common(share) == common
        expected, least = None, math.inf
        for name in there:
            own = [inners[name, share, seed] for seed in common]
            mean = sum(own) / len(own) if own and None not in own else math.nan
            if mean < least - 1e-9:
                expected, least = name, mean
        assert found.chosen(share) == expected


@given(CELLS, st.integers(0, 2**31), st.integers(0, 2**31))
@settings(deadline=None)
def test_test_scores_choose_nothing(inners, one, other):
    """With other test scores the same depths are chosen, and the same are compared."""

    def told(seed: int) -> list[object]:
        random = np.random.default_rng(seed)
        found = measured(
            *(
                cell(*where, inner=inner, score=drawn(random.uniform(), seed=int(random.integers(10**6))))
                for where, inner in inners.items()
            )
        )
        compared = [(each.what, each.share, each.first, each.second) for each in differences(found)]
        return [compared, *(found.chosen(share) for share in found.shares())]

    assert told(one) == told(other)


@pytest.mark.parametrize("unknown", [None, math.nan])
def test_without_folds_nothing_is_chosen_and_any_known_score_is_better(unknown):
    head, deeper = cell("head", inner=unknown), cell("everything", inner=unknown)
    assert measured(head, deeper).chosen(1.0) is None
    assert measured(head, cell("everything", inner=1.9)).chosen(1.0) == "everything"
    assert measured(head, cell(seed=1, inner=0.1), cell("everything", inner=1.9)).chosen(1.0) == "everything"


def test_without_a_common_seed_nothing_is_chosen():
    assert measured(cell("head", seed=0), cell("everything", seed=1)).chosen(1.0) is None


def test_a_depth_for_which_there_was_no_time_is_no_hindrance():
    found = measured(
        cell("head", inner=0.3), cell("blocks.3", inner=0.2), cell("everything", 0.25, inner=0.1)
    )
    assert found.chosen(1.0) == "blocks.3"
    assert found.chosen(1.0, DEPTHS[:1]) == "head"
    assert found.chosen(1.0, DEPTHS[2:]) is None
    assert found.chosen(0.5) is None


# What is compared


def compared(*cells: Cell, depths: tuple[Depth, ...] = DEPTHS) -> list[tuple[str, float, str, str]]:
    return [
        (each.what, each.share, each.first, each.second)
        for each in differences(measured(*cells, depths=depths))
    ]


def test_the_best_is_held_against_scratch_a_head_and_fewer_labels():
    assert compared(
        cell("head", 0.25, inner=0.1),
        cell("blocks.3", 0.25, inner=0.2),
        cell("scratch", 0.25, inner=0.3),
        cell("head", inner=0.2),
        cell("blocks.3", inner=0.1),
        cell("scratch", inner=0.3),
    ) == [
        ("transfer", 0.25, "head", "scratch"),
        ("transfer", 1.0, "blocks.3", "scratch"),
        ("depth", 1.0, "blocks.3", "head"),
        ("labels", 1.0, "blocks.3", "head"),
    ]


def test_where_a_random_start_is_chosen_it_is_held_against_the_best_that_transfers():
    assert compared(cell("head", inner=0.3), cell("blocks.3", inner=0.2), cell("scratch", inner=0.1)) == [
        ("transfer", 1.0, "blocks.3", "scratch"),
        ("depth", 1.0, "scratch", "head"),
    ]


def test_of_several_heads_and_random_starts_inner_folds_choose_what_is_compared():
    depths = tuple(
        Depth(name, name.split()[0]) for name in ("head a", "head b", "everything", "scratch a", "scratch b")
    )
    inners = dict(zip([depth.name for depth in depths], (0.4, 0.3, 0.2, 0.6, 0.5), strict=True))
    cells = [cell(name, inner=inner) for name, inner in inners.items()]
    assert compared(*cells, depths=depths) == [
        ("transfer", 1.0, "everything", "scratch b"),
        ("depth", 1.0, "everything", "head b"),
    ]
    without = [each for each in cells if each.depth != "everything"]
    assert compared(*without, depths=depths) == [("transfer", 1.0, "head b", "scratch b")]


def test_what_is_chosen_is_what_is_compared_though_others_have_more_seeds():
    """On the second seed fine-tuning does so well that the two seeds' mean is the best."""
    cells = [
        *(cell("blocks.3", seed=0, inner=0.2), cell("everything", seed=0, inner=0.3)),
        *(cell("blocks.3", seed=1, inner=0.2), cell("everything", seed=1, inner=0.0)),
        cell("scratch", seed=0, inner=0.9),
    ]
    assert measured(*cells).chosen(1.0) == "blocks.3"
    assert compared(*cells) == [("transfer", 1.0, "blocks.3", "scratch")]


def test_labels_are_compared_with_the_last_share_for_which_there_was_a_choice():
    cells = [cell("head", share, score=drawn(share / 2, seed=round(9 * share))) for share in (0.1, 0.25, 1.0)]
    found = measured(*cells, cell("head", 0.5, inner=None))
    first, last = differences(found)
    assert (last.what, last.share, last.train) == ("labels", 1.0, 1000)
    assert last == found.difference("labels", ("head", 1.0), ("head", 0.25))
    assert first == found.difference("labels", ("head", 0.25), ("head", 0.1))


def test_without_folds_or_cells_nothing_is_compared():
    assert compared(*(cell(name, inner=None) for name in NAMES)) == []
    assert compared() == []


# Rows

FIELDS = ["depth", "share", "train", "seeds", "value", "ci95", "inner_brier"]
FIELDS += ["seconds", "seconds_without_cache", "stopped"]


def test_a_row_is_the_mean_over_the_seeds_with_its_interval():
    cells = [
        cell("head", 0.25, 0, 0.2, drawn(0.8, seed=1), train=99, seconds=1.0, without_cache=10.0),
        cell(
            "head",
            0.25,
            1,
            0.4,
            drawn(0.6, seed=2),
            train=100,
            seconds=3.0,
            without_cache=30.0,
            stopped="no number",
        ),
    ]
    [row] = as_rows(measured(*cells))
    assert list(row) == FIELDS
    expected = intervals({"accuracy": over_seeds([each.score for each in cells])})["accuracy"]
    assert (row["value"], *row["ci95"]) == (expected.value, expected.low, expected.high)
    assert row["value"] == pytest.approx(0.7)
    assert row["inner_brier"] == pytest.approx(0.3)
    told = ("head", 0.25, 99.5, 2, 2.0, 20.0, "no number")
    assert tuple(row[name] for name in FIELDS if name not in ("value", "ci95", "inner_brier")) == told
    assert row == row_of(measured(*cells), "head", 0.25)


def test_rows_stand_by_depth_then_by_share_and_what_was_not_measured_has_none():
    cells = [cell("scratch", 1.0), cell("head", 1.0), cell("head", 0.25, 1), cell("blocks.3", 0.25)]
    rows = as_rows(measured(*cells))
    places = [("head", 0.25), ("head", 1.0), ("blocks.3", 0.25), ("scratch", 1.0)]
    assert [(row["depth"], row["share"]) for row in rows] == places


def test_where_nothing_is_kept_nothing_is_told_of_what_it_spared():
    [row] = as_rows(measured(cell("everything", seconds=60.0, without_cache=60.0)))
    assert row["seconds_without_cache"] is None


def test_where_no_draw_differs_a_rows_bound_is_exact():
    [row] = as_rows(measured(cell(score=flat(1.0, 60))))
    assert row["ci95"][1] == 1.0
    assert binom.pmf(60, 60, row["ci95"][0]) == pytest.approx(0.025)


@given(CELLS, st.sampled_from(METRICS), st.booleans())
@settings(max_examples=60, deadline=None)
def test_rows_and_differences_are_json_without_nan(inners, metric, unknown):
    gone = Drawn(math.nan, np.full(REPLICATES, math.nan), np.arange(9))
    found = measured(
        *(
            cell(*where, inner=inner, score=gone if unknown and where[2] == 1 else drawn(seed=where[2]))
            for where, inner in inners.items()
        ),
        metric=metric,
    )
    told = [as_rows(found), spelled(differences(found))]
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    for row in told[0]:
        assert (row["value"] is None) == (row["ci95"] == [None, None])
        assert (row["value"] is None) == (unknown and 1 in found.of(row["depth"], row["share"]))


def test_differences_are_spelled_as_they_are():
    each = Difference(0.5, 984.0, "depth", "blocks.3", "head", 0.02, 0.01, 0.04)
    assert spelled([each]) == [
        {
            "share": 0.5,
            "train": 984.0,
            "what": "depth",
            "first": "blocks.3",
            "second": "head",
            "difference": 0.02,
            "ci95": [0.01, 0.04],
            "real": True,
        }
    ]
