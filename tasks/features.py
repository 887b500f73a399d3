"""Stage 2: the frozen prefix of a backbone runs once for each sample; its taps are kept."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from tasks.caching import stage
from tasks.core import versions
from tasks.core.artifacts import Artifacts
from tasks.core.backbones import Backbone
from tasks.core.passes import Passes, check_trained
from tasks.core.recipes import Recipe
from tasks.core.tables import read_table
from tasks.core.taps import CENTRE, spell
from tasks.limits import gpu_slot
from tasks.progress import Progress
from tasks.references import Features, Samples


def _identity(inputs: dict[str, Any]) -> object:
    backbone: Backbone = inputs["backbone"]
    fingerprint = backbone.fingerprint(inputs["artifacts"].seen("weights"))
    return [versions.EXTRACTOR, inputs["samples"].rows, fingerprint, inputs["recipe"].identity()]


@stage("features", _identity)
def extract(
    study: str, samples: Samples, backbone: Backbone, recipe: Recipe, artifacts: Artifacts
) -> Features:
    """Run the samples that any tap lacks through the network, once for all taps of a view."""

    @contextmanager
    def show(view: str, total: int) -> Iterator[Callable[[int], None]]:
        name = f"{study}: forward" if view == CENTRE else f"{study}: forward {view}"
        with Progress(name, total) as progress:
            yield progress.advance_to

    check_trained(backbone, recipe)
    table = read_table(samples.table)
    places = dict(zip(table["digest"], table["path"], strict=True))
    passes = Passes(backbone, recipe, artifacts, places, show)
    with nullcontext() if passes.is_done() else gpu_slot():
        sets = {view: passes.fill(view) for view in recipe.views}
    return Features.model_construct(  # checked just now
        artifacts=artifacts.root,
        sets={spell(each.tap, view): each.folder.name for view in sets for each in sets[view]},
        shards={each.folder.name: each.shards() for view in sets for each in sets[view]},
        extracted=len(passes.ran),
        failed=passes.failed,
    )
