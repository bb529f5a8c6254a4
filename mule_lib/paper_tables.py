"""The paper's own tables and radar from its printed numbers alone, every one labelled reported."""

from pathlib import Path

from mule_lib import figures, figures_radar, figures_runs, tables, tables_readable
from mule_lib.paper import REPORTED


class PaperTablesError(ValueError):
    """The folder belongs to a suite, whose tables of the same names would be replaced."""


def write(folder: Path) -> list[Path]:
    """Write Tables 1 to 3 into `folder`/tables, the radar and Overall of Tables 1 and 3 into `folder`/figures.

    Returns all files, the tables first. Raises PaperTablesError for a folder that holds measured tables.
    """
    if (folder / "runs").exists():
        raise PaperTablesError(f"--out {folder}: holds a suite's runs, whose tables would be replaced; choose another")
    files = []
    for name in REPORTED:
        files += tables_readable.write(tables.reported_table(name), folder / "tables")
    for name in ("table1", "table3"):
        table = tables.reported_table(name)
        data = figures_radar.radar_data(table)
        alt = figures_radar.radar_finding(data)
        stem = "figure3" if name == "table3" else "radar_table1"
        figures.save(figures_radar.radar(data), folder / "figures", stem, data=data, alt=alt)
        data = figures_runs.overall_data(table)
        titles = figures_runs.source_titles(table)
        alt = figures_runs.overall_finding(data, **titles)
        overall = f"overall_{name}"
        figures.save(figures_runs.overall_dots(data, **titles), folder / "figures", overall, data=data, alt=alt)
        files += [folder / "figures" / f"{each}.{s}" for each in (stem, overall) for s in ("png", "pdf", "csv", "txt")]
    return files
