"""A study from the folder of results."""

from __future__ import annotations

from pathlib import Path

from mlpbench import tables
from mlpbench.report.study import Study
from mlpbench.statistics.paired import MARGIN


def load_study(name: str, results: Path, margin: float = MARGIN) -> Study:
    """The study ``name``; its tables are made anew from the records, and written.

    Args:
        name: of the study.
        results: folder of the results.
        margin: relative difference that does not matter.

    Raises:
        UserError: there is no such study; the message has the close match.
        ProtocolError: a record cannot be read; the message names the file.
    """
    root = tables.find_study(name, results)
    return Study(name, root, *tables.write_all(root), margin)
