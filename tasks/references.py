"""What stages hand on: small references to files, kept by Prefect as JSON.

A reference is checked whenever it is read back. One whose files are gone or damaged is refused,
which Prefect takes for a miss, so the stage that made it runs again and mends what is lost.
"""

from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, model_validator

from tasks.core.answers import MACRO
from tasks.core.artifacts import Artifacts
from tasks.core.cells import Filled
from tasks.core.heads import held, whole
from tasks.core.store import VIEW, holdings, mark_used
from tasks.core.summary import number
from tasks.core.trials import Part


class Samples(BaseModel, frozen=True):
    """A reference to the table of samples.

    Attributes:
        table: the CSV file.
        identity: digest of all that the table says but where the files lie.
        rows: digest of the samples' digests alone.
        total: how many samples the table has.
        read: how many files had to be read for it.
        quarantine: the CSV file of those set aside: path, reason.
        quarantined: how many those are.
        classes: the labels' names, sorted; none where there are several targets.
    """

    table: Path
    identity: str
    rows: str
    total: int
    read: int
    quarantine: Path
    quarantined: int
    classes: list[str]


class Features(BaseModel, frozen=True):
    """A reference to a backbone's features of some samples.

    Attributes:
        artifacts: the artifacts folder.
        sets: tap -> the name of its feature set.
        shards: set -> the shards it had.
        extracted: how many samples went through the network for it.
        failed: sample digest -> why it could not be read; a reference with any is never reused.
    """

    artifacts: Path
    sets: dict[str, str]
    shards: dict[str, list[str]]
    extracted: int
    failed: dict[str, str]

    @model_validator(mode="after")
    def _still_there(self) -> Self:
        """Refuse a reference with rows lost; raises ValueError."""
        if self.failed:
            raise ValueError(f"{len(self.failed)} samples could not be read")
        here = Artifacts(self.artifacts)
        for name, shards in self.shards.items():
            held = holdings(here.features / name, here.seen("shard"))
            whole = {shard.path.name for shard in held.shards}
            lost = [shard for shard in shards if shard not in whole]
            if lost or not (here.features / name / VIEW).is_file():
                raise ValueError(f"feature set {name} has lost {lost or VIEW}")
            mark_used(here.features / name)
        return self


class Shelf(BaseModel, frozen=True):
    """A reference to the heads that were trained on one part.

    Attributes:
        split: name of the split, and
        seed: its seed.
        folder: where they lie.
        files: names of the files there, each the digest of its bytes.
        heads: key of each head -> number of its file.
        trained: keys of those that were trained for this reference; the others were found.
    """

    split: str
    seed: int
    folder: Path
    files: list[str]
    heads: dict[str, int]
    trained: list[str]

    @classmethod
    def of(cls, part: Part, filled: Filled) -> Self:
        """Refer to the heads of a part."""
        files = list(dict.fromkeys(filled.files.values()))
        return cls(
            split=part.spec.name,
            seed=part.seed,
            folder=files[0].parent,
            files=[path.name for path in files],
            heads={key: files.index(path) for key, path in filled.files.items()},
            trained=filled.trained,
        )

    def paths(self) -> list[Path]:
        """The files."""
        return [self.folder / name for name in self.files]

    def path(self, key: str) -> Path:
        """The file with a head."""
        return self.folder / self.files[self.heads[key]]


class Heads(BaseModel, frozen=True):
    """References to the heads of grids with the same inputs, a shelf for each split and seed.

    Attributes:
        artifacts: the artifacts folder.
        grids: the keys of each grid's heads, by the grid's name.
        shelves: one for each split and seed.
    """

    artifacts: Path
    grids: dict[str, list[str]]
    shelves: list[Shelf]

    @model_validator(mode="after")
    def _still_there(self) -> Self:
        """Refuse a reference with a head lost or damaged; raises ValueError."""
        seen = Artifacts(self.artifacts).seen("head")
        for shelf in self.shelves:
            lost = set(shelf.files) - {path.name for path in whole(shelf.folder, seen)}
            if lost:
                raise ValueError(f"{shelf.folder}: {sorted(lost)} are lost or damaged")
        return self


