"""What a study would run, and why: decided by looking at what is there, without doing any of it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

import numpy as np
import pandas as pd

from tasks.core.answer_plan import count_there
from tasks.core.artifacts import Artifacts
from tasks.core.heads import Grid, Inputs
from tasks.core.ladder import Ladder
from tasks.core.manifest import list_samples, locate
from tasks.core.samples import Source, assemble, check_enough, look, table_identity, tell
from tasks.core.splits import SplitSpec
from tasks.core.store import Holdings, holdings
from tasks.core.taps import Tap, spell
from tasks.core.targets import targets_of
from tasks.core.trials import Part, heads_there, labelled, parts_of, shelf_of, shelves_identity
from tasks.core.verdict_plan import VerdictPlan, plan_verdict


@dataclass(frozen=True)
class Survey:
    """What is known of a study's samples before any file is read.

    Attributes:
        table: the usable samples among the files that have not changed.
        rows: how many lines the manifest has.
        unchanged: files of which all is known.
        unread: files that are new or have changed; what is in them is not known.
        quarantined: rows known to be set aside.
    """

    table: pd.DataFrame
    rows: int
    unchanged: int
    unread: int
    quarantined: int


@dataclass(frozen=True)
class Wanted:
    """A feature set that a study needs.

    Attributes:
        backbone: its name in the study.
        tap: with the backbone's own name of the cut.
        view: sets of one view are filled by one pass.
        folder: where the set lies, or will.
    """

    backbone: str
    tap: Tap
    view: str
    folder: Path

    @property
    def name(self) -> str:
        """The tap of the view, as experiments spell it."""
        return spell(self.tap, self.view)


@dataclass(frozen=True)
class SetPlan:
    """What becomes of one feature set.

    Attributes:
        wanted: the set.
        held: rows of the study's samples that are there.
        missing: digests of samples whose rows are not there, among those that are known.
        reason: why rows are missing, or "".
        row_bytes: bytes of a row as stored, or as the network tells; None where nobody knows.
    """

    wanted: Wanted
    held: int
    missing: frozenset[str]
    reason: str
    row_bytes: int | None


@dataclass(frozen=True)
class TrialPlan:
    """What becomes of one experiment.

    Attributes:
        name: its own.
        needed: how many heads, or searches of layers.
        there: how many of them are there.
        is_network: whether layers are trained, not a head alone.
        bytes: that the layers which lack take, and their checkpoints; None where nobody knows. Heads are small,
            and count as nought.
    """

    name: str
    needed: int
    there: int
    is_network: bool = False
    bytes: int | None = 0

    @property
    def lacking(self) -> int:
        """How many are to be trained."""
        return self.needed - self.there


@dataclass(frozen=True)
class Writes:
    """How many bytes a run would write.

    Attributes:
        features: of those, as far as known.
        layers: of trained layers and their checkpoints, as far as known.
        unknown: the backbones and experiments of which nobody knows.
    """

    features: int
    layers: int
    unknown: list[str]

    @property
    def total(self) -> int:
        """All that is known."""
        return self.features + self.layers


@dataclass(frozen=True)
class Plan:
    """What a study would run.

    Attributes:
        survey: of its samples. Where files must be read first, all other figures are the most that may be.
        sets: one for each feature set.
        trials: one for each experiment.
        verdict: None where the study wants none.
    """

    survey: Survey
    sets: list[SetPlan]
    trials: list[TrialPlan]
    verdict: VerdictPlan | None = None

    def rows_to_write(self, each: SetPlan) -> int:
        """Count the rows that one of the sets lacks."""
        return len(each.missing) + self.survey.unread

    def writes(self) -> Writes:
        """Sum up what would be written."""
        features = [
            (each.wanted.backbone, each.row_bytes and each.row_bytes * rows)
            for each in self.sets
            if (rows := self.rows_to_write(each))
        ]
        layers = [(each.name, each.bytes) for each in self.trials]
        layers += [(each.name, each.bytes) for each in (self.verdict.depths if self.verdict else ())]
        unknown = [name for name, size in (*features, *layers) if size is None]
        return Writes(
            sum(size or 0 for _, size in features),
            sum(size or 0 for _, size in layers),
            list(dict.fromkeys(unknown)),
        )

    def to_extract(self, backbone: str) -> int:
        """Count the passes of a sample through a network: each view's sets are filled together."""
        missing: dict[str, set[str]] = {}
        for each in self.sets:
            if each.wanted.backbone == backbone:
                missing.setdefault(each.wanted.view, set()).update(each.missing)
        return sum(len(digests) + self.survey.unread for digests in missing.values())

    def is_empty(self) -> bool:
        """Whether there is nothing to read, to extract or to train."""
        return not (
            self.survey.unread
            or any(each.missing for each in self.sets)
            or any(each.lacking for each in self.trials)
            or any(each.lacking for each in (self.verdict.depths if self.verdict else ()))
        )


