"""Scores against scikit-learn, and intervals that hold what they promise."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom
from sklearn.metrics import accuracy_score, average_precision_score, balanced_accuracy_score, log_loss

from tasks.core import metrics
from tasks.core.metrics import (
    LARGEST_LOSS,
    METRICS,
    Draws,
    Score,
    TestPart,
    differences,
    draw_groups,
    draw_scores,
    intervals,
    mean_scores,
)

TestPart.__test__ = False  # a name that pytest would take for tests

PROPORTIONS = METRICS[:4]


def score(parts: list[TestPart], draws: Draws) -> dict[str, Score]:
    """The mean over the parts, with intervals, as the stage of scores makes it."""
    return intervals(mean_scores([draw_scores(part, draws) for part in parts]))


WITHIN = 1e-6
"""How far single precision may be off."""


def some_part(
    n: int, classes: int, seed: int, *, table: int | None = None, skill: float = 1.0, ties: bool = False
) -> TestPart:
    """Predictions of some skill on n of the table's rows, each class among them."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.concatenate([np.arange(classes), rng.integers(0, classes, n - classes)]))
    scores = rng.normal(size=(n, classes)) + skill * np.eye(classes)[labels]
    if ties:  # rows take one of six answers, to the bit
        scores = rng.normal(size=(6, classes))[rng.integers(0, 6, n)]
    log_proba = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
    rows = rng.permutation(table or n)[:n]
    return TestPart(rows, labels, rng.uniform(0.1, 3, n), log_proba)


def by_scikit_learn(part: TestPart, times: np.ndarray) -> dict[str, float]:
    """Score with each row counted so many times."""
    called, classes = part.log_proba.argmax(axis=1), part.log_proba.shape[1]
    proba = np.exp(part.log_proba)
    positive = [1] if classes == 2 else [c for c in range(classes) if times[part.labels == c].sum() > 0]
    # scikit-learn warns of called classes without a true row, and means over the others as we do
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        balanced = balanced_accuracy_score(part.labels, called, sample_weight=times)
    return {
        "weighted accuracy": accuracy_score(part.labels, called, sample_weight=times * part.weights),
        "accuracy": accuracy_score(part.labels, called, sample_weight=times),
        "balanced accuracy": balanced,
        "average precision": np.mean(
            [average_precision_score(part.labels == c, proba[:, c], sample_weight=times) for c in positive]
        ),
        "log loss": log_loss(part.labels, proba, sample_weight=times, labels=np.arange(classes)),
    }


def names(n: int) -> list[str]:
    return [str(number) for number in range(n)]


def each_draw(draws: Draws) -> list[np.ndarray]:
    """How often each draw has each row of the table, (N,) for each, one row after the other."""
    return [
        np.array([draws.counts[group, b] for group in draws.members]) for b in range(draws.counts.shape[1])
    ]


def naive(parts: list[TestPart], draws: Draws) -> dict[str, np.ndarray]:
    """Mean scores over the parts under each draw, by scikit-learn and a loop; (B,) for each metric."""
    scored = [[by_scikit_learn(part, times[part.rows]) for part in parts] for times in each_draw(draws)]
    return {metric: np.array([np.mean([s[metric] for s in of]) for of in scored]) for metric in METRICS}


def spread(draws: np.ndarray) -> tuple[float, float]:
    low, high = np.percentile(draws, [2.5, 97.5])
    return low, high


def called(labels: np.ndarray, log_odds: float = 2.0, classes: int = 2) -> np.ndarray:
    """Log probabilities (n, C) that favour given classes, all with the same confidence."""
    scores = log_odds * np.eye(classes)[labels]
    return scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))


# Values


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(("n", "classes"), [(40, 2), (60, 3), (80, 7), (5, 5)])
def test_values_are_scikit_learns(n, classes, ties):
    part = some_part(n, classes, 0, ties=ties)
    found = score([part], draw_groups(names(n), replicates=50))
    assert tuple(found) == METRICS
    for metric, expected in by_scikit_learn(part, np.ones(n)).items():
        assert found[metric].value == pytest.approx(expected, abs=1e-12), metric


@pytest.mark.parametrize(
    ("n", "classes", "ties"), [(60, 2, True), (60, 3, True), (80, 2, False), (60, 6, False)]
)
def test_draws_are_scikit_learns_scores_of_the_drawn_rows(n, classes, ties):
    """Each draw is scored by scikit-learn, with the draw's counts as sample weights."""
    part = some_part(n, classes, 1, table=100, ties=ties)
    draws = draw_groups([f"g{row // 2}" for row in range(100)], replicates=60)
    found, expected = draw_scores(part, draws), naive([part], draws)
    for metric in METRICS:
        np.testing.assert_allclose(found[metric].draws, expected[metric], rtol=0, atol=WITHIN, err_msg=metric)


