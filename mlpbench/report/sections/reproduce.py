"""How to repeat the study: its command lines, and the packages' own."""

from __future__ import annotations

import shlex
from typing import Any

from mlpbench.report.section import Block, Commands, Details, Section, Text
from mlpbench.study.study import Study, unique

ORDER = 93
NATIVE = 40  # command lines of single trials in the page; each trial's folder has its own


def build(study: Study) -> Section | None:
    """The commands that were typed, in order of first use."""
    commands = unique(
        [r["provenance"].get("command") for r in sorted(study.records, key=lambda r: str(r.get("started")))]
    )
    commits = unique([r["provenance"].get("commit") for r in study.records])
    blocks: list[Block] = []
    if commits:
        blocks.append(Commands([f"git checkout {commits[-1]}"], "With mlpbench at the commit of this study,"))
    blocks.append(Commands(commands or ["the records hold no command"], "these commands make the same trials:"))
    blocks.append(
        Commands([f"mlpbench report {shlex.quote(study.name)}"], "and this one writes this report from them:")
    )
    blocks.append(
        Text(
            "Trials on a CPU with a budget in epochs or steps are repeatable to the last digit on the same "
            "versions and processor; a budget in seconds is not.",
            role="note",
        )
    )
    native = [line for line in (_native(record) for record in study.records) if line]
    if native:
        shown = Commands(
            native[:NATIVE], "Each trial's folder holds the package's own configuration. Without mlpbench:"
        )
        blocks.append(Details("With the packages alone", [shown], paper=False))
    return Section("reproduce", "How to repeat this", "", blocks)


def _native(record: dict[str, Any]) -> str:
    command = (record.get("training") or {}).get("native_command")
    if not command:
        return ""
    line = command if isinstance(command, str) else shlex.join(str(part) for part in command)
    return f"# {record['trial']}\n{line}"
