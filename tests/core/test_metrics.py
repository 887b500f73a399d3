"""Scores against scikit-learn, and intervals that hold what they promise."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom
from sklearn.metrics import accuracy_score, average_precision_score, balanced_accuracy_score

from tasks.core.metrics import METRICS, Score, TestPart, average_precision, group_counts, score

TestPart.__test__ = False  # a name that pytest would take for tests


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
    }


def names(n: int) -> list[str]:
    return [str(number) for number in range(n)]


# Values


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(("n", "classes"), [(40, 2), (60, 3), (80, 7), (5, 5)])
def test_values_are_scikit_learns(n, classes, ties):
    part = some_part(n, classes, 0, ties=ties)
    found = score([part], group_counts(names(n), replicates=50), names(n))
    assert tuple(found) == METRICS
    for metric, expected in by_scikit_learn(part, np.ones(n)).items():
        assert found[metric].value == pytest.approx(expected, abs=1e-12), metric


@pytest.mark.parametrize("classes", [2, 3])
def test_intervals_are_percentiles_of_scikit_learns_scores_of_the_draws(classes):
    """Each draw is scored by scikit-learn, with the draw's counts as sample weights."""
    part = some_part(60, classes, 1, table=100, ties=True)
    counts = group_counts(names(100), replicates=60)
    found = score([part], counts, names(100))
    draws = [by_scikit_learn(part, times[part.rows]) for times in counts]
    for metric in METRICS:
        low, high = np.percentile([draw[metric] for draw in draws], [2.5, 97.5])
        assert (found[metric].low, found[metric].high) == pytest.approx((low, high), abs=1e-12), metric


def test_the_score_of_several_splits_is_their_mean_under_the_same_draws():
    parts = [some_part(40, 3, seed, table=70) for seed in range(3)]
    counts = group_counts(names(70), replicates=20)
    found = score(parts, counts, names(70))
    for metric in METRICS:
        values = [by_scikit_learn(part, np.ones(40))[metric] for part in parts]
        draws = [[by_scikit_learn(part, times[part.rows])[metric] for part in parts] for times in counts]
        low, high = np.percentile(np.mean(draws, axis=1), [2.5, 97.5])
        expected = (np.mean(values), low, high)
        assert (found[metric].value, found[metric].low, found[metric].high) == pytest.approx(expected)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.booleans(), st.integers(-3, 3), st.integers(0, 3)), min_size=1, max_size=30).filter(
        lambda rows: sum(times for truth, _, times in rows if truth)
    )
)
def test_average_precision_is_scikit_learns_with_ties_and_counts(rows):
    truth, scores, times = (np.array(column) for column in zip(*rows, strict=True))
    expected = average_precision_score(truth, scores, sample_weight=times)
    found = average_precision(truth.astype(bool), scores.astype(float), times[None].astype(float))
    assert found == pytest.approx([expected], abs=1e-12)


def test_average_precision_does_not_saturate_where_probabilities_do():
    """Two rows whose probabilities are both 1.0 in double precision are still told apart."""
    gap = np.array([50.0, 60.0, 40.0, -5.0])
    log_proba = np.stack([-np.logaddexp(0, gap), -np.logaddexp(0, -gap)], axis=1)
    assert len(set(np.exp(log_proba[:3, 1]))) == 1
    part = TestPart(np.arange(4), np.array([0, 1, 0, 0]), np.ones(4), log_proba)
    assert score([part], group_counts(names(4)), names(4))["average precision"].value == 1.0


def test_only_weighted_accuracy_uses_the_sample_weights():
    part = some_part(50, 3, 0)
    other = TestPart(part.rows, part.labels, part.weights[::-1] ** 2, part.log_proba)
    counts = group_counts(names(50), replicates=50)
    one, two = score([part], counts, names(50)), score([other], counts, names(50))
    assert [metric for metric in METRICS if one[metric] != two[metric]] == ["weighted accuracy"]


@pytest.mark.parametrize("classes", [2, 4])
def test_perfect_predictions_score_one_and_hopeless_ones_zero(classes):
    labels = np.arange(40) % classes
    right = np.where(np.eye(classes)[labels] == 1, -1e-6, -20.0)
    wrong = np.where(np.eye(classes)[labels] == 1, -20.0, -1.0)
    counts = group_counts(names(40))
    for log_proba, value in ((right, 1.0), (wrong, 0.0)):
        found = score([TestPart(np.arange(40), labels, np.ones(40), log_proba)], counts, names(40))
        for metric in METRICS[:3]:
            assert found[metric].value == value
    found = score([TestPart(np.arange(40), labels, np.ones(40), right)], counts, names(40))
    assert found["average precision"].value == 1.0


def test_useless_predictions_score_what_chance_gives():
    labels = np.array([0] * 30 + [1] * 10)
    flat = np.log(np.full((40, 2), 0.5))
    found = score([TestPart(np.arange(40), labels, np.ones(40), flat)], group_counts(names(40)), names(40))
    assert found["balanced accuracy"].value == 0.5
    assert found["average precision"].value == 0.25


