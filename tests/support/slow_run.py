"""Run as a script: `headstart` with an extraction that takes its time, and tells what it forwards.

    python slow_run.py LOG PAUSE run study.toml ...

A batch has four samples, a shard eight; each batch is followed by a pause of so many seconds, and its samples'
digests are written to LOG before it. So a test can stop the run in the midst of it on any machine.
"""

import os
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

BATCH, SHARD = 4, 8
IN_FLIGHT = SHARD + BATCH
"""Samples that came out of the network and are not stored yet: less than a shard, and one batch."""


def slow_down(log: Path, pause: float) -> None:
    """Make the forward passes of this process small, slow and told of."""
    import tasks.core.engine
    import tasks.core.extraction
    from tasks.core.engines import Engine
    from tasks.core.extraction import Batch

    run_prefix, handle = tasks.core.engine.run_prefix, os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def slowly(engine: Engine, samples: Iterable[tuple[str, Path]], *rest: object) -> Iterator[Batch]:
        for batch in run_prefix(replace(engine, batch=BATCH), samples, *rest):  # type: ignore[arg-type]
            os.write(handle, "".join(f"{digest}\n" for digest in batch.digests).encode())
            yield batch
            time.sleep(pause)

    tasks.core.engine.run_prefix = slowly
    tasks.core.extraction.SHARD_ROWS = SHARD


def main(log: str, pause: str, *words: str) -> int:
    from flows.__main__ import main as headstart

    signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever started the tests may ignore it
    slow_down(Path(log), float(pause))
    return headstart(words)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
