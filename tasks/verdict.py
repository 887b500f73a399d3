"""Stage 6: how much to train, measured: depths on shares of the training part, every cell kept by itself."""

from typing import Any

from tasks.caching import stage
from tasks.core import versions
from tasks.core.advice import sentence
from tasks.core.artifacts import Artifacts
from tasks.core.backbones import Backbone
from tasks.core.ladder import Ladder, unfair
from tasks.core.measuring import Bench
from tasks.core.rules import Target, rules
from tasks.core.tables import read_table
from tasks.core.verdict import Measured, as_rows, differences, spelled, total
from tasks.limits import gpu_slot
from tasks.progress import Progress
from tasks.references import Features, Samples, Verdict


def _identity(inputs: dict[str, Any]) -> object:
    ladder: Ladder = inputs["ladder"]
    seen = inputs["artifacts"].seen("weights")
    return [
        [versions.VERDICT, versions.SCORER, versions.CURVE, versions.TRAINER, versions.FINETUNER],
        inputs["samples"].identity,
        ladder.identity(),
        {name: backbone.fingerprint(seen) for name, backbone in inputs["backbones"].items()},
        {name: each.sets for name, each in inputs["features"].items()},
        inputs["metric"],
    ]


@stage("verdict", _identity)
def judge(
    study: str,
    samples: Samples,
    ladder: Ladder,
    backbones: dict[str, Backbone],
    features: dict[str, Features],
    metric: str,
    artifacts: Artifacts,
) -> Verdict:
    """Measure every cell that the time allows, and say what they tell.

    A verdict that lacked time for a cell is not taken from the cache: the next run goes on with what is left.
    """
    sets = {name: each.sets for name, each in features.items()}
    bench = Bench(ladder, backbones, sets, read_table(samples.table), metric, artifacts, gpu_slot)
    with Progress(f"{study}: verdict", bench.size()) as progress:
        found = bench.measure(progress.advance_to)
    return _told(bench, found)


def _told(bench: Bench, found: Measured) -> Verdict:
    apart, preflight = differences(found), bench.preflight()
    best = {share: found.chosen(share) for share in found.shares()}
    return Verdict.model_construct(  # checked when it is read back
        sentence=sentence(found, apart),
        metric=bench.metric,
        split=bench.ladder.split.name,
        cells=as_rows(found),
        chosen=[
            {"share": share, "train": found.train(share), "depth": depth}
            for share, depth in best.items()
            if depth is not None
        ],
        differences=spelled(apart),
        rules=rules(found, Target(len(preflight["classes"]), preflight["source"])),
        preflight=preflight,
        unfair=unfair(bench.ladder),
        left_out=[vars(each) for each in bench.left_out],
        artifacts=bench.artifacts.root,
        files=sorted(bench.files),
        trained=bench.trained,
        spent={
            "seconds": total(cell.seconds for cell in found.cells),
            "budget": bench.ladder.seconds,
            "fits": sum(cell.trainings for cell in found.cells),
            "epochs": sum(cell.epochs for cell in found.cells),
        },
    )