class Scores(BaseModel, frozen=True):
    """Scores of every experiment; small enough to be the result itself.

    Attributes:
        splits: one row for each experiment, split and seed; test scores stand with those that the inner
            folds chose.
        means: one row for each name and split: the mean over the seeds of what was chosen for each.
        differences: one row for each two names, split and metric: the first less the second.
        operating: one row for each name, split and operating point.
        classes: one row for each class: the chosen name's scores of it on the split it was chosen on.
    """

    splits: list[dict[str, Any]]
    means: list[dict[str, Any]]
    differences: list[dict[str, Any]]
    operating: list[dict[str, Any]]
    classes: list[dict[str, Any]]


class Copies(BaseModel, frozen=True):
    """Near copies among the samples; small enough to be the result itself.

    Attributes:
        pairs: digest, digest and similarity of each pair, the most alike first.
        searched: whether they were looked for; not among very many samples.
    """

    pairs: list[tuple[str, str, float]]
    searched: bool = True


class Point(BaseModel, frozen=True):
    """A point of a learning curve.

    Attributes:
        share: of each training part.
        train: how many samples that is, the mean over the seeds.
        value: the score that heads trained on so many have on the test parts, None where it cannot be had,
            and
        ci95: its 95 % interval.
    """

    share: float
    train: float
    value: float | None
    ci95: list[float | None]

    @classmethod
    def of(cls, share: float, train: float, value: float | None, *ends: float | None) -> Self:
        """Make a point; NaN stands for what cannot be had."""
        return cls(share=share, train=train, value=number(value), ci95=[number(end) for end in ends])


class Gain(BaseModel, frozen=True):
    """What one step of a learning curve gained: a paired difference, whose 95 % interval draws test samples and seeds.

    Attributes:
        difference: of the scores, and
        low, high: its interval; None where it cannot be had.
    """

    difference: float | None
    low: float | None
    high: float | None

    @classmethod
    def of(cls, difference: float, low: float, high: float) -> Self:
        """Make one; NaN stands for what cannot be had."""
        return cls(difference=number(difference), low=number(low), high=number(high))


class Curve(BaseModel, frozen=True):
    """How the chosen experiment's score grows with the training samples; small enough to be the result itself.

    Attributes:
        experiment: its name.
        split: the one that it was chosen on.
        metric: what is scored.
        points: from the smallest share to all; none where no smaller share can be trained on.
        gain: of the last step; None without points.
    """

    experiment: str
    split: str
    metric: str
    points: list[Point]
    gain: Gain | None

    def as_summary(self) -> dict[str, Any] | None:
        """Spell it for `summary.json`; None where there is nothing to tell."""
        return self.model_dump() if self.points else None


class Verdict(BaseModel, frozen=True):
    """How much to train; small enough to be the result itself. README's "How much to train" tells what is in it.

    Attributes:
        sentence: the answer.
        metric: what is scored.
        split: on which split.
        cells: one row for each depth and share.
        chosen: the depth that inner folds chose for each share.
        differences: paired, between depths or shares.
        rules: of thumb, beside what was measured.
        preflight: what was known before anything was trained.
        unfair: depths that had no search of their own, and what that means.
        left_out: cells for which there was no time: depth, share, seed, reason, the seconds that each is
            expected to take, and the shelf and keys under which it would lie; with any that would fit into a run,
            or that was trained since, it is never reused.
        artifacts: the artifacts folder.
        files: with the heads and layers of the cells; without one of them, whole, it is never reused.
        trained: how many cells were trained for it; the others were there.
        spent: seconds, the budget of seconds, fits and epochs.
    """

    sentence: str
    metric: str
    split: str
    cells: list[dict[str, Any]]
    chosen: list[dict[str, Any]]
    differences: list[dict[str, Any]]
    rules: list[dict[str, Any]]
    preflight: dict[str, Any]
    unfair: list[str]
    left_out: list[dict[str, Any]]
    artifacts: Path
    files: list[Path]
    trained: int
    spent: dict[str, float | None]

    @model_validator(mode="after")
    def _is_done(self) -> Self:
        """Refuse one that another run would add to; raises ValueError."""
        if any(each["seconds"] <= (self.spent["budget"] or 0.0) for each in self.left_out):
            raise ValueError(f"{len(self.left_out)} cells lacked time")
        seen = Artifacts(self.artifacts).seen("head")
        if any(set(each["keys"]) <= set(held(Path(each["shelf"]), seen)[0]) for each in self.left_out):
            raise ValueError("a cell that lacked time was trained since")
        there = {path for shelf in {path.parent for path in self.files} for path in whole(shelf, seen)}
        if lost := [path.name for path in self.files if path not in there]:
            raise ValueError(f"{lost} are lost or damaged")
        return self

    def as_summary(self) -> dict[str, Any]:
        """Spell it for `summary.json`, without where things lie."""
        return self.model_dump(
            exclude={"artifacts": True, "files": True, "left_out": {"__all__": {"shelf", "keys"}}}
        )


