"""How long a thousand experiments on kept features take: `make bench-experiments`.

The solar cells' features at five depths, alone and side by side: ten inputs, each with 80 softmax heads (40
strengths, classes weighted and not) and 20 ridge heads, each trained on the training part and on its five
inner folds. The features are extracted first and not counted. What is timed is whole processes: `headstart
run` of the thousand, the same again with nothing to do, and Prefect's own floor, a flow with one empty task.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
DEPTHS = ("blocks.2:mean+std", "blocks.3:mean+std", "blocks.4:mean+std", "blocks.5:mean+std", "last:mean")
INPUTS = (
    *((tap,) for tap in DEPTHS),
    (DEPTHS[4], DEPTHS[2]),
    (DEPTHS[4], DEPTHS[3]),
    (DEPTHS[2], DEPTHS[3]),
    (DEPTHS[1], DEPTHS[3]),
    (DEPTHS[4], DEPTHS[2], DEPTHS[3]),
)
STRENGTHS = [float(f"{10 ** (-4 + 6 * step / 39):.3g}") for step in range(40)]
RIDGE = [0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0]

STUDY = """
name = "thousand"
data = {{ manifest = {manifest}, target = "defective", weight = "weight" }}
backbones.lite0 = {{ network = "lite0", resize = 300, crop = 300 }}
splits = [{{ name = "by image", stratify = ["probability", "type"], seeds = {seeds} }}]
"""
FLOOR = """
import os
from flows.server import QUIET
os.environ.update({name: os.environ.get(name, value) for name, value in QUIET.items()})
from prefect import flow, task
flow(lambda: task(lambda: None)())()
"""


def main() -> None:
    """Extract, time, print."""
    given = _options()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        study = _write(place / "thousand.toml", list(range(given.seeds)))
        first = _write(place / "first.toml", [0], strengths=[1.0], ridge=[])
        _run("-m", "flows", "run", str(first), "--artifacts", str(given.artifacts))
        shutil.rmtree(given.artifacts / "heads", ignore_errors=True)
        rounds = [_round(study, given.artifacts) for _ in range(given.rounds)]
    print(f"{given.seeds} split(s), so {1000 * given.seeds:,} heads and {5000 * given.seeds:,} fits on folds")
    for name, seconds in zip(
        ("a thousand", "again", "Prefect's floor"), zip(*rounds, strict=True), strict=True
    ):
        print(f"{name:<16} {_median(seconds):6.1f} s  ({min(seconds):.1f} to {max(seconds):.1f})")
    beyond = [all_told - floor for all_told, _, floor in rounds]
    print(f"beyond the floor {_median(beyond):6.1f} s  (goal 60 for one split)")
    summary = json.loads((given.artifacts / "studies/thousand/summary.json").read_text())
    print(f"experiments: {summary['experiments']}; task runs: {len(summary['stages'])}")


def _round(study: Path, artifacts: Path) -> tuple[float, float, float]:
    """Seconds of the thousand, of the same again, and of the floor."""
    shutil.rmtree(artifacts / "heads", ignore_errors=True)
    words = ("-m", "flows", "run", str(study), "--artifacts", str(artifacts))
    return _run(*words), _run(*words), _run("-c", FLOOR)


def _run(*words: str) -> float:
    started = time.perf_counter()
    done = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    return time.perf_counter() - started


def _write(
    path: Path, seeds: list[int], strengths: Sequence[float] = STRENGTHS, ridge: Sequence[float] = RIDGE
) -> Path:
    parts = [STUDY.format(manifest=json.dumps(str(ROOT / "data/solar.py")), seeds=seeds)]
    for number, taps in enumerate(INPUTS):
        for head, values in (("softmax", strengths), ("ridge", ridge)):
            if values:
                parts.append(
                    f'[[experiments]]\nname = "{head} {number}"\nhead = "{head}"\ntaps = {json.dumps(taps)}\n'
                    f'strengths = {json.dumps(list(values))}\nclass_weights = ["none", "balanced"]\n'
                )
    path.write_text("\n".join(parts))
    return path


def _median(seconds: Sequence[float]) -> float:
    return sorted(seconds)[len(seconds) // 2]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--artifacts", type=Path, default=Path("artifacts"), help="the folder of outputs")
    parser.add_argument("--seeds", type=int, default=1, help="splits of the data")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    given.artifacts = (given.artifacts / "bench").resolve()
    return given


if __name__ == "__main__":
    main()
