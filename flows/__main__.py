"""The command line. Prefect and torch are imported only when a study is about to run."""

import argparse
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from flows.arguments import parser
from flows.study import load_study
from tasks.core.errors import HeadstartError, RequestError

DONE, FAILED, WRONG_REQUEST = 0, 1, 2

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
    given = parser().parse_args(arguments)
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
    study, artifacts = load_study(given.study, given.set), _outputs(given)
    from flows.console import show_summary
    from flows.session import run_study

    show_summary(run_study(study, artifacts, hint=given.ui_hint), artifacts / "studies" / study.name)
    return DONE


def _outputs(given: argparse.Namespace) -> Path:
    """Have the folder for outputs."""
    artifacts: Path = given.artifacts.resolve()
    try:
        artifacts.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RequestError(
            f"{artifacts}: cannot be a folder for outputs ({error.strerror}); choose with --artifacts"
        ) from None
    return artifacts


def _plan(given: argparse.Namespace) -> int:
    from flows.plan import show_plan

    return show_plan(load_study(given.study, given.set), given.artifacts.resolve())


def _doctor(given: argparse.Namespace) -> int:
    from flows.doctor import show_doctor

    return show_doctor(load_study(given.study, given.set), _outputs(given))


def _ui(given: argparse.Namespace) -> int:
    from flows import server

    if given.stop:
        stopped = server.stop()
        print(
            f"stopped the server at {stopped.address}" if stopped else "no server of headstart ui is running"
        )
        return DONE
    artifacts = _outputs(given)
    running = server.start(artifacts, given.port)
    print(f"{running.address}  (runs report there from now on; headstart ui --stop ends it)")
    if running.artifacts != str(artifacts):
        print(f"it was started before, and links to the reports in {running.artifacts}")
    return DONE


def _serve(given: argparse.Namespace) -> int:
    from flows.serve import When, read_interval, serve_study

    interval = read_interval(given.interval) if given.interval else None
    when = When(given.cron, interval, given.timezone, given.watch, given.busy)
    serve_study(given.study, given.set, _outputs(given), when)
    return DONE


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


COMMANDS = {
    "run": _run,
    "plan": _plan,
    "doctor": _doctor,
    "serve": _serve,
    "ui": _ui,
    "cuts": _cuts,
    "cache": _cache,
}


if __name__ == "__main__":
    sys.exit(main())
