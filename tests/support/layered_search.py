"""Run as a script: a search for layers of a tiny network, which keeps a checkpoint at each step.

    python layered_search.py PLACE RESULT [PAUSE]

Checkpoints lie in PLACE; what was found is written to RESULT. A pause of so many seconds follows each step, so
that a test can kill the process in the midst of it. Each step's number is a byte in PLACE.log.
"""

import sys
import time
from pathlib import Path

import numpy as np
import torch
from layered import Given, tiny

import tasks.core.finetune
from tasks.core.finetune import Step, Training
from tasks.core.hyper import Network
from tasks.core.layers import part
from tasks.core.search import Search
from tasks.core.truth import Known

SAMPLES, CLASSES = 30, 2
NETWORK = Network(
    "", "pretrained", (1e-3, 1e-2), (2, 3), batch=8, mixup=0.3, batch_norm="live", head_first=False
)


def main(place: Path, result: Path, pause: float) -> None:
    torch.set_num_threads(1)
    torch.cuda.is_available = lambda: False
    tasks.core.finetune.EVERY = -1.0
    take = Training._take

    def slowly(training: Training, step: Step, *given: object) -> None:
        take(training, step, *given)  # type: ignore[arg-type]
        with place.with_suffix(".log").open("ab") as log:
            log.write(b".")
        time.sleep(pause)

    Training._take = slowly  # type: ignore[method-assign, assignment]
    random = np.random.default_rng(0)
    labels = np.arange(SAMPLES) % CLASSES
    looks = torch.from_numpy(
        random.normal(size=(2, SAMPLES, 3, 32, 32)) + labels[:, None, None, None]
    ).float()
    known = Known(labels, random.uniform(0.5, 2, SAMPLES), np.arange(SAMPLES).astype(str), CLASSES)
    network, rows = tiny("test_resnet"), random.permutation(SAMPLES)
    found = Search(
        NETWORK,
        lambda seed, learnt: part(network, "", classes=CLASSES, blank=True),
        Given(looks),
        known,
        rows[:24],
        rows[24:],
        seed=0,
        place=place,
    ).run()
    arrays = found.predictor.arrays()
    np.savez(
        result,
        said=found.said,
        inner=found.inner,
        **{name.replace(".", "_"): arrays[name] for name in arrays},
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]) if len(sys.argv) > 3 else 0.0)