@pytest.mark.parametrize("classes", [2, 3])
def test_intervals_are_percentiles_of_the_draws(classes):
    part = some_part(60, classes, 1, table=100, ties=True)
    draws = draw_groups(names(100), replicates=60)
    found, expected = score([part], draws), naive([part], draws)
    for metric in METRICS:
        assert (found[metric].low, found[metric].high) == pytest.approx(spread(expected[metric]), abs=WITHIN)


def test_counted_scores_are_those_of_double_precision_to_the_bit():
    part = some_part(300, 3, 0)
    draws = draw_groups(names(300), replicates=100)
    found = draw_scores(part, draws)
    right, times = part.log_proba.argmax(axis=1) == part.labels, draws.times(part.rows).astype(np.float64)
    np.testing.assert_array_equal(found["accuracy"].draws, (right @ times) / 300)
    recalls = [((right & (part.labels == c)) @ times) / ((part.labels == c) @ times) for c in range(3)]
    np.testing.assert_array_equal(
        found["balanced accuracy"].draws, (recalls[0] + recalls[1] + recalls[2]) / 3
    )


def test_the_score_of_several_splits_is_their_mean_under_the_same_draws():
    parts = [some_part(40, 3, seed, table=70) for seed in range(3)]
    draws = draw_groups(names(70), replicates=20)
    found, expected = score(parts, draws), naive(parts, draws)
    for metric in METRICS:
        value = np.mean([by_scikit_learn(part, np.ones(40))[metric] for part in parts])
        assert found[metric].value == pytest.approx(value)
        assert (found[metric].low, found[metric].high) == pytest.approx(spread(expected[metric]), abs=WITHIN)


def test_average_precision_does_not_saturate_where_probabilities_do():
    """Two rows whose probabilities are both 1.0 in double precision are still told apart."""
    gap = np.array([50.0, 60.0, 40.0, -5.0])
    log_proba = np.stack([-np.logaddexp(0, gap), -np.logaddexp(0, -gap)], axis=1)
    assert len(set(np.exp(log_proba[:3, 1]))) == 1
    part = TestPart(np.arange(4), np.array([0, 1, 0, 0]), np.ones(4), log_proba)
    assert score([part], draw_groups(names(4)))["average precision"].value == 1.0


def test_only_weighted_accuracy_uses_the_sample_weights():
    part = some_part(50, 3, 0)
    other = TestPart(part.rows, part.labels, part.weights[::-1] ** 2, part.log_proba)
    draws = draw_groups(names(50), replicates=50)
    one, two = score([part], draws), score([other], draws)
    assert [metric for metric in METRICS if one[metric] != two[metric]] == ["weighted accuracy"]


@pytest.mark.parametrize("classes", [2, 4])
def test_perfect_predictions_score_one_and_hopeless_ones_zero(classes):
    labels = np.arange(40) % classes
    right = np.where(np.eye(classes)[labels] == 1, -1e-6, -20.0)
    wrong = np.where(np.eye(classes)[labels] == 1, -20.0, -1.0)
    draws = draw_groups(names(40))
    for log_proba, value in ((right, 1.0), (wrong, 0.0)):
        found = score([TestPart(np.arange(40), labels, np.ones(40), log_proba)], draws)
        for metric in METRICS[:3]:
            assert found[metric].value == value
    found = score([TestPart(np.arange(40), labels, np.ones(40), right)], draws)
    assert found["average precision"].value == 1.0
    assert found["log loss"].value == pytest.approx(1e-6)


def test_useless_predictions_score_what_chance_gives():
    labels = np.array([0] * 30 + [1] * 10)
    flat = np.log(np.full((40, 2), 0.5))
    found = score([TestPart(np.arange(40), labels, np.ones(40), flat)], draw_groups(names(40)))
    assert found["balanced accuracy"].value == 0.5
    assert found["average precision"].value == 0.25
    assert found["log loss"].value == pytest.approx(np.log(2))


