"""What is said of a sample: the mean over all heads that had not seen it, and over no others."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from said_heads import CLASSES, digest_of, head_of, random_study, table_of

from tasks.core.said import of_test_rows, of_unseen_rows


@pytest.mark.parametrize("which", [of_test_rows, of_unseen_rows])
@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), splits=st.integers(1, 4))
def test_probabilities_are_the_mean_of_what_is_said_without_having_seen_the_sample(which, seed, splits):
    heads, table = random_study(seed, splits)
    said: dict[str, list[np.ndarray]] = {}
    for head in heads:
        rows = list(zip(head.test_rows, head.log_proba, strict=True))
        if which is of_unseen_rows and head.inner is not None:
            rows += zip(head.train_rows, head.inner, strict=True)
        for digest, log_proba in rows:
            said.setdefault(digest, []).append(np.exp(log_proba))
    table = table.sample(frac=1, random_state=seed % 1000)  # its order decides nothing
    found = which(heads, table)
    assert found.digests == sorted(said)
    np.testing.assert_allclose(found.proba, [np.mean(said[digest], axis=0) for digest in found.digests])
    known = table.set_index("digest").loc[found.digests]
    assert found.paths == known.path.tolist()
    assert [CLASSES[label] for label in found.labels] == known.label.tolist()


def test_samples_without_a_label_are_not_among_them():
    table = table_of(["cat", "", "dog"])
    found = of_test_rows([head_of([0, 2], np.array([[0.5, 0.3, 0.2]] * 2))], table)
    assert found.digests == [digest_of(0), digest_of(2)]


def test_without_inner_folds_only_test_rows_speak():
    head = head_of([1], np.array([[0.5, 0.3, 0.2]]), training=[0, 2])
    assert of_unseen_rows([head], table_of(["cat"] * 3)).digests == [digest_of(1)]
