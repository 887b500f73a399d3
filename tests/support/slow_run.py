"""Run as a script: `headstart` with an extraction that comes to a crawl, and tells what it forwards.

    python slow_run.py LOG PAUSE SHARD run study.toml ...

A shard has so many samples, a batch four. Each batch's digests are written to LOG; once twenty samples are
through, each further batch is followed by a pause of so many seconds. So a test stops the run in the midst
of it on any machine.
"""

import os
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

BATCH, QUICK = 4, 20
"""Samples of a batch, and samples before the first pause."""


def slow_down(log: Path, pause: float, shard: int) -> None:
    """Make the forward passes of this process small, slow and told of."""
    import tasks.core.engine
    import tasks.core.extraction
    from tasks.core.engines import Engine
    from tasks.core.extraction import Batch

    run_prefix, handle = tasks.core.engine.run_prefix, os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def slowly(engine: Engine, samples: Iterable[tuple[str, Path]], *rest: object) -> Iterator[Batch]:
        done = 0
        for batch in run_prefix(replace(engine, batch=BATCH), samples, *rest):  # type: ignore[arg-type]
            os.write(handle, "".join(f"{digest}\n" for digest in batch.digests).encode())
            done += len(batch.digests)
            yield batch
            time.sleep(pause if done >= QUICK else 0)

    tasks.core.engine.run_prefix = slowly
    tasks.core.extraction.SHARD_ROWS = shard


def main(log: str, pause: str, shard: str, *words: str) -> int:
    from flows.__main__ import main as headstart

    signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever started the tests may ignore it
    slow_down(Path(log), float(pause), int(shard))
    return headstart(words)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