# Draws


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=30), st.integers(0, 5))
def test_groups_are_drawn_whole_and_as_many_as_there_are(groups, seed):
    groups = np.array([f"g{group}" for group in groups])
    counts = group_counts(groups.tolist(), replicates=30, seed=seed)
    assert counts.shape == (30, len(groups))
    once = counts[:, [int(np.flatnonzero(groups == group)[0]) for group in np.unique(groups)]]
    assert (once.sum(axis=1) == len(np.unique(groups))).all()
    for group in np.unique(groups):
        together = counts[:, groups == group]
        assert (together == together[:, :1]).all()


def test_each_group_is_drawn_once_on_average_and_the_seed_decides():
    counts = group_counts(names(20), replicates=4000)
    np.testing.assert_allclose(counts.mean(axis=0), 1, atol=0.1)
    np.testing.assert_allclose(counts.var(axis=0), 0.95, atol=0.12)  # n p (1 - p), n = 20
    np.testing.assert_array_equal(counts, group_counts(names(20), replicates=4000, seed=0))
    assert (counts != group_counts(names(20), replicates=4000, seed=1)).any()


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
    grouped = score([tenfold], group_counts(groups), groups)["accuracy"]
    alone = score([single], group_counts(names(20)), names(20))["accuracy"]
    apart = score([tenfold], group_counts(names(200)), names(200))["accuracy"]
    assert grouped.high - grouped.low == pytest.approx(alone.high - alone.low, abs=0.051)
    assert apart.high - apart.low < 0.5 * (grouped.high - grouped.low)


def test_a_class_that_is_not_drawn_is_left_out_of_that_draw():
    labels = np.array([0] * 20 + [1] * 20 + [2])  # the last class is missing from a third of the draws
    part = TestPart(np.arange(41), labels, np.ones(41), some_part(41, 3, 0).log_proba)
    counts = group_counts(names(41), replicates=40)
    assert (counts[:, -1] == 0).any()
    found = score([part], counts, names(41))
    for metric in ("balanced accuracy", "average precision"):
        draws = [by_scikit_learn(part, times)[metric] for times in counts]
        low, high = np.percentile(draws, [2.5, 97.5])
        assert (found[metric].low, found[metric].high) == pytest.approx((low, high))


def test_a_draw_without_any_test_row_is_left_out():
    part = some_part(2, 2, 0, table=30)
    counts = group_counts(names(30), replicates=200)
    assert (counts[:, part.rows].sum(axis=1) == 0).any()
    assert all(np.isfinite([s.value, s.low, s.high]).all() for s in score([part], counts, names(30)).values())


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
    found = score([part], group_counts(names(3)), names(3))
    assert not np.isfinite(found[unknown].value)
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
    found = score([part], group_counts(names(n), replicates=300), names(n))
    assert ordered(found["accuracy"])
    assert all(0 <= each.low <= each.high <= 1 for each in found.values())


@pytest.mark.parametrize(("right", "n"), [(True, 5), (True, 60), (False, 30)])
def test_where_no_draw_differs_the_bound_is_exact(right, n):
    """Nothing wrong of n: the lowest rate that still gives this one time in forty (Clopper, Pearson)."""
    labels = np.arange(n) % 2
    called = labels if right else 1 - labels
    part = TestPart(np.arange(n), labels, np.ones(n), np.log(np.where(np.eye(2)[called] == 1, 0.9, 0.1)))
    found = score([part], group_counts(names(n)), names(n))["accuracy"]
    if right:
        assert (found.value, found.high) == (1.0, 1.0)
        assert binom.pmf(n, n, found.low) == pytest.approx(0.025)
    else:
        assert (found.value, found.low) == (0.0, 0.0)
        assert binom.pmf(0, n, found.high) == pytest.approx(0.025)


def test_the_exact_bound_counts_groups_not_rows():
    """Sixty rows of six groups, all right: six trials."""
    labels = np.arange(60) % 2
    part = TestPart(np.arange(60), labels, np.ones(60), np.log(np.where(np.eye(2)[labels] == 1, 0.9, 0.1)))
    groups = [f"g{row // 10}" for row in range(60)]
    found = score([part], group_counts(groups), groups)["accuracy"]
    assert found.low == pytest.approx(0.025 ** (1 / 6))


@pytest.mark.parametrize("truth", [0.6, 0.9])
def test_nineteen_of_twenty_intervals_hold_the_truth(truth):
    """Accuracy of a head that is right with a known chance, over many test parts of 100."""
    rng, held, counts = np.random.default_rng(0), 0, group_counts(names(100), replicates=400)
    for _ in range(300):
        right = rng.random(100) < truth
        labels = rng.permutation(np.arange(100) % 2)
        called = np.where(right, labels, 1 - labels)
        part = TestPart(
            np.arange(100), labels, np.ones(100), np.log(np.where(np.eye(2)[called] == 1, 0.9, 0.1))
        )
        found = score([part], counts, names(100))["accuracy"]
        held += found.low <= truth <= found.high
    assert 0.90 <= held / 300 <= 0.99
