"""The words of the command line."""

import argparse
from pathlib import Path


def parser() -> argparse.ArgumentParser:
    """Make the parser of `headstart`."""
    parser = argparse.ArgumentParser(
        prog="headstart",
        description="Transfer learning as a pipeline with cached stages.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, told in (
        ("run", "run a study, or a folder with one sub-folder per class"),
        ("plan", "tell what a run would do, and why"),
        ("doctor", "check everything before a long run, and estimate its time"),
    ):
        command = commands.add_parser(name, help=told)
        _add_study(command)
        if name == "run":
            command.add_argument(
                "--no-ui-hint", dest="ui_hint", action="store_false", help="do not say how to have a UI"
            )
    _add_serve(commands.add_parser("serve", help="run a study on a schedule, or when its files change"))
    _add_ui(commands.add_parser("ui", help="start a server with a UI that shows the runs, or stop it"))
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


def _add_serve(command: argparse.ArgumentParser) -> None:
    _add_study(command)
    when = command.add_mutually_exclusive_group()
    when.add_argument("--cron", metavar="CRON", help='such as "0 3 * * *": every night at three')
    when.add_argument(
        "--interval", metavar="TIME", help="between the starts of two runs, such as 12h (s, m, h, d)"
    )
    command.add_argument(
        "--timezone", metavar="ZONE", help="such as Europe/Berlin; this machine's if not given"
    )
    command.add_argument("--watch", action="store_true", help="new or changed files start a run")
    command.add_argument(
        "--busy",
        choices=("queue", "skip"),
        default="queue",
        help="what becomes of a run that is due while another runs (default: queue)",
    )


def _add_ui(command: argparse.ArgumentParser) -> None:
    command.add_argument("--stop", action="store_true", help="stop the server")
    command.add_argument(
        "--port", type=int, metavar="PORT", help="default: 4200, or another if that is taken"
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
        "--older-than",
        metavar="AGE",
        help="and sets not used for so long, such as 30d (h, d, w); checkpoints go after a week in any case",
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
