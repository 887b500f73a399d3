"""The plan says exactly what a run would do, and changes nothing."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tasks.core.artifacts import Artifacts
from tasks.core.digest import digest_bytes
from tasks.core.errors import RequestError
from tasks.core.heads import Grid, HeadFile, Inputs, head_key, save_heads
from tasks.core.hyper import Network, Ridge, Softmax
from tasks.core.manifest import list_samples, locate
from tasks.core.plan import Plan, SetPlan, Survey, TrialPlan, Wanted, Writes, decide, survey
from tasks.core.predictors import Linear
from tasks.core.samples import Columns, Source, examine, table_identity
from tasks.core.splits import SplitSpec
from tasks.core.store import write_shard
from tasks.core.taps import Tap, parse_tap
from tasks.core.trials import labelled, list_shelves, parts_of, shelf_of, shelves_identity
from tasks.core.verdict_plan import DepthPlan, VerdictPlan

SPLITS = (SplitSpec("random", seeds=(0, 1)), SplitSpec("other", test=0.4, seeds=(5,)))
TAPS = ("early:mean", "last:mean")
BYTES = 10**6
WIDTH = 8


class Study:
    """A study without a network: its files are real, its rows and heads are zeros."""

    def __init__(self, folder: Path, artifacts: Path) -> None:
        self.source = Source(folder, folder, Columns("class"), most_bad=0.2)
        self.here = Artifacts(artifacts)
        self.trials = [
            Grid("one tap", Inputs("net", TAPS[:1]), (Softmax(1.0),)),
            Grid("two taps", Inputs("net", TAPS), (Softmax(1.0),)),
        ]

    def wanted(self, taps=TAPS):
        return [
            Wanted("net", parse_tap(tap), "centre", self.here.features / digest_bytes(tap.encode()))
            for tap in taps
        ]

    def sets(self, trial):
        return [each.folder.name for each in self.wanted(trial.inputs.taps)]

    def plan(self, taps=TAPS) -> Plan:
        trials = [(trial, self.sets(trial)) for trial in self.trials]
        return decide(survey(self.source, self.here), self.wanted(taps), trials, SPLITS, self.here)

    def read(self):
        frame = list_samples(self.source.place, [])
        examine(*locate(frame["path"].tolist(), self.source.root), self.here)

    def extract(self, taps=TAPS, shards=2):
        digests = self.plan().survey.table.digest.tolist()
        for each in self.wanted(taps):
            for names in np.array_split(np.array(digests), shards):
                write_shard(each.folder, names.tolist(), np.zeros((len(names), WIDTH), np.float16), {})

    def train(self, keep_lists=True):
        table = self.plan().survey.table
        for trial in self.trials:
            for shelf, part in self.shelves(trial, table):
                rows = [table.digest[mask].tolist() for mask in (part.test, ~part.test)]
                head = HeadFile(
                    predictor=Linear(np.zeros((2, WIDTH)), np.zeros(2)),
                    log_proba=np.zeros((len(rows[0]), 2)),
                    test_rows=rows[0],
                    inner=None,
                    train_rows=rows[1],
                    story={},
                )
                save_heads(shelf, {head_key(hyper): head for hyper in trial.hypers})
            if keep_lists:
                identity = shelves_identity(trial.inputs, self.sets(trial), table_identity(table), SPLITS)
                shelves = [shelf for shelf, _ in self.shelves(trial, table)]
                list_shelves(self.here.heads, identity, shelves)

    def shelves(self, trial, table):
        return [
            (shelf_of(self.here.heads, trial.inputs, self.sets(trial), labelled(table), part), part)
            for part in parts_of(labelled(table), SPLITS)
        ]


@pytest.fixture
def study(pictures, tmp_path, monkeypatch):
    """A study of 24 pictures of which nothing is known."""
    monkeypatch.setattr(
        "tasks.core.digest.RACY_NS", -(10**15)
    )  # files are remembered however lately they changed
    return Study(pictures, tmp_path / "artifacts")


@pytest.fixture
def done(study):
    """The same, all done."""
    study.read()
    study.extract()
    study.train()
    return study


def figures(plan):
    """What is to do: files to read, rows to extract for each tap, heads to train for each experiment."""
    return (
        plan.survey.unread,
        [len(each.missing) for each in plan.sets],
        [each.needed - each.there for each in plan.trials],
    )


def test_of_a_new_study_everything_is_to_do(study):
    plan = study.plan()
    assert figures(plan) == (24, [0, 0], [3, 3])
    assert plan.to_extract("net") == 24
    assert not plan.is_empty()


def test_of_an_unchanged_study_nothing_is_to_do(done):
    plan = done.plan()
    assert figures(plan) == (0, [0, 0], [0, 0])
    assert (plan.to_extract("net"), plan.is_empty()) == (0, True)
    assert [each.held for each in plan.sets] == [24, 24]
    assert [each.reason for each in plan.sets] == ["", ""]
    assert (plan.survey.rows, plan.survey.unchanged) == (24, 24)


def test_new_and_changed_files_are_to_be_read_and_the_rest_is_at_most(done, painter, pictures):
    painter(pictures / "lying" / "new.png", 1000, 1.57)
    painter(pictures / "lying" / "0.png", 1001, 1.57)
    plan = done.plan()
    assert (plan.survey.unread, plan.survey.unchanged) == (2, 23)
    assert plan.to_extract("net") == 2
    assert [each.needed - each.there for each in plan.trials] == [3, 3]


def test_while_files_are_to_be_read_nothing_is_concluded_from_the_others(done, pictures):
    """One class is known by a single sample now, which could not be split."""
    for path in sorted((pictures / "lying").iterdir())[1:]:
        os.utime(path)
    assert figures(done.plan()) == (11, [0, 0], [3, 3])


def test_samples_without_rows_are_to_be_extracted(done, painter, pictures):
    painter(pictures / "lying" / "new.png", 1000, 1.57)
    done.read()
    plan = done.plan()
    new = digest_bytes((pictures / "lying" / "new.png").read_bytes())
    assert figures(plan) == (0, [1, 1], [3, 3])
    assert [each.missing for each in plan.sets] == [{new}, {new}]
    assert [each.reason for each in plan.sets] == ["new or changed samples"] * 2


def test_a_removed_sample_costs_the_heads_alone(done, pictures):
    (pictures / "lying" / "0.png").unlink()
    assert figures(done.plan()) == (0, [0, 0], [3, 3])


def test_files_renamed_cost_nothing_once_they_are_read(done, pictures):
    (pictures / "lying" / "0.png").rename(pictures / "lying" / "renamed.png")
    done.read()
    assert done.plan().is_empty()


def test_a_new_tap_is_told_from_a_new_backbone(study):
    study.read()
    assert {each.reason for each in study.plan().sets} == {"none of this backbone yet"}
    study.extract(TAPS[:1])
    assert [each.reason for each in study.plan().sets] == ["", "new tap or view"]


def test_a_damaged_shard_is_told_and_its_rows_are_to_be_extracted(done):
    shard = sorted((done.wanted()[1].folder / "shards").iterdir())[0]
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    plan = done.plan()
    assert figures(plan) == (0, [0, 12], [0, 0])
    assert [each.reason for each in plan.sets] == ["", "1 damaged shard"]
    assert shard.read_bytes() == data


def test_other_labels_cost_the_heads_alone(done, pictures):
    (pictures / "lying").rename(pictures / "leaning")
    done.read()
    assert figures(done.plan()) == (0, [0, 0], [3, 3])


@pytest.mark.parametrize("keep_lists", [True, False])
@pytest.mark.parametrize("how", ["lost", "cut short", "a bit flipped"])
def test_heads_lost_or_damaged_are_to_be_trained(study, keep_lists, how):
    study.read()
    study.extract()
    study.train(keep_lists)
    [(shelf, _), *_] = study.shelves(study.trials[1], study.plan().survey.table)
    [victim] = shelf.iterdir()
    data = victim.read_bytes()
    victim.unlink()
    if how != "lost":
        victim.write_bytes(data[:-1] if how == "cut short" else data[:-1] + bytes([data[-1] ^ 1]))
    assert [each.there for each in study.plan().trials] == [3, 2]


@pytest.mark.parametrize("keep_lists", [True, False])
def test_of_an_added_hyper_parameter_only_its_heads_are_to_be_trained(study, keep_lists):
    study.read()
    study.extract()
    study.train(keep_lists)
    study.trials[0] = replace(study.trials[0], hypers=(Softmax(0.1), Softmax(1.0), Ridge(1.0)))
    plan = study.plan()
    assert [(each.needed, each.there) for each in plan.trials] == [(9, 3), (3, 3)]
    assert not plan.is_empty()


def test_grids_of_the_same_inputs_and_heads_share_them(done):
    done.trials.append(replace(done.trials[1], name="another name", hypers=(Ridge(1.0), Softmax(1.0))))
    assert [(each.name, each.needed, each.there) for each in done.plan().trials] == [
        ("one tap", 3, 3),
        ("two taps", 3, 3),
        ("another name", 6, 3),
    ]


def test_the_lists_of_shelves_and_their_names_tell_the_same(done):
    with_lists = done.plan().trials
    lists = list(done.here.heads.glob("*.json"))
    assert len(lists) == 2
    for place in lists:
        place.unlink()
    assert done.plan().trials == with_lists


def test_samples_are_cut_only_where_no_list_of_shelves_was_kept_and_then_once_for_all(done, monkeypatch):
    calls = []
    cut = parts_of

    def counted(table, splits):
        calls.append(1)
        return cut(table, splits)

    monkeypatch.setattr("tasks.core.plan.parts_of", counted)
    done.plan()
    assert calls == []
    for place in done.here.heads.glob("*.json"):
        place.unlink()
    done.plan()
    assert calls == [1]


def test_shelves_are_named_once_for_grids_of_the_same_inputs(done, monkeypatch):
    done.trials = [replace(done.trials[0], name=str(number)) for number in range(5)]
    for place in done.here.heads.glob("*.json"):
        place.unlink()
    named = []
    name = shelf_of

    def counted(*given):
        named.append(name(*given))
        return named[-1]

    monkeypatch.setattr("tasks.core.plan.shelf_of", counted)
    assert [each.there for each in done.plan().trials] == [3] * 5
    assert len(named) == 3


def test_passes_are_counted_once_for_all_taps_of_a_view(study):
    survey_of = Survey(study.plan().survey.table, 0, 0, 0, 0)

    def planned(tap, view, missing):
        return _set(Wanted("net", Tap(tap), view, Path(tap + view)), missing)

    plan = Plan(
        survey_of,
        [
            planned("a", "centre", {"1", "2"}),
            planned("b", "centre", {"2", "3"}),
            planned("a", "hflip", {"1"}),
            _set(Wanted("other", Tap("a"), "centre", Path("o")), {"1", "2", "3", "4"}),
        ],
        [],
    )
    assert (plan.to_extract("net"), plan.to_extract("other")) == (4, 4)


def _set(wanted, missing, row_bytes=None):
    return SetPlan(wanted, 0, frozenset(missing), "", row_bytes)


def test_what_is_written_is_the_rows_that_lack_and_layers_and_what_nobody_knows_is_named(study):
    found = Survey(study.plan().survey.table, 0, 0, unread=1, quarantined=0)
    sets = [
        _set(Wanted("net", Tap("a"), "centre", Path("a")), {"1", "2"}, 10),
        _set(Wanted("odd", Tap("a"), "centre", Path("b")), {"1"}),
    ]
    trials = [
        TrialPlan("heads", 5, 0),
        TrialPlan("layers", 5, 0, is_network=True, bytes=BYTES),
        TrialPlan("strange", 5, 0, is_network=True, bytes=None),
    ]
    verdict = VerdictPlan([DepthPlan("all", 5, 0, 0, 1, bytes=BYTES)], [], 0, 60.0)
    writes = Plan(found, sets, trials, verdict).writes()
    assert writes == Writes(30, 2 * BYTES, ["odd", "strange"])
    assert writes.total == 2 * BYTES + 30


def test_where_every_row_is_there_nothing_is_written_though_no_size_is_known(study):
    found = Survey(study.plan().survey.table, 0, 0, 0, 0)
    plan = Plan(found, [_set(Wanted("net", Tap("a"), "centre", Path("a")), set())], [])
    assert plan.writes() == Writes(0, 0, [])


def test_layers_are_one_search_a_split(study):
    layers = Network("early", "pretrained", (1e-3, 1e-4), (5, 10))
    study.trials.append(Grid("layers", Inputs("net", TAPS[:1]), (layers,)))
    heads, _, planned = study.plan().trials
    assert (planned.needed, planned.lacking, planned.is_network) == (3, 3, True)
    assert not heads.is_network


def test_a_verdict_that_lacks_a_cell_is_something_to_do(done):
    plan = done.plan()
    assert plan.is_empty()
    lacking, there = (DepthPlan("d", 4, there, 0, 0) for there in (3, 4))
    assert replace(plan, verdict=VerdictPlan([there], [], 0, 1.0)).is_empty()
    assert not replace(plan, verdict=VerdictPlan([lacking], [], 0, 1.0)).is_empty()


def test_the_size_of_a_row_is_known_from_a_stored_shard(study):
    study.read()
    study.extract(TAPS[:1])
    [stored, new] = study.plan().sets
    assert (stored.row_bytes, new.row_bytes) == (2 * WIDTH, None)


def test_what_a_run_would_refuse_is_refused(study, pictures):
    for path in sorted((pictures / "lying").iterdir())[1:]:
        path.write_text("no picture")
    study.plan()  # what is in the files is not known yet
    study.read()
    with pytest.raises(RequestError, match="cannot be used"):
        study.plan()


def test_nothing_is_written_and_no_picture_is_opened(done, painter, pictures, monkeypatch):
    painter(pictures / "lying" / "new.png", 1000, 1.57)
    damaged = next((done.wanted()[0].folder / "shards").iterdir())
    damaged.write_bytes(b"")

    def tree():
        files = [
            path for path in done.here.root.rglob("*") if path.is_file() and "seen.sqlite" not in path.name
        ]
        return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files}

    before, read_bytes = tree(), Path.read_bytes

    def guarded(self):
        assert not self.is_relative_to(pictures)
        return read_bytes(self)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", guarded)
        done.plan()
    assert tree() == before


def test_a_study_without_artifacts_leaves_none_behind(study):
    study.plan()
    assert {path.name for path in study.here.root.rglob("*")} <= {"seen.sqlite"}
