"""Layers of a network trained for several targets on one part of a table, jointly or for each by itself, and kept."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from tasks.core.answers import Answers
from tasks.core.cells import Advance, Source, add_to, counted, maker, story_of, told_of, train_network
from tasks.core.heads import HeadFile, save_heads
from tasks.core.hyper import Network, SharedNetwork, budget
from tasks.core.targets import about
from tasks.core.trials import Part


def samples_of(network: Network, answers: Answers, part: Part) -> int:
    """Count the samples that are learnt from on a part, each as often as it is."""
    if isinstance(network, SharedNetwork):
        return budget(network, int((part.training & answers.known.any(axis=1)).sum()))
    return sum(budget(network, int((part.training & known).sum())) for known in answers.known.T)


def train_layers(
    source: Source,
    answers: Answers,
    key: str,
    network: Network,
    part: Part,
    places: Mapping[str, Path],
    advance: Advance,
) -> dict[str, Path]:
    """Search layers for some targets, let them speak of their test rows, and keep them.

    Args:
        source: of answered samples.
        answers: (N, T) to the questions; all of them are asked.
        key: of the network among the heads of its shelf.
        network: what to search; for each target by itself, unless it is shared.
        part: of the source's table.
        places: target -> its shelf.
        advance: is told how many samples were learnt from, as `samples_of` counts them.

    Returns:
        Target -> file.
    """
    if isinstance(network, SharedNetwork):
        return _jointly(source, answers, key, network, part, places, advance)
    files, done = {}, 0
    for target, name in enumerate(answers.targets):
        rows = np.flatnonzero(answers.known[:, target])
        table = about(source.table, name).iloc[rows].reset_index(drop=True)
        one = Part(part.spec, part.seed, part.groups[rows], part.test[rows])
        files[name] = train_network(
            replace(source, table=table),
            {key: network},
            one,
            places[name],
            partial(add_to, advance, done),
        )
        done += budget(network, int(one.training.sum()))
    return files


def _jointly(
    source: Source,
    answers: Answers,
    key: str,
    network: SharedNetwork,
    part: Part,
    places: Mapping[str, Path],
    advance: Advance,
) -> dict[str, Path]:
    """Train one network for all targets; each target's file has the layers with its own outputs."""
    from tasks.core.networks import classifier
    from tasks.core.search import Search
    from tasks.core.truth import KnownAnswers

    way = network.weigh, network.factors, network.class_weight
    known = KnownAnswers(answers, source.weights, part.groups, *way)
    # of a batch that tells nothing nothing is learnt
    tells = answers.known.any(axis=1) & (source.weights > 0)
    training, tested = np.flatnonzero(part.training & tells), np.flatnonzero(part.test)
    first = places[answers.targets[0]]
    checkpoints = source.artifacts.checkpoints / f"{first.name}-{key}"
    found = Search(
        network,
        maker(source, network, sum(answers.sizes)),
        source.looks,
        known,
        training,
        tested,
        part.seed,
        checkpoints,
        counted(samples_of(network, answers, part), advance),
    ).run()
    last, _ = classifier(source.network)
    digests, files = source.table.digest.to_numpy(), {}
    for target, (name, block) in enumerate(zip(answers.targets, answers.blocks, strict=True)):
        asked = answers.known[:, target]
        facts = told_of(network, found) | found.judged.facts[target]
        story = story_of(source, part) | facts | asked_of(answers, target, part)
        file = HeadFile(
            predictor=found.predictor.only(last, block, found.judged.warmth[target]),
            log_proba=found.said[asked[tested]][:, block],
            inner=None if found.inner is None else found.inner[asked[training]][:, block],
            story=story | {"temperature": found.judged.warmth[target]},
            test_rows=digests[tested[asked[tested]]].tolist(),
            train_rows=digests[training[asked[training]]].tolist(),
        )
        files[name] = save_heads(places[name], {key: file})
    shutil.rmtree(checkpoints, ignore_errors=True)  # after the results are kept
    return files


def asked_of(answers: Answers, target: int, part: Part) -> dict[str, str | int | Sequence[str]]:
    """Tell what a head was asked, and how many samples of a part answer that."""
    known = answers.known[:, target]
    return {
        "classes": list(answers.classes[target]),
        "target": answers.targets[target],
        "train": int((part.training & known).sum()),
        "test": int((part.test & known).sum()),
    }