@pytest.mark.parametrize("classes", [2, 3])
def test_a_class_given_no_chance_at_all_costs_much_but_not_everything(classes):
    labels = np.arange(30) % classes
    log_proba = np.where(
        np.eye(classes)[np.where(np.arange(30) < 3, (labels + 1) % classes, labels)], 0, -np.inf
    )
    found = score([TestPart(np.arange(30), labels, np.ones(30), log_proba)], draw_groups(names(30)))
    assert found["log loss"].value == pytest.approx(LARGEST_LOSS * 3 / 30)
    assert all(np.isfinite([each.value, each.low, each.high]).all() for each in found.values())


# Draws


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=30), st.integers(0, 5))
def test_groups_are_drawn_whole_and_as_many_as_there_are(groups, seed):
    groups = np.array([f"g{group}" for group in groups])
    draws = draw_groups(groups.tolist(), replicates=30, seed=seed)
    assert draws.counts.shape == (len(np.unique(groups)), 30)
    assert (draws.counts.sum(axis=0) == len(np.unique(groups))).all()
    times = draws.times(np.arange(len(groups)))
    assert times.shape == (len(groups), 30)
    for group in np.unique(groups):
        together = times[groups == group]
        assert (together == together[:1]).all()
    for b, expected in enumerate(each_draw(draws)):
        np.testing.assert_array_equal(times[:, b], expected)


def test_each_group_is_drawn_once_on_average_and_the_seed_decides():
    counts = draw_groups(names(20), replicates=4000).counts
    np.testing.assert_allclose(counts.mean(axis=1), 1, atol=0.1)
    np.testing.assert_allclose(counts.var(axis=1), 0.95, atol=0.12)  # n p (1 - p), n = 20
    np.testing.assert_array_equal(counts, draw_groups(names(20), replicates=4000, seed=0).counts)
    assert (counts != draw_groups(names(20), replicates=4000, seed=1).counts).any()


@pytest.mark.parametrize("held", [1, 700, 5000])
def test_what_is_held_at_once_changes_nothing(held, monkeypatch):
    parts = [some_part(50, classes, 0, table=90) for classes in (2, 4)]
    whole = draw_groups(names(90), replicates=70)
    expected = [draw_scores(part, whole) for part in parts]
    monkeypatch.setattr(metrics, "COUNTS_AT_ONCE", held)
    draws = draw_groups(names(90), replicates=70)
    np.testing.assert_array_equal(draws.counts, whole.counts)
    for part, of in zip(parts, expected, strict=True):
        for metric, found in draw_scores(part, draws).items():
            assert found.value == of[metric].value
            np.testing.assert_allclose(found.draws, of[metric].draws, rtol=0, atol=WITHIN)


def test_rows_that_hang_together_widen_the_interval():
    """Ten copies of each of 20 rows tell no more than the 20 do."""
    single = some_part(20, 2, 3)
    tenfold = TestPart(
        np.arange(200),
        np.repeat(single.labels, 10),
        np.repeat(single.weights, 10),
        np.repeat(single.log_proba, 10, axis=0),
    )
    groups = [str(row) for row in np.repeat(single.rows, 10)]
    grouped = score([tenfold], draw_groups(groups))["accuracy"]
    alone = score([single], draw_groups(names(20)))["accuracy"]
    apart = score([tenfold], draw_groups(names(200)))["accuracy"]
    assert grouped.high - grouped.low == pytest.approx(alone.high - alone.low, abs=0.051)
    assert apart.high - apart.low < 0.5 * (grouped.high - grouped.low)


def test_a_class_that_is_not_drawn_is_left_out_of_that_draw():
    labels = np.array([0] * 20 + [1] * 20 + [2])  # the last class is missing from a third of the draws
    part = TestPart(np.arange(41), labels, np.ones(41), some_part(41, 3, 0).log_proba)
    draws = draw_groups(names(41), replicates=40)
    assert (draws.counts[draws.members[-1]] == 0).any()
    found, expected = draw_scores(part, draws), naive([part], draws)
    for metric in METRICS:
        np.testing.assert_allclose(found[metric].draws, expected[metric], rtol=0, atol=WITHIN)


def test_a_draw_without_any_test_row_is_left_out():
    part = some_part(2, 2, 0, table=30)
    draws = draw_groups(names(30), replicates=200)
    empty = draws.times(part.rows).sum(axis=0) == 0
    assert empty.any()
    for drawn in draw_scores(part, draws).values():
        assert np.isnan(drawn.draws[empty]).all()
    assert all(np.isfinite([s.value, s.low, s.high]).all() for s in score([part], draws).values())


