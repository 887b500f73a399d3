"""Measuring a ladder's cells: what is there is found, what is not is trained while the time lasts."""

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tasks.core.artifacts import Artifacts
from tasks.core.backbones import Backbone
from tasks.core.cells import Filled, Source, fill, work
from tasks.core.heads import HeadFile, head_key, load_heads, seconds_of
from tasks.core.hyper import Hyper, Network, budget
from tasks.core.ladder import Ladder, Rung, rungs
from tasks.core.metrics import Draws, TestPart, draw_groups, draw_scores
from tasks.core.splits import groups_of
from tasks.core.standings import choose_head
from tasks.core.taps import parse_tap
from tasks.core.trials import Part, labelled, parts_of
from tasks.core.verdict import Cell, Depth, Measured
from tasks.core.words import lasted

MARGIN = 1.15
"""A cell takes so many times what its steps do: samples are also asked about, and classifiers started."""
HEAD_SECONDS = 2.0
"""What a cell of heads is expected to take; much less than layers do."""
UNITS = 1000
"""Of progress in a cell."""


@dataclass(frozen=True)
class LeftOut:
    """A cell for which there was no time.

    Attributes:
        depth: its depth, and
        share: share, and
        seed: seed of the split.
        reason: in words.
        seconds: that it was expected to take.
        shelf: where it would lie, and
        keys: under which names.
    """

    depth: str
    share: float
    seed: int
    reason: str
    seconds: float
    shelf: str
    keys: list[str]


