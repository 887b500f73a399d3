"""The report's drawings as pictures of their own, for pages that take no drawing inside them."""

import base64
from typing import Any

from tasks.core.charts import curve_plot, depth_plot, history_plot
from tasks.core.history import alike
from tasks.core.report import templates

STYLE = """
text { font: 11px system-ui, sans-serif; fill: #5b6876 }
.grid { stroke: #c9ced4 }
.band { fill: #246bad; fill-opacity: .16 }
.way { fill: none; stroke: #246bad; stroke-width: 2; stroke-linejoin: round }
.spot { fill: #246bad }
@media (prefers-color-scheme: dark) {
  text { fill: #9aa6b2 } .grid { stroke: #333b44 } .band, .spot { fill: #5ca3e5 } .way { stroke: #5ca3e5 }
}
"""


def plots(summary: dict[str, Any]) -> dict[str, str]:
    """Draw what of a run is better seen than read.

    Args:
        summary: as `summary.json` holds it.

    Returns:
        A title -> a data URI of an SVG picture; nothing where there are fewer than two points.
    """
    draw: Any = templates().get_template("report_macros.html.j2").module
    curve, runs, drawn = summary["learning_curve"], alike(summary["history"]), {}
    verdict = summary.get("verdict")
    if verdict and (depths := depth_plot(verdict["cells"], verdict["chosen"])):
        drawn[f"{verdict['metric']} of each depth over training samples"] = draw.depth_drawing(
            depths, verdict["metric"]
        )
    if curve and (plot := curve_plot(curve["points"])):
        drawn[f"{curve['metric']} over training samples"] = draw.curve_drawing(plot, curve)
    if plot := history_plot(runs):
        metric = summary["headline"]
        drawn[f"{metric} from run to run"] = draw.history_drawing(plot, runs, metric)
    return {title: _picture(str(svg)) for title, svg in drawn.items()}


def _picture(drawing: str) -> str:
    """Make a drawing stand alone, and spell it as a data URI."""
    head, rest = drawing.strip().split(">", 1)
    alone = head.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
    tones = templates().get_template("report_tones.html.j2").render()
    text = f"{alone}><style>{STYLE}{tones}</style>{rest}"
    return "data:image/svg+xml;base64," + base64.b64encode(text.encode()).decode()
