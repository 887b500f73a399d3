"""Stage 2: the frozen prefix of a backbone runs once for each sample; its taps are kept."""

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tasks.caching import cached_stage
from tasks.core import versions
from tasks.core.artifacts import Artifacts
from tasks.core.backbones import Backbone
from tasks.core.extraction import Filler, TapSet, missing_rows, open_set, refresh_views, tap_folder
from tasks.core.tables import read_table
from tasks.core.taps import Tap
from tasks.progress import Progress
from tasks.references import Features, Samples


def _identity(inputs: dict[str, Any]) -> object:
    backbone: Backbone = inputs["backbone"]
    fingerprint = backbone.fingerprint(inputs["artifacts"].seen("weights"))
    taps = [str(tap) for tap in inputs["taps"]]
    return [versions.EXTRACTOR, inputs["samples"].rows, fingerprint, taps, inputs["dtype"]]


@cached_stage("features", "{study}: features of {backbone.name}", _identity)
def extract(
    study: str, samples: Samples, backbone: Backbone, taps: Sequence[Tap], dtype: str, artifacts: Artifacts
) -> Features:
    """Run the samples that any tap lacks through the network, once for all taps."""
    seen = artifacts.seen("shard")
    fingerprint = backbone.fingerprint(artifacts.seen("weights"))
    sets = [open_set(tap, tap_folder(artifacts.features, fingerprint, tap, dtype), seen) for tap in taps]
    table = read_table(samples.table)
    missing = missing_rows(table["digest"].tolist(), [each.held.rows for each in sets])
    places = dict(zip(table["digest"], table["path"], strict=True))
    failed = _forward(study, backbone, sets, dtype, [(digest, Path(places[digest])) for digest in missing])
    refresh_views(sets, seen)
    sets = [open_set(each.tap, each.folder, seen) for each in sets]
    return Features.model_construct(  # checked just now
        artifacts=artifacts.root,
        sets={str(each.tap): each.folder.name for each in sets},
        shards={
            each.folder.name: sorted({shard.name for shard, _ in each.held.rows.values()}) for each in sets
        },
        extracted=len(missing) - len(failed),
        failed=failed,
    )


def _forward(
    study: str, backbone: Backbone, sets: list[TapSet], dtype: str, samples: list[tuple[str, Path]]
) -> dict[str, str]:
    """Fill the sets; return the samples that could not be read, with the reason."""
    if not samples:
        return {}
    # Imported here, not above: a run that has nothing to forward shall not wait for torch.
    from tasks.core.cuts import Prefix
    from tasks.core.engine import best_device, run_prefix
    from tasks.core.networks import load_network

    failed: dict[str, str] = {}
    device = best_device()
    with Progress(f"{study}: forward", len(samples)) as progress:
        prefix = Prefix(load_network(backbone), [each.tap for each in sets])
        filler = Filler(sets, dtype, _provenance(backbone, str(device)))
        for batch in run_prefix(prefix, samples, backbone.preprocessing, device):
            filler.add(batch.digests, batch.rows)
            failed |= batch.failed
            progress.advance_to(progress.done + len(batch.digests) + len(batch.failed))
        filler.flush()
    return failed


def _provenance(backbone: Backbone, device: str) -> dict[str, object]:
    """What is worth knowing of how the rows were made, but does not decide them."""
    return {
        "backbone": backbone.name,
        "architecture": backbone.architecture,
        "weights": backbone.weights.name,
        "preprocessing": backbone.preprocessing.identity(),
        "device": device,
        "versions": {name: version(name) for name in ("torch", "timm", "pillow", "h5py", "numpy")},
    }
