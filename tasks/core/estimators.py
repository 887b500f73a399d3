"""A trained head as a scikit-learn estimator. It needs no torch."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin

from tasks.core.errors import RequestError
from tasks.core.heads import load_heads
from tasks.core.predictors import Networks, Predictor


def open_head(path: str | Path, key: str | None = None) -> "HeadClassifier":
    """Open a trained head from its file, `file` in results.csv and in `best` of summary.json.

    Args:
        path: the file, in the folder of artifacts.
        key: names the head in it; not needed where it holds one.

    Raises:
        StoreError: if the file is missing or damaged.
        RequestError: if it holds no such head, or several and no key is given, or layers of a network.
    """
    heads = load_heads(Path(path))
    if key is None and len(heads) == 1:
        [key] = heads
    if key not in heads:
        found = "none was named" if key is None else f"none is {key!r}"
        raise RequestError(f"{path}: holds {len(heads)} heads and {found}; results.csv has their keys")
    if isinstance(heads[key].predictor, Networks):
        raise RequestError(
            f"{path}: these are layers of a network, no head on rows of features; open them by "
            "tasks.core.trained.open_layers"
        )
    return HeadClassifier(heads[key].predictor, heads[key].story["classes"])


class HeadClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn is untyped
    """A trained head for scikit-learn's tools; rows are (N, D) raw features.

    It is born trained and is not trained again: where scikit-learn would fit it, as in a pipeline or in
    `CalibratedClassifierCV`, hand over `sklearn.frozen.FrozenEstimator(head)`.

    Args:
        predictor: the head.
        class_names: (C,) one for each of the head's outputs, in their order.
    """

    def __init__(self, predictor: Predictor, class_names: Sequence[str]) -> None:
        self.predictor = predictor
        self.class_names = class_names

    @property
    def classes_(self) -> np.ndarray:
        """(C,) class names, sorted, as scikit-learn takes them to be."""
        return np.sort(np.asarray(self.class_names, dtype=str))

    @property
    def n_features_in_(self) -> int:
        """D."""
        return self.predictor.columns

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def fit(self, X: object, y: object = None, **how: object) -> NoReturn:
        """Refuse: the head would lose what it was trained on.

        Raises:
            RequestError: always.
        """
        raise RequestError(
            "HeadClassifier: asked to fit a head that is trained already; scikit-learn needs it frozen: "
            "sklearn.frozen.FrozenEstimator(head)."
        )

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """Return log probabilities; (N, D) -> (N, C) in the order of `classes_`."""
        log_proba = self.predictor.log_proba(self._rows(X))
        if log_proba.shape[1] != len(self.class_names):
            raise RequestError(
                f"HeadClassifier: found {len(self.class_names)} class names, needed {log_proba.shape[1]}; "
                "name the head's classes in the order that it was trained with."
            )
        return log_proba[:, np.argsort(np.asarray(self.class_names, dtype=str))]

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return probabilities; (N, D) -> (N, C) in the order of `classes_`."""
        proba: np.ndarray = np.exp(self.predict_log_proba(X))
        return proba

    def decision_function(self, X: Any) -> np.ndarray:
        """Return log odds of the second of two classes (N,), log probabilities of more (N, C)."""
        log_proba = self.predict_log_proba(X)
        if log_proba.shape[1] != 2:
            return log_proba
        odds: np.ndarray = log_proba[:, 1] - log_proba[:, 0]
        return odds

    def predict(self, X: Any) -> np.ndarray:
        """Return the likeliest class of each row; (N, D) -> (N,) str."""
        likeliest: np.ndarray = self.classes_[self.predict_log_proba(X).argmax(axis=1)]
        return likeliest

    def _rows(self, X: Any) -> np.ndarray:
        """Check rows of features.

        Raises:
            RequestError: unless they are (N, D) finite numbers, with the head's D.
        """
        rows = np.asarray(X)
        if rows.dtype.kind != "f":
            rows = rows.astype(np.float64)
        if rows.ndim != 2 or rows.shape[1] != self.n_features_in_:
            raise RequestError(
                f"HeadClassifier: found features of shape {rows.shape}, needed (N, {self.n_features_in_}); "
                "give one row of raw features a sample, from the taps that the head was trained on."
            )
        if not np.isfinite(rows).all():
            raise RequestError(
                "HeadClassifier: found NaN or infinite features, needed numbers; drop those rows."
            )
        return rows
