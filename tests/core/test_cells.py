"""Cells: heads and layers are trained once, kept on the shelf of their rows, and trained again where they are lost."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import layered
import numpy as np
import pandas as pd
import pytest
import torch
from layered import CUTS, Given, activations, checkpoint, painted, part_of, source_of
from torch import nn

import tasks.core.finetune
from tasks.core.artifacts import Artifacts
from tasks.core.backbones import Backbone
from tasks.core.cells import Filled, Source, fill, work
from tasks.core.errors import RequestError
from tasks.core.finetune import Training
from tasks.core.heads import Grid, HeadFile, cost_of, head_key, load_heads, seconds_of
from tasks.core.hyper import Centroid, Hyper, Network, Ridge, Softmax, budget, spelled
from tasks.core.layers import part as layers_behind
from tasks.core.networks import load_network
from tasks.core.probe import start_at_optimum
from tasks.core.search import Search
from tasks.core.selection import Rows, said_of, train_heads
from tasks.core.trials import Part
from tasks.core.truth import Known

on_the_processor = layered.on_the_processor

NAME = "test_resnet"
CUT = CUTS[NAME]
VIEWS = ("centre", "hflip")
LAYERS = Network(CUT, "pretrained", (1e-3, 1e-2), (1, 2), batch=8, folds=2, head_first=True)
HEADS = (Softmax(1.0), Softmax(0.1), Ridge(1.0), Centroid())


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cells")


@pytest.fixture(scope="module")
def backbone(folder) -> Backbone:
    return checkpoint(folder, NAME)


@pytest.fixture(scope="module")
def table(folder) -> pd.DataFrame:
    return painted(folder / "pictures", 32)


@pytest.fixture
def heads_of(backbone, table, tmp_path) -> Source:
    return source_of(backbone, table, Artifacts(tmp_path), f"{CUT}:mean", VIEWS)


@pytest.fixture
def layers_of(backbone, table, tmp_path) -> Source:
    return source_of(backbone, table, Artifacts(tmp_path), f"{CUT}:none", VIEWS)


@pytest.fixture
def steps(monkeypatch) -> list[int]:
    """The samples of each step that was taken."""
    taken: list[int] = []
    take = Training._take

    def count(training: Training, step: tasks.core.finetune.Step, *given: object) -> None:
        taken.append(len(step.rows))
        take(training, step, *given)

    monkeypatch.setattr(Training, "_take", count)
    return taken


def grids(source: Source, *hypers: Hyper) -> list[Grid]:
    return [Grid("some", source.inputs, hypers)]


def read(filled: Filled) -> list[HeadFile]:
    """The heads, in order."""
    return [load_heads(path)[key] for key, path in filled.files.items()]


def fresh(source: Source) -> Source:
    """What another process would see."""
    return Source(source.inputs, source.backbone, source.known, source.table, source.artifacts)


class Killed(BaseException):
    pass


def killed_after(samples: int) -> Callable[[int], None]:
    def advance(done: int) -> None:
        if done >= samples:
            raise Killed

    return advance


# Heads


def test_heads_are_those_that_are_trained_on_the_parts_own_rows(heads_of, backbone, table):
    part = part_of(table, seed=3)
    files = table.path.tolist()
    views = [activations(backbone, files, f"{CUT}:mean", view) for view in VIEWS]
    labels = np.searchsorted(np.unique(table.label), table.label)
    some = part.training
    rows = Rows(
        np.concatenate([view[some] for view in views]),
        labels[some],
        table.weight.to_numpy()[some],
        part.groups[some],
        2,
    )
    trained = train_heads(rows, list(HEADS), classes=2, seed=3)
    told = said_of(
        [head.predictor for head in trained], np.concatenate([view[part.test] for view in views]), 2
    )

    found = read(fill(heads_of, grids(heads_of, *HEADS), part))
    assert len(found) == len(HEADS)
    for hyper, head, expected, log_proba in zip(HEADS, found, trained, told, strict=True):
        np.testing.assert_allclose(head.log_proba, log_proba, atol=1e-5)
        np.testing.assert_allclose(head.inner, expected.inner, atol=1e-5)
        assert head.test_rows == table.digest[part.test].tolist()
        assert head.train_rows == table.digest[some].tolist()
        assert head.story["hyper"] == spelled(hyper)
        assert head.story["classes"] == ["g", "r"]
        assert (head.story["views"], head.story["train"], head.story["test"]) == (2, 24, 8)
        assert head.story["sets"] == heads_of.sets[:1]
        assert head.story["inner_brier"] == pytest.approx(expected.facts["inner_brier"], abs=1e-5)


def test_heads_of_one_go_lie_in_one_file_and_only_what_lacks_is_trained(heads_of, table):
    part = part_of(table)
    first = fill(heads_of, grids(heads_of, *HEADS[:2]), part)
    assert first.trained == [head_key(hyper) for hyper in HEADS[:2]]
    assert len(set(first.files.values())) == 1
    again = fill(fresh(heads_of), grids(heads_of, *HEADS[:2]), part)
    assert again == Filled(first.files, [])
    more = fill(fresh(heads_of), grids(heads_of, *HEADS), part)
    assert more.trained == [head_key(hyper) for hyper in HEADS[2:]]
    assert list(more.files) == [head_key(hyper) for hyper in HEADS]
    assert len(set(more.files.values())) == 2
    shelf = heads_of.place(part)
    assert {path.parent for path in more.files.values()} == {shelf}


def test_what_heads_cost_is_their_share_of_what_was_trained_in_one_go(heads_of, table):
    filled = fill(heads_of, grids(heads_of, *HEADS[:2]), part_of(table))
    one, other = filled.files
    cost_of(filled.files[one]).write_text("3.0")
    assert seconds_of(filled.files) == 3.0
    assert seconds_of({one: filled.files[one]}) == 1.5
    more = fill(heads_of, grids(heads_of, *HEADS), part_of(table))
    cost_of(more.files[head_key(HEADS[2])]).write_text("0.5")
    assert seconds_of({key: more.files[key] for key in (one, head_key(HEADS[2]))}) == pytest.approx(
        1.5 + 0.5 / len(more.trained)
    )
    cost_of(filled.files[one]).unlink()
    assert seconds_of(more.files) is None
    assert seconds_of({other: filled.files[other]}) is None


@pytest.mark.parametrize("spoil", ["cut", "turned", "gone"])
def test_a_file_of_heads_that_is_lost_or_damaged_is_made_again_to_the_bit(heads_of, table, spoil):
    part = part_of(table)
    first = fill(heads_of, grids(heads_of, *HEADS), part)
    [path] = set(first.files.values())
    data = path.read_bytes()
    if spoil == "gone":
        path.unlink()
    else:
        path.write_bytes(data[:-9] if spoil == "cut" else data[:-9] + b"?" + data[-8:])
    again = fill(fresh(heads_of), grids(heads_of, *HEADS), part)
    assert again == first
    assert path.read_bytes() == data


def test_how_much_is_done_rises_to_what_there_is_to_do(heads_of, table):
    part, told = part_of(table), []
    wanted = grids(heads_of, *HEADS)
    assert work(heads_of, wanted, part) == 4
    fill(heads_of, grids(heads_of, HEADS[1]), part)
    fill(fresh(heads_of), wanted, part, told.append)
    assert told == sorted(told)
    assert told[-1] == 4
    assert work(heads_of, [*wanted, *wanted], part) == 4


def test_a_part_without_weight_is_refused(heads_of, table):
    part = part_of(table)
    weightless = table.assign(weight=np.where(part.test, 1.0, 0.0))
    source = Source(heads_of.inputs, heads_of.backbone, heads_of.known, weightless, heads_of.artifacts)
    with pytest.raises(
        RequestError, match=r"^split 'every so many', seed 0: no training sample has a weight"
    ):
        fill(source, grids(source, Softmax(1.0)), part)


# Layers


def test_layers_are_searched_kept_and_found_again(layers_of, table, steps):
    part, told = part_of(table), []
    filled = fill(layers_of, grids(layers_of, LAYERS), part, told.append)
    [head] = read(filled)
    assert filled.trained == [head_key(LAYERS)]
    assert head.predictor.tensors
    assert head.test_rows == table.digest[part.test].tolist()
    assert head.train_rows == table.digest[part.training].tolist()
    assert head.log_proba.shape == (8, 2)
    assert head.inner.shape == (24, 2)
    assert {"tried", "learning_rate", "epochs", "trainings", "epochs_in_all", "seconds", "stopped"} <= set(
        head.story
    )
    assert told == sorted(told)
    assert told[-1] == sum(steps) <= work(layers_of, grids(layers_of, LAYERS), part) == budget(LAYERS, 24)
    assert not list(layers_of.artifacts.checkpoints.rglob("*.checkpoint"))

    steps.clear()
    source = fresh(layers_of)
    assert fill(source, grids(source, LAYERS), part) == Filled(filled.files, [])
    assert not steps
    assert "network" not in vars(source)  # it was not even loaded


@pytest.mark.parametrize("seed", [0, 3])
def test_layers_are_those_of_a_search_on_the_parts_own_rows_and_seed(layers_of, backbone, table, seed):
    part, network = part_of(table, seed=seed), load_network(backbone)
    files = table.path.tolist()
    looks = Given(
        torch.from_numpy(np.stack([activations(backbone, files, f"{CUT}:none", view) for view in VIEWS]))
    )
    labels, weights = np.searchsorted(np.unique(table.label), table.label), table.weight.to_numpy()

    def make(seed: int, learnt: np.ndarray) -> nn.Module:
        layers = layers_behind(network, CUT, classes=2, blank=True)
        start_at_optimum(layers, looks, labels, weights, learnt, classes=2)
        return layers

    known = Known(labels, weights, part.groups, 2)
    rows, asked = np.flatnonzero(part.training), np.flatnonzero(part.test)
    expected = Search(LAYERS, make, looks, known, rows, asked, seed).run()
    [head] = read(fill(layers_of, grids(layers_of, LAYERS), part))
    np.testing.assert_allclose(head.log_proba, expected.said, atol=1e-4)
    np.testing.assert_allclose(head.inner, expected.inner, atol=1e-4)
    briers = [[each.brier for each in expected.tried], [each["brier"] for each in head.story["tried"]]]
    np.testing.assert_allclose(*briers, atol=1e-5)
    assert head.story["hyper"][1]["learning_rate"] == expected.facts["learning_rate"]
    assert head.story["hyper"][1]["epochs"] == expected.facts["epochs"]


def test_layers_that_are_lost_are_trained_again_and_are_the_same(layers_of, table):
    part = part_of(table)
    first = fill(layers_of, grids(layers_of, LAYERS), part)
    [before], [path] = read(first), first.files.values()
    path.write_bytes(path.read_bytes()[:-5])
    again = fill(fresh(layers_of), grids(layers_of, LAYERS), part)
    assert again.trained == first.trained
    assert not path.exists()  # the time that it took is told, too, so the name is another
    [after] = read(again)
    np.testing.assert_array_equal(after.log_proba, before.log_proba)
    np.testing.assert_array_equal(after.inner, before.inner)
    for name, tensor in before.predictor.tensors.items():
        np.testing.assert_array_equal(after.predictor.tensors[name], tensor)


def test_a_search_that_is_killed_goes_on_from_its_checkpoints_which_are_removed_at_the_end(
    layers_of, table, steps, monkeypatch
):
    part = part_of(table)
    monkeypatch.setattr(tasks.core.finetune, "EVERY", -1.0)
    whole = budget(LAYERS, 24)
    with pytest.raises(Killed):
        fill(layers_of, grids(layers_of, LAYERS), part, killed_after(whole // 2))
    assert list(layers_of.artifacts.checkpoints.rglob("*.checkpoint"))
    assert not layers_of.found(part)
    done = sum(steps)
    steps.clear()
    [head] = read(fill(fresh(layers_of), grids(layers_of, LAYERS), part))
    assert sum(steps) <= whole - done + LAYERS.batch
    assert not list(layers_of.artifacts.checkpoints.iterdir())

    source = replace(layers_of, artifacts=Artifacts(layers_of.artifacts.root / "other"))
    source.artifacts.root.mkdir()
    source.artifacts.features.symlink_to(layers_of.artifacts.features)
    [at_once] = read(fill(source, grids(source, LAYERS), part))
    np.testing.assert_array_equal(head.log_proba, at_once.log_proba)
    np.testing.assert_array_equal(head.inner, at_once.inner)


def test_heads_and_layers_of_the_same_inputs_share_a_shelf(layers_of, table):
    part = part_of(table)
    quick = replace(LAYERS, learning_rates=(1e-3,), epochs=(1,))
    filled = fill(layers_of, grids(layers_of, Centroid(), quick), part)
    assert list(filled.files) == [head_key(Centroid()), head_key(quick)]
    assert len(set(filled.files.values())) == 2
    assert {path.parent for path in filled.files.values()} == {layers_of.place(part)}


@pytest.mark.parametrize("start", ["pretrained", "random"])
def test_layers_of_all_depths_are_trained_on_pictures(backbone, table, tmp_path, start):
    hyper = Network(
        "", start, (1e-3,), (1,), batch=8, folds=2, head_first=start == "pretrained", batch_norm="live"
    )
    source = source_of(backbone, table, Artifacts(tmp_path), None, ("centre", "crop"))
    assert source.sets == [backbone.fingerprint(source.artifacts.seen("weights"))]
    [head] = read(fill(source, grids(source, hyper), part_of(table)))
    assert np.isfinite(head.log_proba).all()
    assert ("network" in vars(source)) == (start == "pretrained")


# Shares


def share_of(table: pd.DataFrame, part: Part, step: int) -> Part:
    """Learn from each so-manieth of the training part alone."""
    taken = np.zeros(len(table), dtype=bool)
    taken[np.flatnonzero(part.training)[::step]] = True
    return replace(part, share=taken)


def test_a_share_lies_on_another_shelf_and_its_layers_are_not_kept(layers_of, table):
    whole = part_of(table)
    share = share_of(table, whole, 2)
    quick = replace(LAYERS, learning_rates=(1e-3,), epochs=(1,))
    files = [fill(layers_of, grids(layers_of, quick, Centroid()), part).files for part in (whole, share)]
    shelves = [{path.parent for path in some.values()} for some in files]
    assert [len(some) for some in shelves] == [1, 1]
    assert shelves[0] != shelves[1]
    (layers, head), (fewer, other) = (read(Filled(some, [])) for some in files)
    assert layers.predictor.tensors
    assert not fewer.predictor.tensors
    assert np.isfinite(fewer.log_proba).all()
    assert fewer.predictor.temperature == fewer.story["temperature"]
    assert (layers.story["train"], fewer.story["train"]) == (24, 12)
    assert fewer.train_rows == table.digest[share.training].tolist()
    assert fewer.test_rows == layers.test_rows
    assert head.predictor.arrays().keys() == other.predictor.arrays().keys()
    assert fill(fresh(layers_of), grids(layers_of, quick, Centroid()), share) == Filled(files[1], [])


def test_a_share_that_is_all_there_is_keeps_its_layers_since_it_is_the_whole_part(layers_of, table):
    whole = part_of(table)
    everything = share_of(table, whole, 1)
    quick = replace(LAYERS, learning_rates=(1e-3,), epochs=(1,))
    filled = fill(layers_of, grids(layers_of, quick), everything)
    [head] = read(filled)
    assert head.predictor.tensors
    assert fill(fresh(layers_of), grids(layers_of, quick), whole) == Filled(filled.files, [])


def test_what_is_not_learnt_from_does_not_matter_to_a_share(layers_of, table):
    """Neither its labels nor that it is there at all."""
    share = share_of(table, part_of(table), 2)
    quick = replace(LAYERS, learning_rates=(1e-3,), epochs=(1,))
    unused = ~(share.training | share.test)
    assert unused.any()
    relabelled = table.assign(label=np.where(unused, "r", table.label))
    source = Source(layers_of.inputs, layers_of.backbone, layers_of.known, relabelled, layers_of.artifacts)
    assert source.place(share) == layers_of.place(share)
    [one] = read(fill(layers_of, grids(layers_of, quick), share))
    other = Source(
        layers_of.inputs,
        layers_of.backbone,
        layers_of.known,
        relabelled,
        Artifacts(layers_of.artifacts.root / "other"),
    )
    other.artifacts.root.mkdir()
    other.artifacts.features.symlink_to(layers_of.artifacts.features)
    [two] = read(fill(other, grids(other, quick), share))
    np.testing.assert_array_equal(one.log_proba, two.log_proba)
    np.testing.assert_array_equal(one.inner, two.inner)


# What it costs where nothing is to be done


def test_naming_and_finding_what_is_there_needs_no_torch():
    code = "import sys, tasks.core.cells; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
