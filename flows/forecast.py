"""What a run of a study would find and do: its samples read, its passes and heads counted, its time estimated."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pandas as pd

from flows.plan import trained_on, wanted_sets
from flows.study import Study
from tasks.core.artifacts import Artifacts
from tasks.core.backbones import Backbone
from tasks.core.checks import Need, about
from tasks.core.choice import Memory
from tasks.core.heads import Inputs
from tasks.core.manifest import list_samples, locate
from tasks.core.passes import Passes
from tasks.core.plan import Plan, Survey, decide
from tasks.core.recipes import AUTO
from tasks.core.samples import Examined, assemble, examine
from tasks.core.store import holdings
from tasks.core.stored import Stored
from tasks.core.taps import Tap, parse_tap, spell
from tasks.core.trials import labelled, parts_of, together

TRIAL_PICTURES = 16
"""So many pictures are decoded, and run through the network, to see how long that takes."""

TRIAL_SAMPLES = 1024
"""So many samples at most are trained on to see how long that takes."""


@dataclass(frozen=True)
class Wave:
    """Passes of one view's samples through a network.

    Attributes:
        backbone: its name in the study.
        view: of the samples.
        taps: those that lack rows.
        samples: digests of those that any of them lacks.
        bytes: that will be written; None where nobody knows.
    """

    backbone: str
    view: str
    taps: tuple[Tap, ...]
    samples: tuple[str, ...]
    bytes: int | None


@dataclass
class Forecast:
    """A study, and what becomes of it; each thing is looked at once, when it is first asked for.

    Attributes:
        study: what would run.
        here: where its outputs lie.
        examined: what reading each listed file told; nothing before `read`.
    """

    study: Study
    here: Artifacts
    examined: list[Examined] = field(default_factory=list)

    def read(self, progress: Callable[[int], None] = lambda done: None) -> None:
        """Read the listed files, but for those that are known; what is found is remembered, also for the run.

        Args:
            progress: is told how many of the files to read are done.
        """
        self.examined, _ = examine(*self._places, self.here, progress)

    @cached_property
    def listed(self) -> pd.DataFrame:
        """The samples as the manifest or folder lists them."""
        source = self.study.source()
        return list_samples(source.place, source.columns.names())

    @cached_property
    def table(self) -> pd.DataFrame:
        """The usable samples."""
        return self._sorted[0]

    @cached_property
    def quarantine(self) -> pd.DataFrame:
        """Those that are set aside."""
        return self._sorted[1]

    @cached_property
    def known(self) -> pd.DataFrame:
        """The samples that have a label."""
        return labelled(self.table)

    @cached_property
    def _places(self) -> tuple[list[str], list[str]]:
        return locate(self.listed["path"].tolist(), self.study.source().root)

    @cached_property
    def _sorted(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        return assemble(self.listed, self._places[0], self.examined, self.study.source().columns)

    # What a run would do

    @cached_property
    def backbones(self) -> dict[str, Backbone]:
        """Those that an experiment uses, by their names in the study."""
        return {name: self.study.backbone(name) for name in self.study.used_backbones()}

    @cached_property
    def far(self) -> list[str]:
        """Backbones whose weights would have to be downloaded."""
        return [name for name, backbone in self.backbones.items() if backbone.lacks_weights()]

    @cached_property
    def waves(self) -> list[Wave]:
        """The passes that a run would make, at most: some may start from kept activations."""
        waves = []
        for name in self.backbones:
            for view, taps in self.study.recipe(name).views.items():
                lacking = {tap: some for tap in taps if (some := self._lacking(name, tap, view))}
                sizes = [self.row_bytes(name, tap, view) for tap in lacking]
                total = sum(
                    size * len(some) for size, some in zip(sizes, lacking.values(), strict=True) if size
                )
                samples = sorted(set().union(*lacking.values()))
                waves.append(
                    Wave(name, view, tuple(lacking), tuple(samples), None if None in sizes else total)
                )
        return [wave for wave in waves if wave.samples]

    @cached_property
    def untrained(self) -> dict[str, int]:
        """Experiment -> how many of its heads are not there."""
        if self._plan is None:
            seeds = sum(len(spec.seeds) for spec in self.study.split_specs())
            return {grid.name: len(grid.hypers) * seeds for grid in self.study.grids()}
        return {trial.name: trial.needed - trial.there for trial in self._plan.trials}

    @cached_property
    def needs(self) -> list[Need]:
        """What training takes of memory, for each combination of features whose size is known."""
        needs = []
        for some in together(self.study.grids()):
            columns, rows = self.columns(some[0].inputs), len(some[0].inputs.views) * len(self.known)
            kinds = frozenset(hyper.kind for grid in some for hyper in grid.hypers)
            if columns is not None:
                needs.append(Need(some[0].name, kinds, rows, columns))
        return needs

    def shapes(self, backbone: str) -> dict[Tap, tuple[int, ...]] | None:
        """Tap -> the shape of its row; None if the network cannot tell without running.

        Raises:
            RequestError: if the network has no such tap.
        """
        if backbone not in self._shapes:
            from tasks.core.estimates import row_shapes  # torch

            taps = sorted(set().union(*self.study.recipe(backbone).views.values()))
            found = row_shapes(self.backbones[backbone], taps)
            self._shapes[backbone] = None if found is None else dict(zip(taps, found, strict=True))
        return self._shapes[backbone]

    @cached_property
    def _shapes(self) -> dict[str, dict[Tap, tuple[int, ...]] | None]:
        return {}

    def row_bytes(self, backbone: str, tap: Tap, view: str) -> int | None:
        """Bytes of a row, as stored or else by the network's shapes."""
        stored = self._set_bytes.get((backbone, spell(tap, view)))
        if stored is not None:
            return stored
        shapes = self.shapes(backbone)
        size = np.dtype(self.study.recipe(backbone).dtype).itemsize
        return None if shapes is None else math.prod(shapes[tap]) * size

    def columns(self, inputs: Inputs) -> int | None:
        """How many numbers stand side by side in a row that heads are trained on."""
        size = np.dtype(self.study.recipe(inputs.backbone).dtype).itemsize
        rows = [self.row_bytes(inputs.backbone, parse_tap(tap), inputs.views[0]) for tap in inputs.taps]
        return None if None in rows else sum(row // size for row in rows if row is not None)

    @cached_property
    def _plan(self) -> Plan | None:
        """What is there and what is not; None where that hangs on weights that are not on this machine."""
        if self.far:
            return None
        wanted = wanted_sets(self.study, self.here)
        names = {(each.backbone, each.tap): each.folder.name for each in wanted}
        trials = [
            (grid, trained_on(self.study, grid.inputs, names, self.here)) for grid in self.study.grids()
        ]
        rows = len(self.listed)
        found = Survey(self.table, rows, unchanged=rows, unread=0, quarantined=len(self.quarantine))
        return decide(found, wanted, trials, self.study.split_specs(), self.here)

    @cached_property
    def _set_bytes(self) -> dict[tuple[str, str], int | None]:
        sets = self._plan.sets if self._plan is not None else []
        return {(each.wanted.backbone, each.wanted.tap): each.row_bytes for each in sets}

    def _lacking(self, backbone: str, tap: Tap, view: str) -> frozenset[str]:
        if self._plan is None:
            return frozenset(self.table.digest)
        place = (backbone, spell(tap, view))
        [found] = [each for each in self._plan.sets if (each.wanted.backbone, each.wanted.tap) == place]
        return found.missing

    # How long it takes

    def time(self) -> str:
        """Estimate the time that a run takes, each part with what that rests on."""
        parts = [self._passing(wave) for wave in self.waves]
        if any(self.untrained.values()):
            parts.append(self._training())
        known = [seconds for seconds, _ in parts if seconds is not None]
        whole = (
            f"{about(sum(known))}{'' if len(known) == len(parts) else ' for what is known'}: "
            if known
            else ""
        )
        return f"{whole}{'; '.join(told for _, told in parts)}; scores and the report come on top"

    def _passing(self, wave: Wave) -> tuple[float | None, str]:
        """Seconds that a wave's passes take, and in words what that rests on."""
        from tasks.core.estimates import decode_some, find_pace

        told, backbone = f"{len(wave.samples):,} passes of {wave.backbone}", self.backbones[wave.backbone]
        if wave.backbone in self.far:
            return None, f"{told} not estimated, its weights are not here"
        recipe, files = (
            self.study.recipe(wave.backbone),
            dict(zip(self.table.digest, self.table.path, strict=True)),
        )
        decoding, pictures = decode_some(
            backbone, wave.view, {digest: files[digest] for digest in wave.samples[:TRIAL_PICTURES]}
        )
        kept = self.here.engines / Passes(backbone, recipe, self.here, {}).kind(list(wave.taps))
        known = Memory(kept / "measured.json").recall() if recipe.engine == AUTO else {}
        pace = find_pace(backbone, wave.taps, pictures, known, len(wave.samples))
        seconds = pace.seconds(len(wave.samples), decoding)
        return seconds, f"{told} {about(seconds)} ({pace.basis})"

    def _training(self) -> tuple[float | None, str]:
        """Seconds that the heads take, and in words what that rests on."""
        from tasks.core.estimates import extrapolated, made_up, mixed, time_training

        groups = [(some, self.columns(some[0].inputs)) for some in together(self.study.grids())]
        sized = [(some, columns) for some, columns in groups if columns is not None]
        heads = sum(self.untrained.values())
        if len(sized) < len(groups):
            return None, f"{heads:,} heads not estimated, the size of their features is not known"
        widest, columns = max(sized, key=lambda pair: pair[1] * sum(len(grid.hypers) for grid in pair[0]))
        hypers = list(dict.fromkeys(hyper for grid in widest for hyper in grid.hypers))
        names = sorted(self.known.label.unique())
        labels = self.known.label.map({name: number for number, name in enumerate(names)}).to_numpy()
        some = mixed(labels)[:TRIAL_SAMPLES]
        real = self._some_features(widest[0].inputs, self.known.digest.to_numpy()[some].tolist())
        features = made_up(labels[some], columns) if real is None else real
        took = time_training(features, labels[some], hypers, classes=len(names))
        if not took:
            return None, f"{heads:,} heads not estimated, there are too few samples to try"
        sizes = [int((~part.test).sum()) for part in parts_of(self.known, self.study.split_specs())]
        rows = len(widest[0].inputs.views) * sum(sizes) / len(sizes)
        # a head costs as others do, by the width of its features
        lacking = sum(wide * self.untrained[grid.name] for grids, wide in sized for grid in grids) / columns
        seconds = extrapolated(took, rows) * lacking / len(hypers)
        basis = f"roughly, from fits on {took[-1][0]:,} {'made-up rows' if real is None else 'rows'}"
        return seconds, f"{heads:,} heads {about(seconds)} ({basis})"

    def _some_features(self, inputs: Inputs, digests: Sequence[str]) -> np.ndarray | None:
        """The features of some samples in the first view, if all of them are stored."""
        taps = [(inputs.backbone, spell(parse_tap(tap), inputs.views[0])) for tap in inputs.taps]
        sets = self._plan.sets if self._plan is not None else []
        folders = {(each.wanted.backbone, each.wanted.tap): each.wanted.folder for each in sets}
        held = [holdings(folders[tap], self.here.seen("shard")) for tap in taps if tap in folders]
        if len(held) < len(taps) or not all(digest in each.rows for each in held for digest in digests):
            return None
        return Stored((tuple(held),), tuple(digests)).in_memory()
