"""A head as a scikit-learn estimator: it says what the head says, and is never trained again."""

import subprocess
import sys

import numpy as np
import pytest
from sklearn.base import clone, is_classifier
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.inspection import permutation_importance
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, get_scorer
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.validation import check_is_fitted

from tasks.core.errors import RequestError
from tasks.core.estimators import HeadClassifier, open_head
from tasks.core.heads import HeadFile, save_heads
from tasks.core.predictors import Layers, Linear, Networks, Predictor, Voting, log_softmax

NAMES = ["crack", "mark", "sound"]


def linear(classes: int = 3, columns: int = 4, seed: int = 0) -> Linear:
    rng = np.random.default_rng(seed)
    return Linear(rng.normal(size=(classes, columns)), rng.normal(size=classes))


def layers() -> Layers:
    rng = np.random.default_rng(1)
    weights = (rng.normal(size=(5, 4)).astype("float32"), rng.normal(size=(3, 5)).astype("float32"))
    return Layers(weights, (np.ones(5, "float32"), np.zeros(3, "float32")))


def voting() -> Voting:
    rng = np.random.default_rng(2)
    rows = rng.integers(-4, 4, (20, 4)).astype("float32")
    return Voting(rows, np.arange(20) % 3, np.ones(20), np.full(3, 0.1), np.zeros(4), np.ones(4), 3)


def samples(rows: int = 60, columns: int = 4, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, columns))


def truth(head: HeadClassifier, X: np.ndarray, wrong: float = 0.3) -> np.ndarray:
    """What the head says, but for some rows."""
    rng = np.random.default_rng(3)
    return np.where(rng.random(len(X)) < wrong, rng.choice(head.classes_, len(X)), head.predict(X))


# What it says


@pytest.mark.parametrize("predictor", [linear(), layers(), voting()], ids=lambda head: head.kind)
def test_it_says_what_the_head_says(predictor: Predictor):
    head, X = HeadClassifier(predictor, NAMES), samples()
    log_proba = predictor.log_proba(X)
    np.testing.assert_array_equal(head.predict_log_proba(X), log_proba)
    np.testing.assert_array_equal(head.predict_proba(X), np.exp(log_proba))
    assert head.predict(X).tolist() == [NAMES[c] for c in log_proba.argmax(axis=1)]
    assert head.n_features_in_ == 4


def test_classes_are_sorted_and_so_are_the_columns():
    predictor, X = linear(), samples()
    head = HeadClassifier(predictor, ("sound", "crack", "mark"))
    assert head.classes_.tolist() == ["crack", "mark", "sound"]
    np.testing.assert_array_equal(head.predict_log_proba(X), predictor.log_proba(X)[:, [1, 2, 0]])
    assert head.predict(X).tolist() == [head.class_names[c] for c in predictor.log_proba(X).argmax(axis=1)]


