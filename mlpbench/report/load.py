"""A study from the folder of results."""

from __future__ import annotations

from pathlib import Path

from mlpbench import tables
from mlpbench.report.study import Study


def load_study(name: str, results: Path) -> Study:
    """The study ``name``; its tables are made anew from the records, and written.

    Raises:
        UserError: there is no such study; the message has the close match.
        ProtocolError: a record cannot be read; the message names the file.
    """
    root = tables.find_study(name, results)
    return Study(name, root, *tables.write_all(root))