@pytest.mark.parametrize(
    ("labels", "weights", "unknown"),
    [
        ([0, 0, 0], [1.0, 1.0, 1.0], "average precision"),  # no positive row
        ([0, 1, 1], [0.0, 0.0, 0.0], "weighted accuracy"),
    ],
)
def test_a_score_that_cannot_be_had_spoils_no_other(labels, weights, unknown):
    """A split by group may leave a class out of the test part, and weights may be zero."""
    part = TestPart(np.arange(3), np.array(labels), np.array(weights), some_part(3, 2, 0).log_proba)
    found = score([part], draw_groups(names(3)))
    assert np.isnan([found[unknown].value, found[unknown].low, found[unknown].high]).all()
    for metric in METRICS:
        if metric != unknown:
            assert np.isfinite([found[metric].value, found[metric].low, found[metric].high]).all()


# Intervals


def ordered(found: Score) -> bool:
    return 0 <= found.low <= found.value <= found.high <= 1


@settings(max_examples=30, deadline=None)
@given(st.integers(6, 40), st.integers(2, 4), st.floats(0, 4), st.integers(0, 1000))
def test_intervals_lie_within_nought_and_one_and_hold_accuracy(n, classes, skill, seed):
    part = some_part(n, classes, seed, skill=skill)
    found = score([part], draw_groups(names(n), replicates=300))
    assert ordered(found["accuracy"])
    assert all(0 <= found[metric].low <= found[metric].high <= 1 for metric in PROPORTIONS)
    assert 0 <= found["log loss"].low <= found["log loss"].value <= found["log loss"].high


@pytest.mark.parametrize(("right", "n"), [(True, 5), (True, 60), (False, 30)])
def test_where_no_draw_differs_the_bound_is_exact(right, n):
    """Nothing wrong of n: the lowest rate that still gives this one time in forty (Clopper, Pearson)."""
    labels = np.arange(n) % 2
    part = TestPart(np.arange(n), labels, np.ones(n), called(labels if right else 1 - labels))
    found = score([part], draw_groups(names(n)))["accuracy"]
    if right:
        assert (found.value, found.high) == (1.0, 1.0)
        assert binom.pmf(n, n, found.low) == pytest.approx(0.025)
    else:
        assert (found.value, found.low) == (0.0, 0.0)
        assert binom.pmf(0, n, found.high) == pytest.approx(0.025)


def test_the_exact_bound_counts_groups_not_rows():
    """Sixty rows of six groups, all right: six trials."""
    labels = np.arange(60) % 2
    part = TestPart(np.arange(60), labels, np.ones(60), called(labels))
    groups = [f"g{row // 10}" for row in range(60)]
    found = score([part], draw_groups(groups))["accuracy"]
    assert found.low == pytest.approx(0.025 ** (1 / 6))


def test_where_all_of_a_rare_class_are_right_its_few_rows_bound_what_they_decide():
    labels = (np.arange(500) < 3).astype(int)
    part = TestPart(np.arange(500), labels, np.ones(500), called(labels))
    found = score([part], draw_groups(names(500)))
    for metric, trials in (("accuracy", 500), ("balanced accuracy", 3), ("average precision", 3)):
        assert found[metric].low == pytest.approx(0.025 ** (1 / trials))


def test_a_draw_that_differs_by_rounding_alone_does_not_differ():
    """One group: each draw has each row once, yet single precision sums some draws in another order."""
    part = some_part(178, 3, 38)
    for replicates in (10, 156, 214, 283):
        draws = draw_groups(["all"] * 178, replicates=replicates)
        for metric in PROPORTIONS:
            found = score([part], draws)[metric]
            assert found.high - found.low > 0.9, "one trial tells next to nothing"


def test_log_loss_is_no_proportion_and_gets_no_exact_bound():
    labels = np.arange(40) % 2
    part = TestPart(np.arange(40), labels, np.ones(40), called(labels))
    found = score([part], draw_groups(names(40)))["log loss"]
    assert (found.low, found.high) == pytest.approx((found.value, found.value), abs=WITHIN)


@pytest.mark.parametrize("truth", [0.6, 0.9])
def test_nineteen_of_twenty_intervals_hold_the_truth(truth):
    """Accuracy of a head that is right with a known chance, over many test parts of 100."""
    rng, held, draws = np.random.default_rng(0), 0, draw_groups(names(100), replicates=400)
    for _ in range(300):
        right = rng.random(100) < truth
        labels = rng.permutation(np.arange(100) % 2)
        part = TestPart(np.arange(100), labels, np.ones(100), called(np.where(right, labels, 1 - labels)))
        found = score([part], draws)["accuracy"]
        held += found.low <= truth <= found.high
    assert 0.90 <= held / 300 <= 0.99


