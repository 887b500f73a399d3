"""Stage 3: each experiment trains one head per split on the kept features."""

from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tasks.caching import cached_stage
from tasks.core.artifacts import Artifacts
from tasks.core.digest import digest_bytes
from tasks.core.errors import StoreError
from tasks.core.heads import Experiment, HeadFile, head_key, load_head, save_head
from tasks.core.splits import SplitSpec, groups_of, split_table
from tasks.core.store import holdings, load
from tasks.core.tables import read_table
from tasks.progress import Progress
from tasks.references import Features, Head, Heads, Samples


def _identity(inputs: dict[str, Any]) -> object:
    experiment: Experiment = inputs["experiment"]
    features: Features = inputs["features"]
    splits = [asdict(spec) for spec in inputs["splits"]]
    sets = [features.sets[tap] for tap in experiment.taps]
    return [experiment.name, experiment.identity(), sets, inputs["samples"].identity, splits]


@cached_stage("heads", "{study}: train {experiment.name}", _identity)
def train(
    study: str,
    experiment: Experiment,
    features: Features,
    samples: Samples,
    splits: tuple[SplitSpec, ...],
    artifacts: Artifacts,
) -> Heads:
    """Train what is not there yet, one head for each split and seed.

    Raises:
        RequestError: if the samples cannot be split as asked.
    """
    table = _labelled(samples)
    sets = [features.sets[tap] for tap in experiment.taps]
    turns = [(spec, seed) for spec in splits for seed in spec.seeds]
    heads, rows = [], None
    with Progress(f"{study}: train {experiment.name}", len(turns)) as progress:
        for spec, seed in turns:
            test, groups = split_table(table, spec, seed), groups_of(table, spec)
            told = list(zip(table.digest, table.label, table.weight, groups, strict=True))
            path = artifacts.heads / f"{head_key(experiment, sets, told, test, seed)}.safetensors"
            found = _is_whole(path)
            if not found:
                rows = _feature_rows(sets, table, artifacts) if rows is None else rows
                save_head(path, _train(experiment, table, rows, groups, test, seed))
            heads.append(
                Head(
                    path=path,
                    digest=digest_bytes(path.read_bytes()),
                    split=spec.name,
                    seed=seed,
                    trained=not found,
                )
            )
            progress.advance_to(len(heads))
    return Heads.model_construct(artifacts=artifacts.root, experiment=experiment.name, heads=heads)


def _train(
    experiment: Experiment,
    table: pd.DataFrame,
    rows: np.ndarray,
    groups: np.ndarray,
    test: np.ndarray,
    seed: int,
) -> HeadFile:
    # Imported here, not above: a run that has nothing to train shall not wait for torch.
    from tasks.core.selection import Rows, train_softmax

    classes = sorted(table.label.unique())
    labels = table.label.map({name: number for number, name in enumerate(classes)}).to_numpy()
    everything = Rows(rows, labels, table.weight.to_numpy(), groups)
    chosen = train_softmax(
        everything.at(~test), classes=len(classes), strengths=experiment.strengths, seed=seed
    )
    story = {
        "classes": classes,
        "strength": chosen.head.strength,
        "gradient_norm": chosen.head.gradient_norm,
        "converged": chosen.head.has_converged,
        "inner_brier": chosen.brier,
        "train": int((~test).sum()),
        "versions": {name: version(name) for name in ("torch", "numpy", "scikit-learn")},
    }
    return HeadFile(
        weight=chosen.head.weight,
        bias=chosen.head.bias,
        log_proba=chosen.head.log_proba(rows[test]),
        test_rows=table.digest[test].tolist(),
        story=story,
    )


def _feature_rows(sets: list[str], table: pd.DataFrame, artifacts: Artifacts) -> np.ndarray:
    """Put the taps side by side: (N, D)."""
    seen, digests = artifacts.seen("shard"), table.digest.tolist()
    blocks = [load(holdings(artifacts.features / name, seen), digests) for name in sets]
    return np.concatenate([block.reshape(len(digests), -1) for block in blocks], axis=1)


def _labelled(samples: Samples) -> pd.DataFrame:
    table = read_table(samples.table)
    return table[table.label != ""].reset_index(drop=True)


def _is_whole(path: Path) -> bool:
    try:
        load_head(path)
    except StoreError:
        return False
    return True