@dataclass
class Bench:
    """Where the cells of a ladder are measured.

    Attributes:
        ladder: what is measured.
        backbones: by their names in the study.
        sets: backbone -> tap of a view -> feature set.
        table: all samples.
        metric: what is scored.
        artifacts: where everything lies.
        slot: a block in which layers are trained.
        left_out: cells for which there was no time.
        trained: how many cells were trained here; the others were found.
        spent: seconds that training them took.
        files: of the cells' heads.
    """

    ladder: Ladder
    backbones: Mapping[str, Backbone]
    sets: Mapping[str, Mapping[str, str]]
    table: pd.DataFrame
    metric: str
    artifacts: Artifacts
    slot: Callable[[], AbstractContextManager[Any]] = nullcontext
    left_out: list[LeftOut] = field(default_factory=list)
    trained: int = 0
    spent: float = 0.0
    files: set[Path] = field(default_factory=set)

    def size(self) -> int:
        """How much `measure` tells its `advance` of."""
        return UNITS * len(self.rungs)

    def measure(self, advance: Callable[[int], None] = lambda done: None) -> Measured:
        """Measure the cells, the most telling first, as long as there is time to train; what is there takes none.

        Args:
            advance: is told how much is done.
        """
        cells = []
        for number, rung in enumerate(self.rungs):
            within = self._within(rung, number, advance)
            if self._is_there(rung):
                cells.append(self._cell(rung, self._fill(rung, within)))
            elif (seconds := self._expected(rung)) <= self.ladder.seconds - self.spent:
                cells.append(self._cell(rung, self._train(rung, within)))
            else:
                self._leave_out(rung, seconds)
            advance((number + 1) * UNITS)
        test = round(float(np.mean([part.test.sum() for part in self.parts])))
        return Measured(self.metric, self.depths, cells, test)

    def preflight(self) -> dict[str, Any]:
        """Say what is known before anything is trained, of the first depth's backbone and of all taps."""
        from tasks.core.preflight import count_classes, notes_on

        first = self.ladder.depths[0].inputs.backbone
        name, samples = self.ladder.sources[first]
        return {
            "classes": count_classes(self.known.label.tolist()),
            "target": int(self.parts[0].training.sum()),
            "source": samples,
            "source_name": name,
            "notes": notes_on(self.known.path.tolist(), self.backbones[first], name),
            "taps": self._scored_taps(),
        }

    @cached_property
    def known(self) -> pd.DataFrame:
        """The samples that have a label."""
        return labelled(self.table)

    @cached_property
    def parts(self) -> list[Part]:
        """One for each seed."""
        return list(parts_of(self.known, [self.ladder.split]))

    @cached_property
    def rungs(self) -> list[Rung]:
        """All cells, the most telling first."""
        first = self.sources[0]
        return list(rungs(self.ladder, self.parts, first.labels, first.weights))

    @cached_property
    def depths(self) -> list[Depth]:
        """What is compared."""
        return [
            Depth(grid.name, kind, _cut(grid.hypers[0]))
            for grid, kind in zip(self.ladder.depths, self.ladder.kinds, strict=True)
        ]

    @cached_property
    def sources(self) -> list[Source]:
        """What each depth is trained on."""
        return [
            Source(
                grid.inputs,
                self.backbones[grid.inputs.backbone],
                self.sets[grid.inputs.backbone],
                self.known,
                self.artifacts,
            )
            for grid in self.ladder.depths
        ]

    def _within(self, rung: Rung, number: int, advance: Callable[[int], None]) -> Callable[[int], None]:
        """Count what is done of a cell among all."""
        whole = work(self.sources[rung.depth], [self.ladder.depths[rung.depth]], rung.part)
        return lambda done: advance(number * UNITS + min(done, whole) * UNITS // max(1, whole))

    def _is_there(self, rung: Rung) -> bool:
        return set(self._keys(rung)) <= set(self.sources[rung.depth].found(rung.part))

    def _keys(self, rung: Rung) -> list[str]:
        return [head_key(hyper) for hyper in self.ladder.depths[rung.depth].hypers]

    def _expected(self, rung: Rung) -> float:
        """Seconds that a cell is expected to take."""
        [*_, hyper] = self.ladder.depths[rung.depth].hypers
        if not isinstance(hyper, Network):
            return HEAD_SECONDS
        return MARGIN * budget(hyper, int(rung.part.training.sum())) * self._pace(rung.depth, hyper)

    def _pace(self, depth: int, network: Network) -> float:
        """Seconds to learn from a sample once; measured when first asked for."""
        from tasks.core.pace import seconds_a_sample

        if depth not in self._paces:
            with self.slot():
                self._paces[depth] = seconds_a_sample(self.sources[depth], network)
        return self._paces[depth]

    @cached_property
    def _paces(self) -> dict[int, float]:
        return {}

    def _leave_out(self, rung: Rung, seconds: float) -> None:
        left = max(0.0, self.ladder.seconds - self.spent)
        self.left_out.append(
            LeftOut(
                depth=self.ladder.depths[rung.depth].name,
                share=rung.share,
                seed=rung.part.seed,
                reason=f"estimated {lasted(seconds)}, {lasted(left)} of the budget were left",
                seconds=seconds,
                shelf=str(self.sources[rung.depth].place(rung.part)),
                keys=self._keys(rung),
            )
        )

    def _train(self, rung: Rung, advance: Callable[[int], None]) -> Filled:
        with self.slot() if self.ladder.depths[rung.depth].is_network else nullcontext():
            started = time.monotonic()
            filled = self._fill(rung, advance)
            self.spent += time.monotonic() - started
        self.trained += 1
        return filled

    def _fill(self, rung: Rung, advance: Callable[[int], None]) -> Filled:
        return fill(self.sources[rung.depth], [self.ladder.depths[rung.depth]], rung.part, advance)

    def _cell(self, rung: Rung, filled: Filled) -> Cell:
        self.files |= set(filled.files.values())
        heads = [load_heads(path)[key] for key, path in filled.files.items()]
        head = heads[choose_head([each.story for each in heads])]
        return self._scored(rung, head, seconds_of(filled.files))

    def _scored(self, rung: Rung, head: HeadFile, took: float | None) -> Cell:
        grid, source, part = self.ladder.depths[rung.depth], self.sources[rung.depth], rung.part
        test = part.test
        said = TestPart(self._places[test], source.labels[test], source.weights[test], head.log_proba)
        story = head.story
        seconds = story.get("seconds", took)
        return Cell(
            depth=grid.name,
            share=rung.share,
            seed=part.seed,
            train=int(part.training.sum()),
            inner=story["inner_brier"],
            score=draw_scores(said, self._draws)[self.metric],
            seconds=seconds,
            without_cache=None if seconds is None else seconds + self._frozen_seconds(rung, story),
            epochs=int(story.get("epochs_in_all", 0)),
            trainings=int(story.get("trainings", len(grid.hypers))),
            stopped=str(story.get("stopped", "")),
        )

    def _frozen_seconds(self, rung: Rung, story: dict[str, Any]) -> float:
        """Seconds that the frozen layers would have taken, had nothing been kept.

        A head needs them once for each look at a sample, layers behind a cut once for each sample that is
        learnt from.
        """
        from tasks.core.pace import frozen_seconds_a_sample

        grid, part = self.ladder.depths[rung.depth], rung.part
        if not grid.inputs.taps:
            return 0.0
        if rung.depth not in self._frozen:
            with self.slot():
                self._frozen[rung.depth] = frozen_seconds_a_sample(self.sources[rung.depth])
        looks = len(grid.inputs.views) * int((part.training | part.test).sum())
        tried = story.get("tried", [])
        folds = max(1, len({each["fold"] for each in tried}))
        share = (folds - 1) / folds if folds > 1 else 1.0
        learnt = sum(each["epochs"] for each in tried) * share * int(part.training.sum())
        return float((looks + learnt) * self._frozen[rung.depth])

    @cached_property
    def _frozen(self) -> dict[int, float]:
        return {}

    @cached_property
    def _draws(self) -> Draws:
        return draw_groups(groups_of(self.table, self.ladder.split).tolist())

    @cached_property
    def _places(self) -> np.ndarray:
        places: np.ndarray = pd.Index(self.table.digest).get_indexer(pd.Index(self.known.digest))
        return places

    def _scored_taps(self) -> list[dict[str, Any]]:
        """Score every tap of the depths, pooled, on the first seed's training part."""
        from tasks.core.pooled import pooled_rows
        from tasks.core.preflight import scores_of

        rows, scored = self.parts[0].training, {}
        digests = self.known.digest[rows].tolist()
        for grid, source in zip(self.ladder.depths, self.sources, strict=True):
            for tap, name in zip(grid.inputs.taps, source.sets, strict=False):  # of the first view
                place = (grid.inputs.backbone, str(parse_tap(tap)).replace(":none", ":mean"))
                if place not in scored:
                    some = pooled_rows(name, digests, self.artifacts)
                    scored[place] = scores_of(some, source.labels[rows], classes=len(source.classes))
        told = [{"backbone": name, "tap": tap, **scores} for (name, tap), scores in scored.items()]
        return sorted(told, key=lambda each: -each["log_me"] if each["log_me"] is not None else np.inf)


def _cut(hyper: Hyper) -> str:
    return hyper.cut if isinstance(hyper, Network) else ""