def test_the_decision_is_that_of_scikit_learns_softmax():
    X = samples()
    for classes in (2, 3):
        reference = LogisticRegression().fit(X, np.arange(60) % classes)
        weight, bias = reference.coef_, reference.intercept_
        if classes == 2:
            weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
        head = HeadClassifier(Linear(weight, bias), NAMES[:classes])
        expected = reference.decision_function(X)
        if classes > 2:
            expected = log_softmax(expected)
        np.testing.assert_allclose(head.decision_function(X), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", ["float16", "float32", "int64"])
def test_rows_of_any_number_type_are_taken(dtype):
    X = (3 * samples()).astype(dtype)
    head = HeadClassifier(linear(), NAMES)
    np.testing.assert_allclose(head.predict_proba(X), head.predict_proba(X.astype(float)), rtol=1e-12)
    assert head.predict(X.tolist()).tolist() == head.predict(X).tolist()


# Bad requests


@pytest.mark.parametrize(
    ("X", "found"), [(samples(5, 3), r"\(5, 3\), needed \(N, 4\)"), (np.ones(4), r"\(4,\), needed \(N, 4\)")]
)
def test_rows_of_another_width_are_refused_in_one_line(X, found):
    with pytest.raises(ValueError, match=f"found features of shape {found}; give") as caught:
        HeadClassifier(linear(), NAMES).predict(X)
    assert "\n" not in str(caught.value)


def test_rows_that_are_not_finite_are_refused():
    X = samples()
    X[3, 2] = np.nan
    with pytest.raises(ValueError, match="found NaN or infinite"):
        HeadClassifier(linear(), NAMES).predict(X)


def test_names_that_do_not_match_the_head_are_refused():
    with pytest.raises(ValueError, match="found 2 class names, needed 3"):
        HeadClassifier(linear(), NAMES[:2]).predict(samples())


def test_it_is_not_trained_again():
    head, X = HeadClassifier(linear(), NAMES), samples()
    with pytest.raises(ValueError, match=r"trained already.*FrozenEstimator"):
        head.fit(X, truth(head, X))
    with pytest.raises(ValueError, match="FrozenEstimator"):
        make_pipeline(FunctionTransformer(), head).fit(X, truth(head, X))
    with pytest.raises(ValueError, match="FrozenEstimator"):
        cross_val_score(head, X, truth(head, X), error_score="raise")
    with pytest.raises(ValueError, match="FrozenEstimator"):
        cross_val_score(head, X, np.arange(60) % 3)


# Among scikit-learn's tools


def test_scikit_learn_takes_it_for_a_trained_classifier():
    head = HeadClassifier(linear(), NAMES)
    assert is_classifier(head)
    check_is_fitted(head)
    check_is_fitted(FrozenEstimator(head))
    assert head.get_params() == {"predictor": head.predictor, "class_names": NAMES}
    assert "HeadClassifier" in repr(head)


def test_a_clone_says_the_same():
    head, X = HeadClassifier(voting(), tuple(NAMES)), samples()
    again = clone(head)
    assert again is not head
    np.testing.assert_array_equal(again.predict_proba(X), head.predict_proba(X))


def test_scores_are_scikit_learns():
    head, X = HeadClassifier(linear(), NAMES), samples()
    y = truth(head, X)
    right = np.mean([one == other for one, other in zip(head.predict(X), y, strict=True)])
    assert head.score(X, y) == accuracy_score(y, head.predict(X)) == pytest.approx(right)
    log_proba = head.predict_log_proba(X)[np.arange(60), np.searchsorted(head.classes_, y)]
    assert get_scorer("neg_log_loss")(head, X, y) == pytest.approx(log_proba.mean())
    assert len(permutation_importance(head, X, y, n_repeats=2, random_state=0).importances_mean) == 4


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("method", ["sigmoid", "isotonic", "temperature"])
def test_it_can_be_calibrated(classes, method):
    head, X = HeadClassifier(linear(classes), NAMES[:classes]), samples(300)
    calibrated = CalibratedClassifierCV(FrozenEstimator(head), method=method).fit(X, truth(head, X))
    assert calibrated.classes_.tolist() == NAMES[:classes]
    proba = calibrated.predict_proba(X)
    np.testing.assert_allclose(proba.sum(axis=1), 1)
    if method == "temperature":  # which moves no row from one class to another
        np.testing.assert_array_equal(calibrated.predict(X), head.predict(X))
    assert -get_scorer("neg_log_loss")(calibrated, X, truth(head, X)) < np.log(classes)


@pytest.mark.parametrize("classes", [2, 3])
def test_calibration_finds_the_temperature_that_the_head_was_spoilt_by(classes):
    good, X = linear(classes), samples(4000)
    proba = np.exp(good.log_proba(X))
    drawn = (np.random.default_rng(0).random((4000, 1)) > proba.cumsum(axis=1)[:, :-1]).sum(axis=1)
    spoilt = HeadClassifier(Linear(5 * good.weight, 5 * good.bias), NAMES[:classes])
    mended = CalibratedClassifierCV(FrozenEstimator(spoilt), method="temperature")
    mended.fit(X, np.array(NAMES)[drawn])
    assert np.abs(spoilt.predict_proba(X) - proba).max() > 0.2
    np.testing.assert_allclose(mended.predict_proba(X), proba, rtol=0, atol=0.05)


def test_it_predicts_at_the_end_of_a_pipeline():
    head, X = HeadClassifier(linear(), NAMES), samples()
    pipeline = make_pipeline(FunctionTransformer(lambda rows: rows / 2), head)
    np.testing.assert_array_equal(pipeline.predict(X), head.predict(X / 2))
    frozen = make_pipeline(FunctionTransformer(lambda rows: rows / 2), FrozenEstimator(head))
    frozen.fit(X, truth(head, X))
    np.testing.assert_array_equal(frozen.predict_proba(X), head.predict_proba(X / 2))
    assert frozen.classes_.tolist() == NAMES


def test_layers_of_a_network_are_no_head_on_rows_of_features(tmp_path):
    said, rows = np.zeros((1, 2)), ["0" * 40]
    kept = HeadFile(Networks({"0 a": np.ones(1)}), said, rows, None, rows, {"classes": ["a", "b"]})
    path = save_heads(tmp_path, {"one": kept})
    with pytest.raises(
        RequestError, match=r"layers of a network.*; open them by tasks\.core\.trained\.open_layers$"
    ):
        open_head(path)


def test_it_predicts_without_torch():
    script = (
        "import sys, numpy as np\n"
        "from tasks.core.estimators import HeadClassifier\n"
        "from tasks.core.predictors import KINDS, Linear\n"
        "arrays = {'weight': np.eye(2), 'bias': np.zeros(2)}\n"
        "head = HeadClassifier(KINDS['linear'].of(arrays), ['a', 'b'])\n"
        "assert head.predict(np.eye(2)).tolist() == ['a', 'b']\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)