# Differences


def two_experiments(seed: int = 0, classes: int = 3, n: int = 40) -> tuple[list[TestPart], list[TestPart]]:
    """The same three test parts, said well and said badly."""
    good = [some_part(n, classes, seed + split, table=70, skill=2.5) for split in range(3)]
    noise = np.random.default_rng(seed)
    bad = []
    for part in good:
        scores = 0.5 * part.log_proba + noise.normal(size=part.log_proba.shape)
        log_proba = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
        bad.append(TestPart(part.rows, part.labels, part.weights, log_proba))
    return good, bad


def drawn(parts: list[TestPart], draws: Draws) -> dict[str, metrics.Drawn]:
    return mean_scores([draw_scores(part, draws) for part in parts])


@pytest.mark.parametrize("classes", [2, 3])
def test_differences_are_those_of_a_naive_loop_over_the_draws(classes):
    good, bad = two_experiments(classes=classes)
    draws = draw_groups(names(70), replicates=40)
    found = differences(drawn(good, draws), drawn(bad, draws))
    assert tuple(found) == METRICS
    one, other = naive(good, draws), naive(bad, draws)
    for metric in METRICS:
        values = [np.mean([by_scikit_learn(p, np.ones(40))[metric] for p in parts]) for parts in (good, bad)]
        assert found[metric].value == pytest.approx(values[0] - values[1])
        expected = spread(one[metric] - other[metric])
        assert (found[metric].low, found[metric].high) == pytest.approx(expected, abs=2 * WITHIN)


def test_an_experiment_does_not_differ_from_itself():
    good, _ = two_experiments()
    draws = draw_groups(names(70), replicates=50)
    found = differences(drawn(good, draws), drawn(good, draws))
    assert set(found.values()) == {Score(0.0, 0.0, 0.0)}


def test_the_better_less_the_worse_is_above_nought_except_in_loss():
    good, bad = two_experiments()
    draws = draw_groups(names(70), replicates=200)
    one, other = drawn(good, draws), drawn(bad, draws)
    found, turned = differences(one, other), differences(other, one)
    for metric in METRICS:
        sign = -1 if metric in metrics.LOWER_IS_BETTER else 1
        assert sign * found[metric].low > 0, metric
        assert sign * found[metric].high > 0, metric
        assert turned[metric].value == -found[metric].value
        assert (turned[metric].low, turned[metric].high) == pytest.approx(
            (-found[metric].high, -found[metric].low)
        )


def test_a_draw_in_which_one_of_both_cannot_be_had_is_left_out():
    labels = np.array([0] * 20 + [1])
    parts = [
        TestPart(np.arange(21), labels, np.ones(21), some_part(21, 2, seed).log_proba) for seed in (0, 1)
    ]
    draws = draw_groups(names(21), replicates=60)
    one, other = (draw_scores(part, draws)["average precision"].draws for part in parts)
    assert np.isnan(one).any()
    found = differences(*(drawn([part], draws) for part in parts))["average precision"]
    told = (one - other)[~np.isnan(one)]
    assert (found.low, found.high) == pytest.approx(spread(told))


def test_the_difference_of_alike_experiments_is_known_far_better_than_either():
    """Two heads that disagree on one row in twenty."""
    part = some_part(200, 2, 0)
    other = part.log_proba.copy()
    other[:10] = other[:10, ::-1]
    parts = [part, TestPart(part.rows, part.labels, part.weights, other)]
    draws = draw_groups(names(200))
    one, two = (drawn([each], draws) for each in parts)
    apart, alone = differences(one, two)["accuracy"], intervals(one)["accuracy"]
    assert apart.high - apart.low < 0.6 * (alone.high - alone.low)


def test_nineteen_of_twenty_intervals_hold_the_true_difference():
    """Two heads right with chances 0.8 and 0.7, on the same test parts of 100, mostly together."""
    rng, held, draws = np.random.default_rng(0), 0, draw_groups(names(100), replicates=400)
    labels = np.arange(100) % 2
    for _ in range(200):
        luck = rng.random(100)
        rights = (luck < 0.8, np.where(rng.random(100) < 0.3, rng.random(100), luck) < 0.7)
        one, other = (
            drawn(
                [TestPart(np.arange(100), labels, np.ones(100), called(np.where(r, labels, 1 - labels)))],
                draws,
            )
            for r in rights
        )
        found = differences(one, other)["accuracy"]
        held += found.low <= 0.1 <= found.high
    assert 0.90 <= held / 200 <= 0.99
