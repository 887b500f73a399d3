"""Stage 3: each experiment trains one head per split on the kept features."""

from importlib.metadata import version
from typing import Any

import numpy as np
import pandas as pd

from tasks.caching import cached_stage
from tasks.core.artifacts import Artifacts
from tasks.core.digest import digest_bytes
from tasks.core.heads import Experiment, HeadFile, save_head
from tasks.core.splits import SplitSpec
from tasks.core.store import holdings, load
from tasks.core.tables import read_table
from tasks.core.trials import Part, head_path, is_whole, labelled, list_heads, parts_of, trial_identity
from tasks.progress import Progress
from tasks.references import Features, Head, Heads, Samples


def _identity(inputs: dict[str, Any]) -> object:
    experiment: Experiment = inputs["experiment"]
    features: Features = inputs["features"]
    sets = experiment.sets(features.sets)
    return [
        experiment.name,
        *trial_identity(experiment, sets, inputs["samples"].identity, inputs["splits"]),
    ]


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
    table = labelled(read_table(samples.table))
    sets = experiment.sets(features.sets)
    heads, rows = [], None
    with Progress(f"{study}: train {experiment.name}", sum(len(spec.seeds) for spec in splits)) as progress:
        for part in parts_of(table, splits):
            path = head_path(artifacts.heads, experiment, sets, table, part)
            found = is_whole(path)
            if not found:
                rows = _feature_rows(experiment, sets, table, artifacts) if rows is None else rows
                save_head(path, _train(experiment, table, rows, part))
            heads.append(
                Head(
                    path=path,
                    digest=digest_bytes(path.read_bytes()),
                    split=part.spec.name,
                    seed=part.seed,
                    trained=not found,
                )
            )
            progress.advance_to(len(heads))
    identity = trial_identity(experiment, sets, samples.identity, splits)
    list_heads(artifacts.heads, identity, [(head.path, head.digest) for head in heads])
    return Heads.model_construct(artifacts=artifacts.root, experiment=experiment.name, heads=heads)


def _train(experiment: Experiment, table: pd.DataFrame, rows: list[np.ndarray], part: Part) -> HeadFile:
    # Imported here, not above: a run that has nothing to train shall not wait for torch.
    from tasks.core.selection import Rows, mean_log_proba, stacked, train_softmax

    classes = sorted(table.label.unique())
    labels = table.label.map({name: number for number, name in enumerate(classes)}).to_numpy()
    training = [Rows(view, labels, table.weight.to_numpy(), part.groups).at(~part.test) for view in rows]
    chosen = train_softmax(
        stacked(training), classes=len(classes), strengths=experiment.strengths, seed=part.seed
    )
    story = {
        "classes": classes,
        "strength": chosen.head.strength,
        "gradient_norm": chosen.head.gradient_norm,
        "converged": chosen.head.has_converged,
        "inner_brier": chosen.brier,
        "train": int((~part.test).sum()),
        "versions": {name: version(name) for name in ("torch", "numpy", "scikit-learn")},
    }
    return HeadFile(
        weight=chosen.head.weight,
        bias=chosen.head.bias,
        log_proba=mean_log_proba([chosen.head.log_proba(view[part.test]) for view in rows]),
        test_rows=table.digest[part.test].tolist(),
        story=story,
    )


def _feature_rows(
    experiment: Experiment, sets: list[str], table: pd.DataFrame, artifacts: Artifacts
) -> list[np.ndarray]:
    """Put the taps side by side, (N, D) for each view."""
    seen, digests, taps = artifacts.seen("shard"), table.digest.tolist(), len(experiment.taps)
    blocks = [load(holdings(artifacts.features / name, seen), digests) for name in sets]
    flat = [block.reshape(len(digests), -1) for block in blocks]
    return [np.concatenate(flat[start : start + taps], axis=1) for start in range(0, len(flat), taps)]
