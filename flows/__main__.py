"""The command line. Prefect and torch are imported only when a study is about to run."""

import argparse
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from flows.study import load_study
from tasks.core.errors import HeadstartError, RequestError

DONE, FAILED, WRONG_REQUEST = 0, 1, 2

PREFECT_DEFAULTS = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
}
"""Nothing leaves the machine, a slow machine has time to start the server, and errors are told once, by us."""


os.environ.setdefault("OMP_WAIT_POLICY", "passive")
"""Read when torch is loaded. Threads that spin while another program has their processor wait for it: training
beside a busy program takes several times as long, or a hundred times."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: the words after the program's name; those of this process if not given.

    Returns:
        0 when done, 1 when the run failed, 2 when the request was wrong.
    """
    given = _parser().parse_args(arguments)
    try:
        return COMMANDS[given.command](given)
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


def _run(given: argparse.Namespace) -> int:
    study, artifacts = load_study(given.study, given.set), given.artifacts.resolve()
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


def _plan(given: argparse.Namespace) -> int:
    from flows.plan import show_plan

    return show_plan(load_study(given.study, given.set), given.artifacts.resolve())


def _cuts(given: argparse.Namespace) -> int:
    from flows.cuts import show_cuts

    show_cuts(
        given.backbone,
        resize=given.resize,
        crop=given.crop,
        architecture=given.architecture,
        weights=given.weights,
    )
    return DONE


def _cache(given: argparse.Namespace) -> int:
    from flows.cache import run_cache

    return run_cache(given)


COMMANDS = {"run": _run, "plan": _plan, "cuts": _cuts, "cache": _cache}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="headstart",
        description="Transfer learning as a pipeline with cached stages.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, told in (
        ("run", "run a study, or a folder with one sub-folder per class"),
        ("plan", "tell what a run would do, and why"),
    ):
        _add_study(commands.add_parser(name, help=told))
    _add_backbone(commands.add_parser("cuts", help="print where a network falls in two"))
    _add_cache(commands)
    return parser


def _add_study(command: argparse.ArgumentParser) -> None:
    command.add_argument("study", type=Path, metavar="STUDY.toml|FOLDER")
    command.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change one of the study's keys, such as data.max_bad=0.1",
    )
    _add_artifacts(command)


def _add_backbone(command: argparse.ArgumentParser) -> None:
    command.add_argument("backbone", help="lite0, resnet50, timm:convnext_tiny, or a checkpoint's path")
    command.add_argument("--resize", type=int, metavar="PIXELS", help="of the shorter side")
    command.add_argument("--crop", type=int, metavar="PIXELS", help="of the centre square")
    command.add_argument("--architecture", help="of a checkpoint")
    command.add_argument("--weights", type=Path, metavar="FILE", help="instead of the network's own")


def _add_cache(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `cache ls`, `cache verify` and `cache gc` to the command line."""
    cache = commands.add_parser("cache", help="what is stored: list it, check it, tidy up")
    actions = cache.add_subparsers(dest="action", required=True)
    listing = actions.add_parser("ls", help="list the feature sets: of what, how large, when last used")
    check = actions.add_parser("verify", help="read everything and tell what is damaged")
    tidy = actions.add_parser("gc", help="remove what dead runs left, what is damaged, and what is asked for")
    tidy.add_argument(
        "--older-than", metavar="AGE", help="and sets not used for so long, such as 30d (h, d, w)"
    )
    tidy.add_argument(
        "--keep", metavar="SIZE", help="and the least lately used sets, until 10GB or so are left"
    )
    tidy.add_argument("--dry-run", action="store_true", help="only show what would be removed")
    for parser in (listing, check, tidy):
        _add_artifacts(parser)


def _add_artifacts(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--artifacts",
        type=Path,
        default=Path("artifacts"),
        metavar="DIR",
        help="the folder of outputs (default: artifacts)",
    )


if __name__ == "__main__":
    sys.exit(main())
