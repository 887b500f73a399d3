"""A backbone's rows for a view: from stored activations where a cut before the tap is kept, else from pixels."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.core import versions
from tasks.core.artifacts import Artifacts
from tasks.core.backbones import Backbone
from tasks.core.claims import Claims
from tasks.core.digest import StatCache, digest_value
from tasks.core.errors import HeadstartError
from tasks.core.extraction import Batch, Extraction, TapSet, engine_of, missing_rows, open_set, refresh_view
from tasks.core.machine import library_version, machine
from tasks.core.recipes import AUTO, Recipe
from tasks.core.store import load, set_folder
from tasks.core.taps import LAST, Tap

if TYPE_CHECKING:
    from torch import nn

LIBRARIES = ("torch", "torchvision", "timm", "openvino", "pillow", "h5py", "numpy")

Show = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]
"""(view, how many samples) -> a block in which the number done by now is told."""


@contextmanager
def show_nothing(view: str, total: int) -> Iterator[Callable[[int], None]]:
    """Let a pass run without a word."""
    yield lambda done: None


def check_trained(backbone: Backbone, recipe: Recipe) -> None:
    """Refuse layers that cannot be trained, before anything is extracted for them.

    Raises:
        RequestError: if the network does not fall in two at one of the cuts, or has no classifier behind it, or none
            that can be replaced where that is wanted.
    """
    if recipe.trained:
        from tasks.core.layers import check_classifier, part
        from tasks.core.networks import outline

        try:
            network = outline(backbone)
        except HeadstartError:
            raise
        except Exception:  # a network may do what cannot be done without numbers; then training tells
            return
        if recipe.renewed:
            check_classifier(network, backbone.preprocessing.crop)
        for cut in recipe.trained:
            part(network, cut, classes=2, blank=recipe.renewed)


@dataclass
class Passes:
    """Runs a frozen backbone over samples; what is stored already does not run again.

    Attributes:
        backbone: whose rows are wanted.
        recipe: which rows, and how they are made and kept.
        artifacts: where they are kept.
        places: sample digest -> its file.
        show: shows how far each pass is.
        ran: the samples that went through the network here.
        failed: sample digest -> why it could not be read.
    """

    backbone: Backbone
    recipe: Recipe
    artifacts: Artifacts
    places: Mapping[str, str]
    show: Show = show_nothing
    ran: set[str] = field(default_factory=set)
    failed: dict[str, str] = field(default_factory=dict)

    def fill(self, view: str) -> list[TapSet]:
        """Have the rows of the recipe's taps for one view; return their sets.

        Raises:
            RequestError: if a tap or the engine is not to be had.
            StoreError: if rows cannot be stored.
        """
        taps = self.recipe.views[view]
        if self._lacking(taps, view):  # only now is the network loaded
            # Who pins an engine wants its bits; stored activations are rounded.
            lacking = self._lacking(taps, view) if self.recipe.engine == AUTO else []
            for start, behind in self._kept_before(lacking, view).items():
                self._from_activations(self._open(Tap(start, "none"), view), behind, view)
            self._from_pixels(self._lacking(taps, view), view)
        claims = self._claims(view)
        return [refresh_view(self._open(tap, view), claims, self._seen) for tap in taps]

    def is_done(self) -> bool:
        """Whether every row of the recipe is there."""
        return not any(self._lacking(taps, view) for view, taps in self.recipe.views.items())

    @cached_property
    def network(self) -> "nn.Module":
        """The backbone's network, loaded when first needed."""
        # Imported here, not above: a run that has nothing to forward shall not wait for torch.
        from tasks.core.networks import load_network

        return load_network(self.backbone)

    @cached_property
    def fingerprint(self) -> str:
        """The backbone's."""
        return self.backbone.fingerprint(self.artifacts.seen("weights"))

    @cached_property
    def _seen(self) -> StatCache:
        return self.artifacts.seen("shard")

    def _claims(self, view: str) -> Claims:
        return Claims(self.artifacts.features / ".claims", f"{self.fingerprint} {view}")

    def _open(self, tap: Tap, view: str) -> TapSet:
        identity = self.recipe.set_identity(self.fingerprint, tap, view)
        return open_set(self.artifacts.features, tap, identity, self._seen)

    def _lacking(self, taps: Iterable[Tap], view: str) -> list[TapSet]:
        """Open the sets that lack rows of samples that can be read."""
        sets = [self._open(tap, view) for tap in taps]
        wanted = [digest for digest in self.places if digest not in self.failed]
        return [each for each in sets if missing_rows(wanted, [each.held.rows])]

    def _kept_before(self, sets: Iterable[TapSet], view: str) -> dict[str, list[TapSet]]:
        """Sort sets by the deepest cut before each whose whole activations are stored."""
        from tasks.core.cuts import deepest_before

        names = [LAST, *(name for name, _ in self.network.named_modules() if name)]
        kept = [name for name in names if self._holds(Tap(name, "none"), view)]
        behind: dict[str, list[TapSet]] = {}
        for each in sets:
            before = [cut for cut in kept if Tap(cut, "none") != each.tap]
            start = deepest_before(self.network, each.tap, before)
            if start is not None:
                behind.setdefault(start, []).append(each)
        return behind

    def _holds(self, tap: Tap, view: str) -> bool:
        folder = set_folder(self.artifacts.features, self.recipe.set_identity(self.fingerprint, tap, view))
        return folder.is_dir() and bool(self._open(tap, view).held.rows)

    def _from_activations(self, start: TapSet, sets: list[TapSet], view: str) -> None:
        """Fill sets from a stored cut before them: the layers up to it do not run again."""
        from tasks.core.cuts import Prefix
        from tasks.core.engine import run_activations

        prefix = Prefix(self.network, [each.tap for each in sets], start=start.tap.cut)
        run = partial(run_activations, prefix, partial(load, start.held))
        wanted = [digest for digest in self.places if digest in start.held.rows]
        self._run(sets, view, wanted, run, {"engine": "eager", "from": f"{start.tap} {self.recipe.dtype}"})

    def _from_pixels(self, sets: list[TapSet], view: str) -> None:
        """Fill sets from the samples' files."""
        from tasks.core.cuts import Prefix
        from tasks.core.engine import open_engine, run_prefix

        if not sets:
            return
        taps, spec = [each.tap for each in sets], self.backbone.preprocessing
        kept = self.artifacts.engines / self.kind(taps)
        lacking = missing_rows(self.places, [each.held.rows for each in sets])
        engine = open_engine(
            Prefix(self.network, taps),
            spec,
            kept,
            len(lacking),
            pinned=self.recipe.engine,
            begun=engine_of(sets),
        )

        def run(digests: Iterator[str]) -> Iterator[Batch]:
            return run_prefix(engine, ((each, Path(self.places[each])) for each in digests), spec, view)

        made = {"engine": engine.name, "device": engine.device, "from": "pixels"}
        self._run(sets, view, list(self.places), run, made)

    def kind(self, taps: list[Tap]) -> str:
        """Name what an engine is made of and measured for."""
        return digest_value([versions.EXTRACTOR, self.fingerprint, [str(tap) for tap in taps], machine()])

    def _run(
        self,
        sets: list[TapSet],
        view: str,
        wanted: list[str],
        run: Callable[[Iterator[str]], Iterator[Batch]],
        made: Mapping[str, object],
    ) -> None:
        story = {**self._provenance(view), **made}
        work = Extraction(sets, self.recipe.dtype, story, self._claims(view), self._seen, self.failed)
        with self.show(view, len(work.missing(wanted))) as progress:
            work.fill(wanted, run, progress)
        self.ran.update(work.ran)

    def _provenance(self, view: str) -> dict[str, object]:
        """What is worth knowing of how the rows were made, but does not decide them."""
        return {
            "backbone": self.backbone.name,
            "architecture": self.backbone.architecture,
            "weights": self.backbone.weights.name,
            "fingerprint": self.fingerprint,
            "preprocessing": self.backbone.preprocessing.identity(),
            "view": view,
            "dtype": self.recipe.dtype,
            "versions": {name: found for name in LIBRARIES if (found := library_version(name))},
        }
