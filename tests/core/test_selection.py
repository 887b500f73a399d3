"""Training many heads and scoring each on inner folds: as naive loops do, and without a look at what is held out."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from sklearn.linear_model import LogisticRegression
from sklearn.linear_model import Ridge as RidgeRegression
from sklearn.preprocessing import StandardScaler

from tasks.core import selection
from tasks.core.calibration import SHARPEST, SMOOTHEST, scaled
from tasks.core.fits import Fit, Folds
from tasks.core.hyper import Centroid, Hyper, Mlp, Neighbours, Ridge, Softmax
from tasks.core.linear import train_softmax
from tasks.core.mlp import fit_mlp
from tasks.core.neighbours import fit_centroid, fit_neighbours
from tasks.core.predictors import Linear
from tasks.core.ridge import fit_ridge
from tasks.core.selection import FOLDS, Rows, Trained, inner_folds, mean_log_proba, said_of, train_heads
from tasks.core.standings import choose_head

STRENGTHS = (0.003, 0.03, 0.3, 3.0)
SOFTMAX = [Softmax(strength) for strength in STRENGTHS]
QUICK = Mlp((4,), 0.03)
ONE_OF_EACH = [QUICK, Softmax(0.1), Neighbours(3), Ridge(1.0), Centroid()]
KINDS = pytest.mark.parametrize("hyper", ONE_OF_EACH, ids=lambda hyper: hyper.kind)


EPOCHS = 4


@pytest.fixture(autouse=True)
def small_networks_are_trained_for_a_few_epochs(monkeypatch):
    monkeypatch.setattr(selection, "fit_mlp", partial(fit_mlp, epochs=EPOCHS))


def noisy_rows(
    n: int, columns: int, classes: int, seed: int, *, noise: float = 2.0, members: int = 1
) -> Rows:
    """Classes that overlap; rows of one group, `members` in number, are nearly the same."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(n // members) % classes, members)
    centres = rng.normal(size=(classes, columns))
    features = centres[labels] + noise * np.repeat(rng.normal(size=(n // members, columns)), members, axis=0)
    features += 0.01 * rng.normal(size=features.shape)
    groups = np.repeat([f"g{number}" for number in range(n // members)], members)
    return Rows(features, labels, rng.uniform(0.1, 3, n), groups)


def train(rows: Rows, hypers: Sequence[Hyper], *, classes: int = 3, seed: int = 0, **how) -> list[Trained]:
    return train_heads(rows, hypers, classes=classes, seed=seed, **how)


def chosen(trained: Sequence[Trained]) -> int:
    return choose_head([each.facts for each in trained])


def untempered(each: Trained) -> np.ndarray:
    """What the folds said before the temperature was scaled, up to a constant in each row."""
    warmth = each.facts["temperature"]
    assert isinstance(warmth, float)
    assert each.inner is not None
    return scaled(each.inner, 1 / warmth)


@dataclass(frozen=True)
class Blocks:
    """Rows as a source of several blocks, none of them where a view ends."""

    features: np.ndarray
    step: int = 7

    @property
    def shape(self) -> tuple[int, int]:
        return self.features.shape

    def blocks(self) -> Iterator[tuple[slice, np.ndarray]]:
        for start in range(0, len(self.features), self.step):
            rows = slice(start, min(start + self.step, len(self.features)))
            yield rows, self.features[rows]


# Against naive loops


def by_softmax(hyper: Softmax, z: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> Callable:
    share = weights.copy()
    if hyper.class_weight == "balanced":
        for c in set(labels):
            share[labels == c] *= weights.sum() / (len(set(labels)) * weights[labels == c].sum())
    # scikit-learn's sigmoid penalises the difference of two classes, which is twice what softmax does
    halved = 0.5 if len(set(labels)) == 2 else 1.0
    model = LogisticRegression(C=1 / (halved * hyper.strength * share.sum()), tol=1e-6, max_iter=10_000)
    return model.fit(z, labels, sample_weight=share).predict_log_proba


def by_ridge(hyper: Ridge, z: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> Callable:
    model = RidgeRegression(alpha=hyper.strength * weights.sum())
    return model.fit(z, np.eye(labels.max() + 1)[labels], sample_weight=weights).predict


def by_neighbours(hyper: Neighbours, z: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> Callable:
    def say(others: np.ndarray) -> np.ndarray:
        said = []
        for row in others:
            votes = [weights.mean() * weights[labels == c].sum() / weights.sum() for c in sorted(set(labels))]
            for near in np.argsort(((z - row) ** 2).sum(axis=1))[: hyper.k]:
                votes[labels[near]] += weights[near]
            said.append(np.log(votes))
        return np.array(said)

    return say


def by_centroid(hyper: Centroid, z: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> Callable:
    means = [np.average(z[labels == c], axis=0, weights=weights[labels == c]) for c in sorted(set(labels))]
    return lambda others: np.stack([-((others - mean) ** 2).sum(axis=1) / 2 for mean in means], axis=1)


NAIVE = {"softmax": by_softmax, "ridge": by_ridge, "knn": by_neighbours, "centroid": by_centroid}


def naive_scores(rows: Rows, hyper: Hyper, seed: int) -> tuple[float, float, float]:
    """Brier score, log loss and accuracy of the held-out rows; the scaling of features is that of all rows."""
    z = StandardScaler().fit(rows.features, sample_weight=rows.weights).transform(rows.features)
    said = np.empty((len(z), rows.labels.max() + 1))
    for seen, held_out in inner_folds(rows.labels, rows.groups, seed=seed):
        say = NAIVE[hyper.kind](hyper, z[seen], rows.labels[seen], rows.weights[seen])
        said[held_out] = say(z[held_out])

    def loss(log_warmth: float) -> float:
        proba = log_softmax(said / np.exp(log_warmth), axis=1)
        return float(-np.average(proba[np.arange(len(z)), rows.labels], weights=rows.weights))

    others = (said.sum(axis=1) - said.max(axis=1)) / (said.shape[1] - 1)
    lead = np.average(said.max(axis=1) - others, weights=rows.weights)
    ends = np.log(lead / SHARPEST), np.log(lead / SMOOTHEST)
    best = minimize_scalar(loss, bounds=ends, method="bounded", options={"xatol": 1e-8})
    total = right = 0.0
    for weight, p, label in zip(
        rows.weights, np.exp(log_softmax(said / np.exp(best.x), axis=1)), rows.labels, strict=True
    ):
        total += weight * sum((p[c] - (c == label)) ** 2 for c in range(len(p)))
        right += weight * (p.argmax() == label)
    return total / rows.weights.sum(), best.fun, right / rows.weights.sum()


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize(
    ("shape", "noise", "members"), [((60, 30), 2.0, 1), ((90, 3), 0.7, 1), ((120, 10), 1.5, 2)]
)
def test_the_choice_is_that_of_a_naive_loop(shape, noise, members, classes, seed):
    rows = noisy_rows(*shape, classes, seed, noise=noise, members=members)
    hypers = [*SOFTMAX, *(Ridge(strength) for strength in (0.1, 10.0)), Neighbours(1), Neighbours(9)]
    trained = train(rows, hypers, classes=classes, seed=seed)
    naive = [naive_scores(rows, hyper, seed)[0] for hyper in hypers]
    assert max(naive) - min(naive) > 0.02, "the heads must differ, or nothing is tested"
    best = chosen(trained)
    assert trained[best].facts["inner_brier"] == pytest.approx(naive[best], abs=1e-3)
    assert naive[best] <= min(naive) + 1e-3


@pytest.mark.parametrize(
    "hyper",
    [Softmax(0.03), Softmax(1.0, "balanced"), Ridge(0.5), Neighbours(5), Centroid()],
    ids=lambda hyper: hyper.kind,
)
@pytest.mark.parametrize("classes", [2, 4])
def test_inner_scores_are_those_of_a_naive_loop(hyper, classes):
    rows = noisy_rows(80, 6, classes, 1, noise=1.5)
    [each] = train(rows, [hyper], classes=classes, seed=5)
    brier, loss, accuracy = naive_scores(rows, hyper, 5)
    assert each.facts["inner_brier"] == pytest.approx(brier, abs=1e-3)
    assert each.facts["inner_log_loss"] == pytest.approx(loss, abs=1e-3)
    assert each.facts["inner_accuracy"] == pytest.approx(accuracy, abs=1e-9)


def test_inner_scores_of_small_networks_are_those_of_their_folds():
    rows = noisy_rows(60, 6, 3, 0)
    [each] = train(rows, [QUICK])
    folds = inner_folds(rows.labels, rows.groups, seed=0)
    [fit] = fit_mlp(
        rows.features, rows.labels, rows.weights, classes=3, hypers=[QUICK], folds=folds, epochs=EPOCHS
    )
    proba = np.exp(log_softmax(fit.inner / each.facts["temperature"], axis=1))
    brier = np.average(((proba - np.eye(3)[rows.labels]) ** 2).sum(axis=1), weights=rows.weights)
    assert each.facts["inner_brier"] == pytest.approx(brier, abs=1e-5)
    assert each.facts["epochs"] == fit.facts["epochs"]


def test_inner_scores_are_those_of_heads_trained_to_the_end():
    """On the folds the search ends early; where directions differ by thousands that must not show."""
    rng = np.random.default_rng(0)
    spread = np.arange(1, 301) ** -1.25  # deviations of the directions: what real features look like
    turn = np.linalg.qr(rng.normal(size=(300, 300)))[0]
    features = rng.normal(size=(600, 300)) * spread @ turn
    labels = (features @ turn.T[:, :100] @ (rng.normal(size=100) / spread[:100]) > 0).astype(int)
    rows = Rows(features, labels, np.ones(600), np.array([str(number) for number in range(600)]))
    [each] = train(rows, [Softmax(0.001)], classes=2)
    assert each.facts["inner_brier"] == pytest.approx(naive_scores(rows, Softmax(0.001), 0)[0], abs=1e-3)


def test_different_data_get_different_strengths():
    easy = noisy_rows(300, 10, 3, 1, noise=0.8)
    hard = noisy_rows(60, 30, 3, 1, noise=4.0)
    assert chosen(train(easy, SOFTMAX)) < chosen(train(hard, SOFTMAX))


def test_the_order_of_the_hypers_does_not_matter():
    rows = noisy_rows(60, 10, 3, 0)
    hypers = [*SOFTMAX, Neighbours(5), Ridge(1.0)]
    ahead, back = (order[chosen(train(rows, order))] for order in (hypers, hypers[::-1]))
    assert ahead == back


def test_weights_decide_the_choice():
    """Half of the rows have labels by chance; with their weight at zero they must not be heard."""
    good, bad = noisy_rows(150, 10, 3, 0, noise=0.3), noisy_rows(150, 10, 3, 1)
    labels = np.concatenate([good.labels, np.random.default_rng(0).integers(0, 3, 150)])
    features = np.concatenate([good.features, bad.features])
    groups = np.array([str(number) for number in range(300)])
    deaf = Rows(features, labels, np.repeat([1.0, 0.0], 150), groups)
    even = Rows(features, labels, np.ones(300), groups)
    trained = [train(rows, [*SOFTMAX, Ridge(0.1), Centroid()]) for rows in (deaf, even)]
    briers = [float(heads[chosen(heads)].facts["inner_brier"]) for heads in trained]
    assert briers[0] < 0.05 < 0.3 < briers[1]


# The heads


def fits_alone(rows: Rows, hyper: Hyper, folds: Folds) -> Fit:
    """The head, trained by its own module."""
    given = (rows.features, rows.labels, rows.weights)
    if isinstance(hyper, Centroid):
        return fit_centroid(*given, classes=3, folds=folds)
    if isinstance(hyper, Mlp):
        return fit_mlp(*given, classes=3, hypers=[hyper], folds=folds, epochs=EPOCHS)[0]
    fit = {"softmax": train_softmax, "ridge": fit_ridge, "knn": fit_neighbours}[hyper.kind]
    return fit(*given, classes=3, hypers=[hyper], folds=folds)[0]


@KINDS
def test_a_head_is_that_of_its_own_module_at_the_temperature_of_the_folds(hyper):
    rows = noisy_rows(60, 5, 3, 0)
    [each] = train(rows, [hyper], seed=3)
    fit = fits_alone(rows, hyper, inner_folds(rows.labels, rows.groups, seed=3))
    warmth = each.facts["temperature"]
    assert warmth > 0
    assert type(each.predictor) is type(fit.predictor)
    found = each.predictor.log_proba(rows.features)
    np.testing.assert_allclose(
        found, fit.predictor.tempered(warmth).log_proba(rows.features), rtol=1e-5, atol=1e-6
    )
    np.testing.assert_allclose(
        found, scaled(fit.predictor.log_proba(rows.features), warmth), rtol=1e-4, atol=1e-5
    )
    np.testing.assert_allclose(each.inner, scaled(fit.inner, warmth), rtol=1e-5, atol=1e-6)
    assert each.facts["converged"] == fit.converged
    assert {name: each.facts[name] for name in fit.facts if name != "temperature"} == pytest.approx(
        {name: fact for name, fact in fit.facts.items() if name != "temperature"}, rel=1e-3, abs=1e-6
    )


@KINDS
def test_the_temperature_leaves_nothing_to_gain_on_the_folds(hyper):
    rows = noisy_rows(90, 5, 3, 2, noise=3.0)
    [each] = train(rows, [hyper])
    for other in (0.9, 1.1):
        told = scaled(each.inner, other)[np.arange(90), rows.labels]
        assert -np.average(told, weights=rows.weights) > each.facts["inner_log_loss"]


def test_a_mix_of_kinds_keeps_the_order_of_the_hypers():
    rows = noisy_rows(60, 5, 3, 0)
    mixed = [
        *(Neighbours(7), Softmax(1.0), QUICK, Ridge(3.0), Centroid(), Softmax(0.01, "balanced")),
        *(Mlp((3, 3), 0.03), Neighbours(1), Ridge(0.1, "balanced"), Softmax(0.1)),
    ]
    together = train(rows, mixed)
    assert len(together) == len(mixed)
    for each, hyper in zip(together, mixed, strict=True):
        [alone] = train(rows, [hyper])
        for name in ("inner_brier", "inner_log_loss", "temperature"):
            assert each.facts[name] == pytest.approx(alone.facts[name], rel=1e-3)
        np.testing.assert_allclose(each.inner, alone.inner, rtol=1e-3, atol=2e-3)
        np.testing.assert_allclose(
            np.exp(each.predictor.log_proba(rows.features)),
            np.exp(alone.predictor.log_proba(rows.features)),
            atol=1e-3,
        )


@pytest.mark.parametrize(
    "hypers", [ONE_OF_EACH, [Centroid(), QUICK, Mlp((3,), 0.03), Mlp((4,), 0.01)], [Ridge(1.0), *SOFTMAX]]
)
@pytest.mark.parametrize("groups", [60, 1])
def test_progress_is_told_in_heads(hypers, groups):
    """With folds or without: there is one head for each setting, whatever is trained for it."""
    rows = replace(noisy_rows(60, 5, 3, 0), groups=np.arange(60) % groups)
    told: list[int] = []
    train(rows, hypers, advance=told.append)
    assert told == sorted(told)
    assert told[-1] == len(hypers)
    assert told.count(len(hypers)) <= 2  # not before the last one is done


def test_the_same_rows_and_seed_give_the_same_bits():
    rows = noisy_rows(60, 5, 3, 0)
    one, other = (train(rows, ONE_OF_EACH, seed=3) for _ in range(2))
    for a, b in zip(one, other, strict=True):
        assert a.facts == b.facts
        assert a.inner.tobytes() == b.inner.tobytes()
        for name, array in a.predictor.arrays().items():
            assert array.tobytes() == b.predictor.arrays()[name].tobytes()


# Too few samples


@pytest.mark.parametrize("hypers", [SOFTMAX[:1], SOFTMAX[:2], SOFTMAX[:3], SOFTMAX, ONE_OF_EACH])
@pytest.mark.parametrize(
    ("labels", "groups", "weights"),
    [
        ([0, 0, 0, 1], ["a", "b", "c", "d"], [1, 1, 1, 1]),  # a class with one sample
        ([0, 0, 0, 1, 1], ["a", "b", "c", "d", "d"], [1, 1, 1, 1, 1]),  # a class with one group
        ([0, 1, 0, 1], ["a", "a", "b", "b"], [1, 1, 0, 0]),  # one fold has all weight
    ],
)
def test_too_few_samples_for_folds_take_the_middle_head(hypers, labels, groups, weights):
    features = np.random.default_rng(0).normal(size=(len(labels), 3))
    rows = Rows(features, np.array(labels), np.array(weights, dtype=float), np.array(groups))
    trained = train(rows, hypers, classes=2)
    assert chosen(trained) == len(hypers) // 2
    for hyper, each in zip(hypers, trained, strict=True):
        assert each.inner is None
        assert [each.facts[f"inner_{name}"] for name in ("brier", "log_loss", "accuracy")] == [None] * 3
        assert each.facts["temperature"] == 1 or isinstance(hyper, Ridge)  # which leaves rows out one by one
        assert np.isfinite(each.predictor.log_proba(features)).all()


def test_two_samples_of_each_class_are_enough():
    rows = Rows(np.eye(4), np.array([0, 0, 1, 1]), np.ones(4), np.array(list("abcd")))
    for each in train(rows, ONE_OF_EACH, classes=2):
        assert each.facts["inner_brier"] is not None
        assert each.inner.shape == (4, 2)


@pytest.mark.parametrize("hyper", ONE_OF_EACH[1:], ids=lambda hyper: hyper.kind)
def test_a_class_without_rows_is_no_hindrance(hyper):
    rows = noisy_rows(60, 5, 3, 0)
    gap = replace(rows, labels=np.array([0, 2, 3])[rows.labels])
    [one], [other] = train(rows, [hyper]), train(gap, [hyper], classes=4)
    assert other.inner.shape == (60, 4)
    assert np.isfinite(other.inner).all()
    assert other.facts["inner_accuracy"] == pytest.approx(one.facts["inner_accuracy"])
    # least squares gives an absent class the score nought, which is a chance
    assert other.facts["inner_brier"] == pytest.approx(
        one.facts["inner_brier"], abs=0.1 if hyper.kind == "ridge" else 1e-3
    )


# What is held out has no influence


@pytest.mark.parametrize("hyper", ONE_OF_EACH[1:], ids=lambda hyper: hyper.kind)
def test_held_out_labels_do_not_touch_the_fits_that_score_them(hyper, monkeypatch):
    """Permute the labels of a fold: what is said of it stays, but for the temperature; the rest changes.

    Features are standardised by all rows of the training part, and classes balanced by how many there are.
    The epoch at which a small network is best is found on the fold, so it is not among these.
    """
    rows = noisy_rows(60, 5, 3, 0)
    folds = inner_folds(rows.labels, rows.groups, seed=0)
    monkeypatch.setattr(selection, "inner_folds", lambda *args, **how: folds)
    [clean] = train(rows, [hyper])
    for number, (_, held_out) in enumerate(folds):
        spoilt = rows.labels.copy()
        spoilt[held_out] = np.roll(spoilt[held_out], 1 + number)
        assert (spoilt != rows.labels).any()
        [other] = train(replace(rows, labels=spoilt), [hyper])
        for fold, (_, part) in enumerate(folds):
            ahead, after = (shape(untempered(each)[part]) for each in (clean, other))
            assert np.allclose(ahead, after, rtol=1e-3, atol=1e-3) == (fold == number)


def shape(log_proba: np.ndarray) -> np.ndarray:
    """Scores but for a temperature: centred in each row, of norm 1 in all."""
    centred = log_proba - log_proba.mean(axis=1, keepdims=True)
    return centred / np.sqrt(np.square(centred).mean())


def test_rows_of_a_group_are_never_judged_by_each_other():
    """Labels are by chance and each group's rows are the same, so the nearest row knows the label, if it is heard."""
    rng = np.random.default_rng(0)
    features, labels = np.repeat(rng.normal(size=(100, 4)), 2, axis=0), np.repeat(rng.integers(0, 2, 100), 2)
    apart, kept = np.arange(200), np.repeat(np.arange(100), 2)
    [leaked], [honest] = (
        train(Rows(features, labels, np.ones(200), groups), [Neighbours(1)], classes=2)
        for groups in (apart, kept)
    )
    assert leaked.facts["inner_accuracy"] > 0.75
    assert honest.facts["inner_accuracy"] < 0.65


# Folds


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 14)), min_size=2, max_size=60),
    st.integers(0, 3),
)
def test_folds_hold_out_every_row_once_and_never_cut_a_group(pairs, seed):
    labels = np.array([label for label, _ in pairs])
    groups = np.array([f"g{group}" for _, group in pairs])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # scikit-learn's, on classes with few members
        folds = inner_folds(labels, groups, seed=seed)
    fewest = min(len(set(groups[labels == label])) for label in set(labels))
    assert len(folds) == (min(FOLDS, fewest) if fewest > 1 else 0)
    if folds:
        assert sorted(np.concatenate([held_out for _, held_out in folds])) == list(range(len(pairs)))
    for seen, held_out in folds:
        assert sorted([*seen, *held_out]) == list(range(len(pairs)))
        assert not set(groups[seen]) & set(groups[held_out])


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 2), min_size=6, max_size=80), st.integers(0, 3))
def test_folds_without_groups_give_each_class_its_share(labels, seed):
    labels = np.array(labels)
    folds = inner_folds(labels, np.array([str(row) for row in range(len(labels))]), seed=seed)
    for _, held_out in folds:
        for c in set(labels):
            share = (labels == c).sum() / len(folds)
            assert abs((labels[held_out] == c).sum() - share) < 1


@pytest.mark.parametrize("members", [1, 2])
def test_another_seed_shuffles_the_folds(members):
    labels, groups = np.arange(40) // members % 2, np.array([str(row // members) for row in range(40)])
    one, same, other = (inner_folds(labels, groups, seed=seed) for seed in (0, 0, 1))
    assert all((a[1] == b[1]).all() for a, b in zip(one, same, strict=True))
    assert not all((a[1] == b[1]).all() for a, b in zip(one, other, strict=True))


# Views and sources


@KINDS
def test_views_of_a_sample_are_on_one_side_of_every_inner_fold_and_weigh_what_it_weighs(hyper, monkeypatch):
    rows = noisy_rows(30, 4, 3, 0)
    seen: list[tuple] = []

    def record(*given):
        seen.append(given)
        return fit(*given)

    fit = selection._fit
    monkeypatch.setattr(selection, "_fit", record)
    [each] = train(replace(rows, features=np.tile(rows.features, (3, 1)), views=3), [hyper])
    [(features, labels, weights, _, _, folds, _)] = seen
    assert features.shape == (90, 4)
    np.testing.assert_array_equal(labels, np.tile(rows.labels, 3))
    np.testing.assert_allclose(weights.reshape(3, 30).sum(axis=0), rows.weights)
    assert len(folds) == FOLDS
    for inside, held_out in folds:
        assert not set(inside % 30) & set(held_out % 30)
    assert each.inner.shape == (30, 3)


def test_a_view_twice_is_as_good_as_once():
    rows = noisy_rows(60, 4, 3, 0)
    twice = replace(rows, features=np.tile(rows.features, (2, 1)), views=2)
    for hyper in (Softmax(0.1), Ridge(1.0), Centroid()):
        raw = []
        for some in (rows, twice):
            [each] = train(some, [hyper])
            assert isinstance(each.predictor, Linear)
            raw.append(each.predictor.weight / np.linalg.norm(each.predictor.weight))
        np.testing.assert_allclose(raw[1], raw[0], rtol=1e-4, atol=1e-5)


@KINDS
def test_inner_scores_of_views_are_those_of_their_mean_probability(hyper):
    rng = np.random.default_rng(0)
    rows = noisy_rows(60, 4, 3, 0)
    views = np.concatenate([rows.features, rows.features + rng.normal(size=rows.features.shape)])
    given = Rows(views, np.tile(rows.labels, 2), np.tile(rows.weights, 2) / 2, np.tile(rows.groups, 2))
    [apart], [mean] = train(given, [hyper]), train(replace(rows, features=views, views=2), [hyper])
    proba = np.exp(apart.inner.reshape(2, 60, 3)).mean(axis=0)
    np.testing.assert_allclose(np.exp(mean.inner), proba, rtol=1e-5, atol=1e-6)
    assert mean.facts["temperature"] == pytest.approx(apart.facts["temperature"])
    brier = np.average(((proba - np.eye(3)[rows.labels]) ** 2).sum(axis=1), weights=rows.weights)
    assert mean.facts["inner_brier"] == pytest.approx(brier, abs=1e-6)


@KINDS
def test_a_source_of_blocks_is_trained_on_as_an_array(hyper):
    rows = noisy_rows(60, 4, 3, 0)
    [whole], [parts] = train(rows, [hyper]), train(replace(rows, features=Blocks(rows.features)), [hyper])
    np.testing.assert_allclose(np.exp(parts.inner), np.exp(whole.inner), atol=1e-3)
    np.testing.assert_allclose(
        np.exp(parts.predictor.log_proba(rows.features)),
        np.exp(whole.predictor.log_proba(rows.features)),
        atol=1e-4,
    )


@pytest.mark.parametrize("views", [1, 3])
@pytest.mark.parametrize("step", [1, 7, 1000])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_heads_asked_together_say_what_each_says_alone(views, step, dtype):
    rows = noisy_rows(60, 4, 3, 0)
    predictors = [each.predictor for each in train(rows, [*ONE_OF_EACH, Softmax(3.0)])]
    others = np.random.default_rng(1).normal(size=(views * 10, 4)).astype(dtype)
    for some in (others, Blocks(others, step)):
        told = said_of(predictors, some, views)
        assert len(told) == len(predictors)
        for predictor, found in zip(predictors, told, strict=True):
            proba = np.exp(predictor.log_proba(others)).reshape(views, 10, 3).mean(axis=0)
            np.testing.assert_allclose(found, np.log(proba), rtol=1e-5, atol=1e-5)


def test_views_are_averaged_as_probabilities():
    views = [np.log([[0.9, 0.1], [0.5, 0.5]]), np.log([[0.5, 0.5], [0.1, 0.9]])]
    np.testing.assert_allclose(np.exp(mean_log_proba(views)), [[0.7, 0.3], [0.3, 0.7]])
    far = [np.array([[-2000.0, 0.0]]), np.array([[-1000.0, 0.0]])]
    np.testing.assert_allclose(mean_log_proba(far), [[-1000 - np.log(2), 0.0]])


def test_one_view_is_left_as_it_is():
    view = np.log([[0.9, 0.1]])
    assert mean_log_proba([view]) is view
