"""The documented way onto a machine without a network, with two folders standing in for the two machines."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "mlpbench" / "docs" / "machines.md"
SECTION = "On a cluster without a network"


def commands(heading: str) -> list[str]:
    """The lines under the comment ``# heading`` of the section's first block of code, with the toy for MACE."""
    text = PAGE.read_text(encoding="utf-8").split(SECTION, 1)[1]
    block = re.search(r"```(?:sh|bash)\n(.*?)```", text, re.DOTALL)
    assert block, f"the section '{SECTION}' has no block of commands"
    parts = re.split(r"^# (.*)$", block.group(1), flags=re.MULTILINE)
    found = dict(zip(parts[1::2], parts[2::2], strict=True))
    return [line.split("  #")[0].strip().replace("mace", "toy") for line in found[heading].splitlines() if line.strip()]


def shell(command: str, folder: Path, environment: dict[str, str]) -> str:
    done = subprocess.run(command, shell=True, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


@pytest.mark.network
@pytest.mark.slow
def test_the_commands_of_the_page(tmp_path: Path) -> None:
    here, cluster = tmp_path / "here", tmp_path / "cluster"
    here.mkdir()
    cluster.mkdir()
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for command in commands("where there is a network"):
        shell(command, here, {**os.environ, "PATH": path, "MLPBENCH_HOME": str(here / "home")})
    assert any((here / "wheels").glob("mlpbench-*.whl"))

    shutil.move(here / "wheels", cluster / "wheels")
    # No network there: every index is cut off, and nothing of this machine's caches is at hand.
    interpreter = Path(sys.base_prefix) / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}"
    (cluster / "bin").mkdir()
    (cluster / "bin" / "python3.12").symlink_to(interpreter)
    offline = {
        "HOME": str(cluster), "PATH": f"{cluster / 'bin'}:/usr/bin:/bin", "UV_OFFLINE": "1",
        "UV_CACHE_DIR": str(cluster / "cache"), "PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": os.devnull,
        "MLPBENCH_HOME": str(cluster / "home"), "OMP_NUM_THREADS": "1", "LANG": "C.UTF-8",
    }  # fmt: skip
    for command in commands("on the cluster"):
        said = shell(command, cluster, offline)
    assert "trial" in said or "done" in said
    assert list((cluster / "home" / "envs").glob("toy-*"))
    assert list((cluster / "results").glob("*/*/record.json"))
