"""What a run of a study would find and do: samples read, passes and trainings counted, time and memory estimated."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property, partial

import numpy as np
import pandas as pd

from flows.plan import plan_of
from flows.sizes import Shapes, shapes_of, with_sizes
from flows.study import Study
from tasks.core.answer_parts import answer_parts
from tasks.core.artifacts import Artifacts
from tasks.core.backbones import Backbone
from tasks.core.cells import Source
from tasks.core.choice import Memory
from tasks.core.heads import Grid, Inputs
from tasks.core.hyper import Mlp, Network, SharedNetwork, budget
from tasks.core.manifest import list_samples, locate
from tasks.core.measuring import HEAD_SECONDS, MARGIN
from tasks.core.passes import Passes
from tasks.core.plan import Plan, SetPlan, Survey
from tasks.core.recipes import AUTO
from tasks.core.samples import Examined, assemble, examine
from tasks.core.store import holdings
from tasks.core.stored import Stored
from tasks.core.taps import Tap, parse_tap, spell
from tasks.core.targets import about as about_target
from tasks.core.targets import answer_column, answered, targets_of
from tasks.core.trials import labelled, parts_of, together
from tasks.core.words import about

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
    """

    backbone: str
    view: str
    taps: tuple[Tap, ...]
    samples: tuple[str, ...]


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
        """The samples that have a label; of several targets those that answer the one that most do."""
        targets = targets_of(self.table)
        if not targets:
            return labelled(self.table)
        known = {name: self.table[answer_column(name)] for name in targets}
        most = max(targets, key=lambda name: (len(set(known[name]) - {""}) > 1, (known[name] != "").sum()))
        return labelled(about_target(self.table, most))

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
    def plan(self) -> Plan:
        """What is there and what is not; what hangs on weights that are not on this machine is not."""
        rows = len(self.listed)
        found = Survey(self.table, rows, unchanged=rows, unread=0, quarantined=len(self.quarantine))
        return with_sizes(self.study, plan_of(self.study, found, self.here), self.shapes)

    @cached_property
    def waves(self) -> list[Wave]:
        """The passes that a run would make, at most: some may start from kept activations."""
        lacking: dict[tuple[str, str], list[SetPlan]] = {}
        for each in self.plan.sets:
            if each.missing:
                lacking.setdefault((each.wanted.backbone, each.wanted.view), []).append(each)
        return [
            Wave(
                name,
                view,
                tuple(each.wanted.tap for each in sets),
                tuple(sorted(set().union(*(each.missing for each in sets)))),
            )
            for (name, view), sets in lacking.items()
        ]

    @cached_property
    def heads(self) -> list[Grid]:
        """The experiments, and the verdict's depths, that train heads on features."""
        return [grid for grid in (*self.study.grids(), *self.study.depths()) if not grid.is_network]

    @cached_property
    def layers(self) -> list[Grid]:
        """Those that train layers."""
        return [grid for grid in (*self.study.grids(), *self.study.depths()) if grid.is_network]

    @cached_property
    def shapes(self) -> Callable[[str], Shapes]:
        """Backbone -> the shapes of its rows, and whether its layers can be trained; see `shapes_of`."""
        return cache(partial(shapes_of, self.study))

    def columns(self, inputs: Inputs) -> int | None:
        """How many numbers stand side by side in a row that heads are trained on."""
        rows = [self._row_bytes(inputs.backbone, parse_tap(tap), inputs.views[0]) for tap in inputs.taps]
        size = np.dtype(self.study.recipe(inputs.backbone).dtype).itemsize
        return None if None in rows else sum(row // size for row in rows if row is not None)

    def _row_bytes(self, backbone: str, tap: Tap, view: str) -> int | None:
        [found] = [
            each
            for each in self.plan.sets
            if (each.wanted.backbone, each.wanted.tap, each.wanted.view) == (backbone, tap, view)
        ]
        return found.row_bytes

    def sample_shape(self, grid: Grid) -> tuple[int, ...] | None:
        """The shape of a sample as layers take it; None where nobody knows."""
        name, cut = grid.inputs.backbone, network_of(grid).cut
        if not cut:
            side = self.backbones[name].preprocessing.crop
            return 3, side, side
        shapes = self.shapes(name)
        return None if shapes is None else shapes[Tap(cut, "none")]

    @cached_property
    def classes(self) -> list[str]:
        """The labels of the known samples, sorted."""
        return sorted(self.known.label.unique())

    # How long it takes

    def time(self) -> str:
        """Estimate the time that a run takes, each part with what that rests on."""
        parts = [self._passing(wave) for wave in self.waves]
        if self.lacking(layers=False):
            parts.append(self._heads_time())
        parts += [
            self._layers_time(grid, trial.lacking / trial.needed)
            for grid, trial in zip(self.study.grids(), self.plan.trials, strict=True)
            if trial.is_network and trial.lacking
        ]
        if self.plan.verdict is not None and self.plan.verdict.lacking:
            parts.append(self._verdict_time(self.plan.verdict.seconds))
        known = [seconds for seconds, _ in parts if seconds is not None]
        whole = (
            f"{about(sum(known))}{'' if len(known) == len(parts) else ' for what is known'}: "
            if known
            else ""
        )
        return f"{whole}{'; '.join(told for _, told in parts)}; scores and the report come on top"

    def lacking(self, *, layers: bool) -> int:
        """Count the heads, or the searches of layers, that experiments lack."""
        return sum(each.lacking for each in self.plan.trials if each.is_network == layers)

    @cached_property
    def cells(self) -> list[float] | None:
        """Seconds that each of the verdict's cells takes which is to be measured; None where nobody knows."""
        cells, depths = self.plan.verdict.lacking if self.plan.verdict else [], self.study.depths()
        seconds = []
        for cell in cells:
            grid = depths[cell.depth]
            pace = self._pace(grid) if grid.is_network else 0.0
            if pace is None:
                return None
            learnt = budget(network_of(grid), int(cell.part.training.sum())) if grid.is_network else 0
            seconds.append(MARGIN * learnt * pace if grid.is_network else HEAD_SECONDS)
        return seconds

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

    def _heads_time(self) -> tuple[float | None, str]:
        """Seconds that the experiments' heads take, and in words what that rests on."""
        from tasks.core.estimates import extrapolated, made_up, mixed, time_training

        grids, heads = (
            [grid for grid in self.study.grids() if not grid.is_network],
            self.lacking(layers=False),
        )
        groups = [(some, self.columns(some[0].inputs)) for some in together(grids)]
        sized = [(some, columns) for some, columns in groups if columns is not None]
        if len(sized) < len(groups):
            return None, f"{heads:,} heads not estimated, the size of their features is not known"
        widest, columns = max(sized, key=lambda pair: pair[1] * sum(len(grid.hypers) for grid in pair[0]))
        hypers = list(dict.fromkeys(hyper for grid in widest for hyper in grid.hypers))
        names = self.classes
        labels = self.known.label.map({name: number for number, name in enumerate(names)}).to_numpy()
        some = mixed(labels)[:TRIAL_SAMPLES]
        real = self._some_features(widest[0].inputs, self.known.digest.to_numpy()[some].tolist())
        features = made_up(labels[some], columns) if real is None else real
        took = time_training(features, labels[some], hypers, classes=len(names))
        if not took:
            return None, f"{heads:,} heads not estimated, there are too few samples to try"
        rows = len(widest[0].inputs.views) * sum(self._sizes) / len(self._sizes)
        # a head costs as others do, by the width of its features
        untrained = {trial.name: trial.lacking for trial in self.plan.trials}
        lacking = (
            sum(wide * untrained[g.name] / self._sharing(g) for some, wide in sized for g in some) / columns
        )
        networks = any(isinstance(hyper, Mlp) for hyper in hypers)
        seconds = extrapolated(took, rows, networks=networks) * lacking / len(hypers)
        basis = f"roughly, from fits on {took[-1][0]:,} {'made-up rows' if real is None else 'rows'}"
        return seconds, f"{heads:,} heads {about(seconds)} ({basis})"

    def _layers_time(self, grid: Grid, share: float) -> tuple[float | None, str]:
        """Seconds that an experiment's layers take, a share of its searches being left; and on what that rests."""
        searches = round(share * len(self._sizes)) * (times := self._times(grid))
        told, pace = f"{searches:,} search{'es' * (searches > 1)} of {grid.name}", self._pace(grid)
        if pace is None:
            return None, f"{told} not estimated, nobody knows what reaches the layers"
        learnt = times * sum(budget(network_of(grid), size) for size in self._sizes)
        seconds = MARGIN * share * learnt * pace
        return seconds, f"{told} {about(seconds)} ({1000 * pace:,.1f} ms a sample, tried for a moment)"

    def _sharing(self, grid: Grid) -> int:
        """How many heads one training gives: of a joint network one for each target."""
        return max(1, len(targets_of(self.table))) if grid.is_joint else 1

    def _times(self, grid: Grid) -> int:
        """How often layers are searched on each part: of several targets once for each that does not share them."""
        shared = any(isinstance(hyper, SharedNetwork) for hyper in grid.hypers)
        return 1 if shared else max(1, len(targets_of(self.table)))

    def _verdict_time(self, most: float) -> tuple[float | None, str]:
        """Seconds that the verdict's cells take, no more than they may."""
        if self.cells is None:
            return most, f"verdict at most {about(most)}"
        seconds = min(most, sum(self.cells))
        return seconds, f"verdict {about(seconds)}"

    def _pace(self, grid: Grid) -> float | None:
        """Seconds that layers take to learn from a sample; None where nobody knows what reaches them."""
        from tasks.core.layer_estimates import sample_seconds

        network, shape = network_of(grid), self.sample_shape(grid)
        alike = grid.inputs, network.cut, network.batch, network.batch_norm
        if shape is not None and alike not in self._paces:
            backbone = self.backbones[grid.inputs.backbone]
            source = Source(grid.inputs, backbone, {}, self.known, self.here)
            self._paces[alike] = sample_seconds(source, network, shape)
        return self._paces.get(alike)

    @cached_property
    def _paces(self) -> dict[tuple[Inputs, str, int, str], float]:
        return {}

    @cached_property
    def _sizes(self) -> list[int]:
        """Samples of each training part."""
        splits = self.study.split_specs()
        several = bool(targets_of(self.table))
        parts = answer_parts(answered(self.table), splits) if several else parts_of(self.known, splits)
        return [int(part.training.sum()) for part in parts]

    def _some_features(self, inputs: Inputs, digests: Sequence[str]) -> np.ndarray | None:
        """The features of some samples in the first view, if all of them are stored."""
        taps = [(inputs.backbone, spell(parse_tap(tap), inputs.views[0])) for tap in inputs.taps]
        folders = {(each.wanted.backbone, each.wanted.name): each.wanted.folder for each in self.plan.sets}
        held = [holdings(folders[tap], self.here.seen("shard")) for tap in taps]
        if not all(digest in each.rows for each in held for digest in digests):
            return None
        return Stored((tuple(held),), tuple(digests)).in_memory()


def network_of(grid: Grid) -> Network:
    """The layers that a grid of layers trains."""
    [network] = grid.hypers
    assert isinstance(network, Network), "asked only where layers are trained"  # noqa: S101
    return network
