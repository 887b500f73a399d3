"""Which rows a study wants of a backbone, and how they are made and kept: what names a feature set."""

from collections.abc import Mapping
from dataclasses import dataclass

from tasks.core import versions
from tasks.core.taps import Tap

AUTO = "auto"
"""The engine is chosen by what is done first on this machine."""


@dataclass(frozen=True)
class Recipe:
    """Which rows are wanted of a backbone, and how they are made and kept.

    Attributes:
        views: view -> the taps wanted of it, with the backbone's own names of the cuts.
        dtype: stored type, "float16" or "float32".
        engine: "auto", or the one that the study pins.
        trained: the cuts behind which layers are trained, "" for all of them; they decide no row, nor does
        renewed: whether some of them start from the network's weights, with a new classifier.
    """

    views: Mapping[str, tuple[Tap, ...]]
    dtype: str
    engine: str = AUTO
    trained: tuple[str, ...] = ()
    renewed: bool = False

    def identity(self) -> dict[str, object]:
        """Say what is wanted, as plain values."""
        views = {view: [str(tap) for tap in taps] for view, taps in self.views.items()}
        wanted: dict[str, object] = {"views": views, "dtype": self.dtype, "engine": self.engine}
        return {**wanted, "trained": list(self.trained), "renewed": self.renewed} if self.trained else wanted

    def set_identity(self, fingerprint: str, tap: Tap, view: str) -> dict[str, object]:
        """Say what decides the rows of one set, besides the samples.

        The engine is part of it only if the study pins one: who pins it wants its very bits, while
        "auto" takes rows of any engine, within 1e-3 of eager's on a CPU and 1e-2 on a GPU.
        """
        identity: dict[str, object] = {
            "backbone": fingerprint,
            "tap": str(tap),
            "view": view,
            "dtype": self.dtype,
            "extractor": versions.EXTRACTOR,
        }
        return identity if self.engine == AUTO else {**identity, "engine": self.engine}
