"""The manifest of ELPV, 2,624 photographs of solar cells by electroluminescence (Buerhop-Lutz et al. 2018).

The pictures and labels come with the package `elpv-dataset` (CC BY-NC-SA 4.0); nothing of it is kept here.
"""

from importlib.util import find_spec
from pathlib import Path

import pandas as pd

from tasks.core.errors import RequestError

NEIGHBOURS = 60
"""Cells of a module, about. Module ids are not published, but the files lie in module order."""


def manifest() -> pd.DataFrame:
    """List the cells by the protocol of Deitsch et al. 2019.

    Returns:
        `path`; `probability` of a defect as the labellers gave it and `type` of the cell; `defective`,
        1 where the probability is above zero; `weight`, the probability, or 1 where that is zero; `agreed_defect`,
        1 or 0 where the labellers were sure, else unknown; `polycrystalline`, 1 or 0;
        `neighbours`, a stand-in for the module: 60 cells that lie side by side within a run of one type.
    """
    found = find_spec("elpv_dataset")
    if found is None or found.origin is None:
        raise RequestError(
            "package elpv-dataset holds the solar cells and is not installed; run: pip install elpv-dataset"
        )
    folder = Path(found.origin).parent / "data"
    cells = pd.read_csv(folder / "labels.csv", sep=r"\s+", header=None, names=["path", "probability", "type"])
    run = (cells["type"] != cells["type"].shift()).cumsum()
    within = cells.groupby(run).cumcount() // NEIGHBOURS
    return pd.DataFrame(
        {
            "path": [str(folder / path) for path in cells["path"]],
            "probability": cells["probability"].round(2),
            "type": cells["type"],
            "defective": (cells["probability"] > 0).astype(int),
            "weight": cells["probability"].where(cells["probability"] > 0, 1.0),
            "agreed_defect": cells["probability"].map({0.0: "0", 1.0: "1"}).fillna("?"),
            "polycrystalline": (cells["type"] == "poly").astype(int),
            "neighbours": run.astype(str) + "-" + within.astype(str),
        }
    )
