"""Answers: what is known is counted, what is unknown is neither yes nor no, and a joint loss weighs as asked."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tasks.core.answers import UNKNOWN, Answers, label_weights

WRITTEN = {
    "car": ["1", "0", "", "1", ""],
    "kind": ["street", "", "lane", "street", ""],
}
some_labels = st.tuples(st.integers(1, 30), st.integers(1, 4)).flatmap(
    lambda shape: arrays(np.int64, shape, elements=st.integers(UNKNOWN, 1))
)


def of(labels: np.ndarray) -> Answers:
    return Answers(tuple(f"t{n}" for n in range(labels.shape[1])), (("0", "1"),) * labels.shape[1], labels)


def test_answers_are_numbered_among_their_targets_classes() -> None:
    answers = Answers.of(WRITTEN)
    assert answers.classes == (("0", "1"), ("lane", "street"))
    assert answers.labels.tolist() == [[1, 1], [0, UNKNOWN], [UNKNOWN, 0], [1, 1], [UNKNOWN, UNKNOWN]]
    assert answers.blocks == (slice(0, 2), slice(2, 4))


def test_unknown_is_no_class() -> None:
    assert Answers.of(WRITTEN).counts() == [
        {"target": "car", "known": 3, "unknown": 2, "classes": {"0": 1, "1": 2}},
        {"target": "kind", "known": 3, "unknown": 2, "classes": {"lane": 1, "street": 2}},
    ]


@given(some_labels)
def test_what_is_given_together_is_counted_as_pandas_does(labels: np.ndarray) -> None:
    found, column = of(labels).together(), 0
    frame = pd.DataFrame(labels)
    for first in frame:
        for a in (0, 1):
            for second in frame:
                for b in (0, 1):
                    both = ((frame[first] == a) & (frame[second] == b)).sum()
                    assert found[column, 2 * int(second) + b] == both
            column += 1


def test_some_targets_and_some_samples() -> None:
    answers = Answers.of(WRITTEN)
    assert answers.only(["kind"]).labels.tolist() == [[1], [UNKNOWN], [0], [1], [UNKNOWN]]
    assert answers.take(np.array([0, 2])).labels.tolist() == [[1, 1], [UNKNOWN, 0]]


@given(some_labels, st.sampled_from(["equal", "known"]), st.sampled_from(["none", "balanced"]))
def test_unknown_answers_weigh_nothing_and_all_weigh_one(labels: np.ndarray, way: str, classes: str) -> None:
    answers, weights = of(labels), np.linspace(0.5, 2, len(labels))
    found = label_weights(answers, weights, way, class_weight=classes)
    assert (found[~answers.known] == 0).all()
    if answers.known.any():
        assert found.sum() == pytest.approx(1)


@given(some_labels)
def test_equal_gives_every_known_target_the_same(labels: np.ndarray) -> None:
    answers = of(labels)
    found = label_weights(answers, np.linspace(0.5, 2, len(labels)), "equal").sum(axis=0)
    asked = answers.known.any(axis=0)
    assert found[asked] == pytest.approx(1 / max(1, asked.sum()))


@given(some_labels)
def test_known_gives_every_answer_its_samples_weight(labels: np.ndarray) -> None:
    answers, weights = of(labels), np.linspace(0.5, 2, len(labels))
    found = label_weights(answers, weights, "known")
    naive = [[weights[n] if known else 0 for known in row] for n, row in enumerate(answers.known)]
    total = np.sum(naive)
    assert found == pytest.approx(np.array(naive) / total if total else np.array(naive))


def test_given_weights_multiply_and_balanced_classes_weigh_alike() -> None:
    answers = Answers.of({"a": ["1", "0", "0", "0"], "b": ["", "1", "0", ""]})
    found = label_weights(answers, np.ones(4), "equal", {"a": 3}, class_weight="balanced")
    assert found.sum(axis=0) == pytest.approx([0.75, 0.25])
    assert found[0, 0] == pytest.approx(found[1:, 0].sum())
