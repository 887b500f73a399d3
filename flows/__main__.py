"""The command line. Prefect and torch are imported only when a study is about to run."""

import argparse
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from flows.study import Study, load_study
from tasks.core.errors import HeadstartError, RequestError

DONE, FAILED, WRONG_REQUEST = 0, 1, 2

PREFECT_DEFAULTS = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
}
"""Nothing leaves the machine, a slow machine has time to start the server, and errors are told once, by us."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: the words after the program's name; those of this process if not given.

    Returns:
        0 when done, 1 when the run failed, 2 when the request was wrong.
    """
    given = _parser().parse_args(arguments)
    try:
        study = load_study(given.study, given.set)
        return _run(study, given.artifacts.resolve())
    except RequestError as error:
        print(f"headstart: {error}", file=sys.stderr)
        return WRONG_REQUEST
    except HeadstartError as error:
        print(f"headstart: {error}", file=sys.stderr)
        return FAILED
    except Exception:
        traceback.print_exc()
        print("headstart: the run failed, see above; what is done is kept", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print(
            "headstart: stopped; what is done is kept, the same command goes on from there", file=sys.stderr
        )
        return FAILED


def _run(study: Study, artifacts: Path) -> int:
    try:
        artifacts.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RequestError(
            f"{artifacts}: cannot be a folder for outputs ({error.strerror}); choose with --artifacts"
        ) from None
    for name, value in PREFECT_DEFAULTS.items():
        os.environ.setdefault(name, value)
    from flows.console import show_summary
    from flows.transfer import transfer

    print(f"headstart: {study.name}", file=sys.stderr, flush=True)
    show_summary(transfer(study, artifacts), artifacts / "studies" / study.name)
    return DONE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="headstart",
        description="Transfer learning as a pipeline with cached stages.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="run a study, or a folder with one sub-folder per class")
    run.add_argument("study", type=Path, metavar="STUDY.toml|FOLDER")
    run.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change one of the study's keys, such as data.max_bad=0.1",
    )
    run.add_argument(
        "--artifacts",
        type=Path,
        default=Path("artifacts"),
        metavar="DIR",
        help="where outputs go (default: artifacts)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
