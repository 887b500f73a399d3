"""What unknown answers cost, on street scenes whose truth is known: `make bench-answers`.

The study of street scenes is run three times: with every answer, with 60 % of the answers to train on erased, and with
"no" in the place of the erased ones. The scenes to test on, and their answers, are the same. Told is the macro average
precision of each experiment, and how far it lies from that with every answer, with 95 % intervals over the scenes.
"""

import argparse
import csv
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from tasks.core.answer_scores import HEADLINE, draw_targets, less, questions_of
from tasks.core.answers import MACRO
from tasks.core.heads import load_heads
from tasks.core.metrics import Drawn, draw_groups, percentiles
from tasks.core.metrics import TestPart as Told

ROOT = Path(__file__).parents[2]
TARGETS = ("pedestrian", "car", "stop_sign", "traffic_light")
WAYS = {"every answer": "", "60 % erased": "_known", "erased taken for no": "_no"}


def main() -> None:
    """Run, ask, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--artifacts", type=Path, default=ROOT / "artifacts")
    here = parser.parse_args().artifacts
    scored = {way: scores_of(here, ending) for way, ending in WAYS.items()}
    print(f"macro {HEADLINE}, %, and its difference from that with every answer, points\n")
    for name in scored["every answer"]:
        for way, each in scored.items():
            print(f"{name:24} {way:22} {told(each[name], scored['every answer'][name])}")


def told(found: Drawn, whole: Drawn) -> str:
    """A score and its distance from another under the same draws, with intervals."""
    low, high = (100 * end for end in percentiles(found.draws))
    apart = less([found], [whole])
    return (
        f"{100 * found.value:5.1f} ({low:.1f} to {high:.1f})   "
        f"{100 * apart.value:+5.1f} ({100 * apart.low:+.1f} to {100 * apart.high:+.1f})"
    )


def scores_of(here: Path, ending: str) -> dict[str, Drawn]:
    """Run the study on one set of columns, and score what it chose by the truth."""
    name = f"bench-streets{ending}"
    targets = json.dumps([f"{target}{ending}" for target in TARGETS])
    command = [sys.executable, "-m", "flows", "run", "flows/studies/streets.toml", "--artifacts", str(here)]
    command += ["--set", f"name={name}", "--set", f"data.targets={targets}"]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    with (here / "studies" / name / "results.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["chosen"] == "True"]
    heads = {row["key"]: load_heads(here / row["file"])[row["key"]] for row in rows}
    tested = {digest for head in heads.values() for digest in head.test_rows}
    truth = _table(here, ending, tested)
    draws = draw_groups(truth.index.tolist())
    found = {}
    for experiment in dict.fromkeys(row["experiment"] for row in rows):
        mine = {row["target"]: row for row in rows if row["experiment"] == experiment}
        asked = {target: questions_of(_part(here, row, truth, target), None) for target, row in mine.items()}
        found[experiment] = draw_targets(asked, draws)[MACRO][HEADLINE]
    return found


def _table(here: Path, ending: str, tested: set[str]) -> pd.DataFrame:
    """The tested scenes with a run's answers, of the tables of samples that are kept: the same rows in each way."""
    for place in (here / "samples").glob("*.csv"):
        table = pd.read_csv(place, dtype=str).set_index("digest")
        if f"answer.{TARGETS[0]}{ending}" in table and tested <= set(table.index):
            return table.loc[sorted(tested)]
    raise SystemExit(
        f"{here}: no table of samples has the scenes that were tested; start with an empty folder"
    )


def _part(here: Path, row: Mapping[str, str], truth: pd.DataFrame, target: str) -> Told:
    """What a chosen head says of the scenes to test on, whose answers are all true."""
    head = load_heads(here / row["file"])[row["key"]]
    rows = truth.index.get_indexer(pd.Index(head.test_rows))
    labels = truth[f"answer.{target}"].iloc[rows].astype(int).to_numpy()
    return Told(rows, labels, np.ones(len(rows)), head.log_proba)


if __name__ == "__main__":
    main()
