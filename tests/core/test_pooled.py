"""Rows for looking at: the mean over places of maps and tokens, in the order asked for."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.core import pooled
from tasks.core.artifacts import Artifacts
from tasks.core.digest import digest_bytes
from tasks.core.errors import StoreError
from tasks.core.pooled import pooled_rows
from tasks.core.store import write_shard

N = 11
DIGESTS = [digest_bytes(bytes([number])) for number in range(N)]
SHAPES = {
    "rows": (5,),
    "maps": (4, 3, 3),
    "channels last": (3, 3, 4),
    "tokens": (7, 4),
    "one place": (4, 1, 1),
}
PLACES = {"rows": (), "maps": (2, 3), "channels last": (1, 2), "tokens": (1,), "one place": (2, 3)}
NUMBERS = {
    name: np.random.default_rng(seed).normal(size=(N, *shape)).astype("float16" if seed % 2 else "float32")
    for seed, (name, shape) in enumerate(SHAPES.items())
}


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory) -> Artifacts:
    """A feature set of each kind, in two shards out of order."""
    here = Artifacts(tmp_path_factory.mktemp("artifacts"))
    for name, rows in NUMBERS.items():
        for part in np.array_split(np.random.default_rng(1).permutation(N), 2):
            write_shard(here.features / name, [DIGESTS[row] for row in part], rows[part], {})
    return here


@settings(max_examples=50, deadline=None)
@given(
    name=st.sampled_from(list(SHAPES)),
    rows=st.lists(st.integers(0, N - 1), min_size=1, max_size=20),
    at_once=st.sampled_from([1, 3, 256]),
)
def test_rows_are_numpys_mean_over_places(artifacts, name, rows, at_once):
    expected = NUMBERS[name][rows].astype(np.float64)
    if PLACES[name]:
        expected = expected.mean(axis=PLACES[name])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pooled, "AT_ONCE", at_once)
        found = pooled_rows(name, [DIGESTS[row] for row in rows], artifacts)
    assert found.dtype == np.float32
    assert found.shape == (len(rows), expected.shape[1])
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_row_that_is_not_stored_is_told(artifacts: Artifacts, tmp_path: Path):
    with pytest.raises(StoreError, match="1 of 2 rows are not stored"):
        pooled_rows("maps", [DIGESTS[0], digest_bytes(b"?")], artifacts)
    with pytest.raises(StoreError, match="rows are not stored"):
        pooled_rows("maps", DIGESTS[:1], Artifacts(tmp_path))
