"""Stage of several targets: who knows what, and which of them can be learnt and scored."""

from dataclasses import asdict
from typing import Any

from tasks.caching import stage
from tasks.core import versions
from tasks.core.answer_parts import able_targets
from tasks.core.splits import SplitSpec
from tasks.core.tables import read_table
from tasks.core.targets import answered, answers_of
from tasks.references import Samples, Targets


def _identity(inputs: dict[str, Any]) -> object:
    specs = [asdict(spec) for spec in inputs["splits"]]
    return [versions.ANSWERS, inputs["samples"].identity, inputs["names"], specs, inputs["least"]]


@stage("targets", _identity)
def count_answers(
    study: str, samples: Samples, names: list[str], splits: tuple[SplitSpec, ...], least: int
) -> Targets:
    """Count the answers to the named targets, and leave out those of which too little is known for a part or fold.

    Raises:
        RequestError: if none is left.
    """
    table = read_table(samples.table)
    known = answered(table)
    answers = answers_of(table, names)
    able = able_targets(known, splits, least)
    return Targets(
        kept=[name for name in names if name in able.kept],
        left_out=able.left_out,
        counts=answers.counts(),
        answers=[
            f"{name} = {answer}"
            for name, classes in zip(answers.targets, answers.classes, strict=True)
            for answer in classes
        ],
        together=answers.together().tolist(),
        silent=len(table) - len(known),
    )
