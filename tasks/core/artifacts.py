"""Where outputs lie: one folder, all of it deletable at the price of computing it again."""

from dataclasses import dataclass
from pathlib import Path

from tasks.core.digest import StatCache

HEADS = "heads"


@dataclass(frozen=True)
class Artifacts:
    """The artifacts folder and its parts."""

    root: Path

    @property
    def features(self) -> Path:
        """Feature sets, a folder each."""
        return self.root / "features"

    @property
    def engines(self) -> Path:
        """What was measured of a network on this machine, and converted networks, a folder each."""
        return self.root / "engines"

    @property
    def heads(self) -> Path:
        """Trained heads, a folder for each shelf."""
        return self.root / HEADS

    @property
    def checkpoints(self) -> Path:
        """What trainings that are under way have come to, a folder for each search."""
        return self.root / "checkpoints"

    @property
    def samples(self) -> Path:
        """Tables of samples, a file each."""
        return self.root / "samples"

    @property
    def results(self) -> Path:
        """Prefect's results: small references to the files above."""
        return self.root / "results"

    def study(self, name: str) -> Path:
        """What a study's last run left for people."""
        return self.root / "studies" / name

    def seen(self, kind: str) -> StatCache:
        """What is remembered of files that have not changed."""
        return StatCache(self.root / "seen.sqlite", kind)
