"""Stage 1: the manifest or folder becomes a table of checked samples, known by their digests."""

from pathlib import Path

import pandas as pd

from tasks.caching import stage
from tasks.core.artifacts import Artifacts
from tasks.core.digest import digest_value
from tasks.core.errors import check_place
from tasks.core.manifest import list_samples, locate
from tasks.core.samples import Source, assemble, check_enough, examine, table_identity
from tasks.core.tables import read_table, write_table
from tasks.progress import Progress
from tasks.references import Samples


@stage("samples")
def read_samples(study: str, source: Source, artifacts: Artifacts) -> Samples:
    """List, digest and check the samples; files unchanged since the last run are not read.

    Raises:
        RequestError: if there are too few usable samples. The quarantine list is written before.
        Unreachable: if the data folder does not answer, or is empty.
    """
    check_place(source.root)
    frame = list_samples(source.place, source.columns.names())
    places, problems = locate(frame["path"].tolist(), source.root)
    with Progress(f"{study}: read samples", len(places)) as progress:
        examined, read = examine(places, problems, artifacts, progress.advance_to)
    table, quarantine = assemble(frame, places, examined, source.columns)
    listed = artifacts.study(study) / "quarantine.csv"
    write_table(listed, quarantine)
    check_enough(table, quarantine, len(frame), most_bad=source.most_bad)
    return _store_table(table, listed, quarantined=len(quarantine), read=read, artifacts=artifacts)


@stage("set-aside")
def set_aside(
    study: str, samples: Samples, failed: dict[str, str], source: Source, artifacts: Artifacts
) -> Samples:
    """Quarantine samples that could not be read when their turn came, and go on without them.

    Raises:
        RequestError: if too few usable samples are left.
    """
    table = read_table(samples.table)
    bad = table["digest"].isin(list(failed))
    late = pd.DataFrame({"path": table["path"][bad], "reason": table["digest"][bad].map(failed)})
    quarantine = pd.concat([read_table(samples.quarantine), late], ignore_index=True)
    write_table(samples.quarantine, quarantine)
    rows = samples.total + samples.quarantined
    check_enough(table[~bad], quarantine, rows, most_bad=source.most_bad)
    left = table[~bad].reset_index(drop=True)
    return _store_table(
        left, samples.quarantine, quarantined=len(quarantine), read=samples.read, artifacts=artifacts
    )


def _store_table(
    table: pd.DataFrame, quarantine: Path, *, quarantined: int, read: int, artifacts: Artifacts
) -> Samples:
    """Keep a table of samples under the digest of its content."""
    place = artifacts.samples / f"{digest_value(table.to_dict('list'))}.csv"
    if not place.is_file():
        write_table(place, table)
    return Samples(
        table=place,
        identity=table_identity(table),
        rows=digest_value(table["digest"].tolist()),
        total=len(table),
        read=read,
        quarantine=quarantine,
        quarantined=quarantined,
        classes=sorted(set(table["label"]) - {""}) if "label" in table else [],
    )
