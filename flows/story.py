"""What a report tells besides scores: what ran, what was reused, notes and references."""

from typing import Any

from prefect.runtime import flow_run

from flows.stages import Stages
from flows.study import Study
from tasks.references import Features, Samples


def story_of(
    study: Study,
    samples: Samples,
    features: dict[str, Features],
    heads: tuple[int, int],
    stages: Stages,
    headline: str,
) -> dict[str, Any]:
    """Spell a run's story as plain values.

    Args:
        study: what ran.
        samples: what it ran on.
        features: backbone -> its features.
        heads: how many there are, and how many of them were trained just now.
        stages: what became of each.
        headline: the score that is told first.
    """
    extracted = max(
        0 if stages.was_cached(f"features {name}") else each.extracted for name, each in features.items()
    )
    total, fresh = heads
    return {
        "run": flow_run.id or "",
        "target": ", ".join(target.name for target in study.targets()) or study.data.target,
        "headline": headline,
        "samples": {
            "total": samples.total,
            "extracted": extracted,
            "reused": max(0, samples.total - extracted),  # some may have been set aside since
            "quarantined": samples.quarantined,
        },
        "experiments": {"total": total, "trained": fresh, "reused": total - fresh},
        "stages": [vars(stage) for stage in stages.ran],
        "notes": {split.name: split.note for split in study.splits},
        "references": [reference.model_dump() for reference in study.references],
        "features": {name: each.sets for name, each in features.items()},
    }
