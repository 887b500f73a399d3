"""What `headstart cuts BACKBONE` prints: where a network falls in two, and what each place costs."""

from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table

from tasks.core.backbones import find_backbone
from tasks.core.taps import LAST

if TYPE_CHECKING:
    from tasks.core.graph import Cut

WIDTH = 100
"""A table is never folded narrower than this, whatever the terminal says."""

STORED_BYTES = 2
"""Features are kept as float16."""


def show_cuts(
    name: str,
    *,
    resize: int | None = None,
    crop: int | None = None,
    architecture: str | None = None,
    weights: Path | None = None,
) -> None:
    """Print a backbone's cuts, or the modules that can be tapped if it cannot be traced.

    No weights are loaded or downloaded.

    Args:
        name: the backbone, and the rest, as `find_backbone` takes them.
        resize: pixels of the shorter side.
        crop: pixels of the centre square.
        architecture: of a checkpoint.
        weights: a file.

    Raises:
        RequestError: if there is no such backbone.
    """
    backbone = find_backbone(name, resize=resize, crop=crop, architecture=architecture, weights=weights)
    from tasks.core.graph import CannotTrace, describe_cuts, trace  # torch
    from tasks.core.networks import outline

    console = Console(highlight=False, soft_wrap=True, markup=False)
    console.width = max(console.width, WIDTH)
    network = outline(backbone)
    try:
        traced = trace(network)
    except CannotTrace as reason:
        modules = ", ".join(module for module, _ in network.named_modules() if module)
        console.print(f"{reason}, so it has no cuts; these modules can be tapped: {modules}")
        return
    side = backbone.preprocessing.crop
    console.print(f"{backbone.name} ({backbone.architecture}) on {side} x {side} pixels")
    console.print(_table(describe_cuts(traced, side)))
    last = traced.cut_name(backbone.last)
    if last != LAST:
        console.print(
            f"last: {last or 'the input of the classifier, where the network does not fall in two'}"
        )


def _table(cuts: Sequence["Cut"]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("cut", no_wrap=True)
    for heading in ("activation", "KB a sample", "FLOPs before", "parameters after"):
        table.add_column(heading, justify="right", no_wrap=True)
    for cut in cuts:
        table.add_row(
            cut.name,
            " x ".join(str(side) for side in cut.shape),
            f"{prod(cut.shape) * STORED_BYTES / 1000:,.1f}",
            f"{100 * cut.flops:.1f} %",
            f"{cut.parameters:,}",
        )
    return table