class AnswerCurve(BaseModel, frozen=True):
    """How the chosen experiment's score of each target grows with the answers to learn from.

    Attributes:
        experiment: its name.
        split: the one that it was chosen on.
        metric: what is scored.
        points: target, or "macro average" -> from the smallest share to all; none where no smaller share can be
            trained on.
        gains: likewise, what the last step gained: a paired difference with its interval, which draws test samples
            and seeds anew.
    """

    experiment: str
    split: str
    metric: str
    points: dict[str, list[Point]]
    gains: dict[str, Gain]

    def as_summary(self) -> dict[str, Any] | None:
        """Spell it for `summary.json`, the mean's points as those of a study of one target; None without any."""
        if not self.points:
            return None
        spelled = self.model_dump()
        curves = [
            {"target": name, "points": points, "gain": spelled["gains"][name]}
            for name, points in spelled["points"].items()
        ]
        mean = [each for each in curves if each["target"] == MACRO]
        return {
            **{name: spelled[name] for name in ("experiment", "split", "metric")},
            "points": mean[0]["points"] if mean else [],
            "gain": mean[0]["gain"] if mean else None,
            "targets": [each for each in curves if each["target"] != MACRO],
        }


class Targets(BaseModel, frozen=True):
    """What is known of several targets before anything is trained; small enough to be the result itself.

    Attributes:
        kept: those that are learnt, in the study's order.
        left_out: the others -> why not.
        counts: of each target, as `tasks.core.answers.Answers.counts`.
        answers: (S) every answer to every target, as "car = 1".
        together: (S, S) how many samples give each two of them.
        silent: how many samples answer nothing.
    """

    kept: list[str]
    left_out: dict[str, str]
    counts: list[dict[str, Any]]
    answers: list[str]
    together: list[list[int]]
    silent: int


class AnswerHeads(BaseModel, frozen=True):
    """References to the heads of grids with the same inputs, for each target."""

    heads: dict[str, Heads]


class AnswerScores(BaseModel, frozen=True):
    """Scores of every experiment on every target; small enough to be the result itself.

    Attributes:
        splits: one row for each experiment, target, split, seed and head; test scores stand with the chosen.
        means: one row for each experiment, split and target, and for "macro average" and "micro average": the mean
            over the seeds of what was chosen for each.
        differences: one row for each experiment, split and metric: its macro average less the chosen one's.
        gains: one row for each pair of a joint experiment and its separate twin, split, target and metric: joint
            less separate.
        widths: one row for each such pair, split and width: what inner folds say of both.
    """

    splits: list[dict[str, Any]]
    means: list[dict[str, Any]]
    differences: list[dict[str, Any]]
    gains: list[dict[str, Any]]
    widths: list[dict[str, Any]]

    def macro(self) -> list[dict[str, Any]]:
        """The rows of `means` that are over all targets."""
        return [row for row in self.means if row["target"] == MACRO]
