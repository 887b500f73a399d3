"""Class weights: scikit-learn's, and each class weighs the same."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_sample_weight

from tasks.core.weights import class_weighted

ROWS = st.lists(st.tuples(st.integers(0, 5), st.sampled_from([0.0, 0.5, 1.0, 3.0])), min_size=1).filter(
    lambda rows: any(weight for _, weight in rows)
)


@given(st.lists(st.integers(0, 5), min_size=1))
def test_balanced_is_scikit_learns_where_all_rows_weigh_the_same(labels):
    found = class_weighted(np.ones(len(labels)), np.array(labels), "balanced")
    np.testing.assert_allclose(found, compute_sample_weight("balanced", labels))


@given(ROWS)
def test_each_class_with_weight_weighs_the_same_and_all_weigh_what_they_did(rows):
    labels, weights = (np.array(column) for column in zip(*rows, strict=True))
    found = class_weighted(weights, labels, "balanced")
    present = {label for label, weight in rows if weight}
    for label in range(6):
        share = 1 / len(present) if label in present else 0
        assert found[labels == label].sum() == pytest.approx(weights.sum() * share)


@given(ROWS)
def test_rows_of_one_class_keep_their_proportions(rows):
    labels, weights = (np.array(column) for column in zip(*rows, strict=True))
    found = class_weighted(weights, labels, "balanced")
    for label in np.unique(labels[weights > 0]):
        of = labels == label
        np.testing.assert_allclose(found[of] / found[of].sum(), weights[of] / weights[of].sum())


def test_a_row_of_weight_two_counts_as_two_rows():
    labels, weights = np.array([0, 1, 1, 2]), np.array([1, 2, 1, 3])
    copies = compute_sample_weight("balanced", np.repeat(labels, weights))  # 0, 1, 1, 1, 2, 2, 2
    found = class_weighted(weights.astype(float), labels, "balanced")
    np.testing.assert_allclose(found, [copies[0], 2 * copies[1], copies[1], 3 * copies[4]])


def test_none_changes_nothing():
    weights = np.array([0.0, 0.1, 7.0])
    np.testing.assert_array_equal(class_weighted(weights, np.array([0, 1, 1]), "none"), weights)


def test_another_word_is_refused():
    with pytest.raises(ValueError, match='Class weight "balance": there are none and balanced'):
        class_weighted(np.ones(2), np.array([0, 1]), "balance")