def survey(source: Source, artifacts: Artifacts) -> Survey:
    """Look at a study's samples; no file is opened.

    Raises:
        RequestError: if there are too few usable samples. It cannot be told while files are to be read.
    """
    frame = list_samples(source.place, source.columns.names())
    places, problems = locate(frame["path"].tolist(), source.root)
    known, unread = look(places, problems, artifacts)
    is_known = [place not in unread for place in places]
    left = frame if not unread else frame[is_known]
    if unread:
        places = [place for place in places if place not in unread]
        problems = [problem for problem, kept in zip(problems, is_known, strict=True) if kept]
    table, quarantine = assemble(left, places, tell(places, problems, known), source.columns)
    if not unread:
        check_enough(table, quarantine, len(frame), most_bad=source.most_bad)
    unchanged = sum(bool(item.digest) for item in known.values())
    return Survey(table, len(frame), unchanged, len(unread), len(quarantine))


def decide(
    found: Survey,
    wanted: Sequence[Wanted],
    trials: Sequence[tuple[Grid, Sequence[str]]],
    splits: Sequence[SplitSpec],
    artifacts: Artifacts,
    verdict: tuple[Ladder, Sequence[Sequence[str]]] | None = None,
    least: int = 1,
) -> Plan:
    """Say what is there and what a run would add.

    Args:
        found: the study's samples.
        wanted: the feature sets that it needs.
        trials: its experiments, each with the names of its feature sets, in order.
        splits: with their seeds.
        artifacts: where to look.
        verdict: what it measures, and for each depth the names of its feature sets.
        least: of several targets, as `tasks.core.answer_parts.able_targets`.

    Raises:
        RequestError: if the samples cannot be split as asked.
    """
    seen = artifacts.seen("shard")
    held = {each.folder: holdings(each.folder, seen) for each in wanted}
    digests = found.table.digest.tolist()
    sets = [_plan_set(each, held, wanted, digests) for each in wanted]
    if targets_of(found.table):
        return Plan(found, sets, _plan_answers(found, trials, splits, least, artifacts))
    planned = _plan_trials(found, trials, splits, artifacts)
    if verdict is None:
        return Plan(found, sets, planned)
    table = None if found.unread else found.table
    grids = [grid for grid, _ in trials]
    return Plan(found, sets, planned, plan_verdict(table, *verdict, grids, artifacts))


def _plan_set(
    each: Wanted, held: Mapping[Path, Holdings], wanted: Sequence[Wanted], digests: Sequence[str]
) -> SetPlan:
    here = held[each.folder]
    numbers = here.rows.find(digests)
    missing = frozenset(digests[place] for place in np.flatnonzero(numbers == here.rows.total).tolist())
    kin = any(held[other.folder].shards for other in wanted if other.backbone == each.backbone)
    return SetPlan(
        wanted=each,
        held=len(digests) - len(missing),
        missing=missing,
        reason=_reason(here, kin) if missing or not here.shards else "",
        row_bytes=here.shards[0].row_bytes if here.shards else None,
    )


def _reason(here: Holdings, has_kin: bool) -> str:
    """Say why rows are missing; `has_kin` tells that other taps or views of the backbone have rows."""
    if here.damaged:
        return f"{len(here.damaged)} damaged shard{'s' * (len(here.damaged) > 1)}"
    if here.shards:
        return "new or changed samples"
    return "new tap or view" if has_kin else "none of this backbone yet"


def _plan_trials(
    found: Survey,
    trials: Sequence[tuple[Grid, Sequence[str]]],
    splits: Sequence[SplitSpec],
    artifacts: Artifacts,
) -> list[TrialPlan]:
    seeds = sum(len(spec.seeds) for spec in splits)
    needed = [TrialPlan(trial.name, len(trial.hypers) * seeds, 0, trial.is_network) for trial, _ in trials]
    if found.unread:  # another table of samples means other heads
        return needed
    samples, table, seen = table_identity(found.table), labelled(found.table), artifacts.seen("head")
    parts = cache(lambda: list(parts_of(table, splits)))
    shelves = cache(partial(_shelves, artifacts.heads, table, parts))
    plans = []
    for lacking, (trial, sets) in zip(needed, trials, strict=True):
        identity = shelves_identity(trial.inputs, sets, samples, splits)
        named = partial(shelves, trial.inputs, tuple(sets))
        there = heads_there(artifacts.heads, identity, trial, seen, named)
        plans.append(replace(lacking, there=there))
    return plans


def _plan_answers(
    found: Survey,
    trials: Sequence[tuple[Grid, Sequence[str]]],
    splits: Sequence[SplitSpec],
    least: int,
    artifacts: Artifacts,
) -> list[TrialPlan]:
    """The same of several targets: a head for each."""
    seeds = sum(len(spec.seeds) for spec in splits)
    targets, there = len(targets_of(found.table)), [0] * len(trials)
    if not found.unread:
        targets, there = count_there(found.table, trials, splits, least, artifacts)
    return [
        TrialPlan(trial.name, len(trial.hypers) * seeds * targets, count, trial.is_network)
        for (trial, _), count in zip(trials, there, strict=True)
    ]


def _shelves(
    folder: Path,
    table: pd.DataFrame,
    parts: Callable[[], Sequence[Part]],
    inputs: Inputs,
    sets: Sequence[str],
) -> list[Path]:
    return [shelf_of(folder, inputs, sets, table, part) for part in parts()]
