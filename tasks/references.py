"""What stages hand on: small references to files, kept by Prefect as JSON.

A reference is checked whenever it is read back. One whose files are gone or damaged is refused,
which Prefect takes for a miss, so the stage that made it runs again and mends what is lost.
"""

from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, model_validator

from tasks.core.artifacts import Artifacts
from tasks.core.digest import digest_bytes
from tasks.core.store import VIEW, holdings, mark_used


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
    """

    table: Path
    identity: str
    rows: str
    total: int
    read: int
    quarantine: Path
    quarantined: int


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


class Head(BaseModel, frozen=True):
    """A reference to one trained head.

    Attributes:
        path: its file.
        digest: of the file's bytes.
        split: name of the split, and
        seed: its seed.
        trained: whether it was trained for this reference, or found.
    """

    path: Path
    digest: str
    split: str
    seed: int
    trained: bool


class Heads(BaseModel, frozen=True):
    """References to one experiment's heads, one for each split.

    Attributes:
        artifacts: the artifacts folder.
        experiment: its name.
        heads: one for each split.
    """

    artifacts: Path
    experiment: str
    heads: list[Head]

    @model_validator(mode="after")
    def _still_there(self) -> Self:
        """Refuse a reference with a file lost or changed; raises ValueError."""
        seen = Artifacts(self.artifacts).seen("head")
        for head in self.heads:
            try:
                digest = seen.value(head.path, lambda path: digest_bytes(path.read_bytes()))
            except OSError as error:
                raise ValueError(f"{head.path}: {error.strerror}") from error
            if digest != head.digest:
                raise ValueError(f"{head.path}: changed since it was written")
        return self


class Scores(BaseModel, frozen=True):
    """Scores of every experiment; small enough to be the result itself.

    Attributes:
        splits: one row for each experiment, split and seed.
        means: one row for each experiment and split: the mean over the seeds.
    """

    splits: list[dict[str, Any]]
    means: list[dict[str, Any]]


class Copies(BaseModel, frozen=True):
    """Near copies among the samples; small enough to be the result itself.

    Attributes:
        pairs: digest, digest and similarity of each pair, the most alike first.
        searched: whether they were looked for; not among very many samples.
    """

    pairs: list[tuple[str, str, float]]
    searched: bool = True
