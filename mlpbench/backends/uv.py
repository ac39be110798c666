"""uv, which builds environments: where it is, where it looks for packages, and what it says when it fails."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

from mlpbench.backends.pip_settings import uv_variables
from mlpbench.errors import UserError

Progress = Callable[[str], None]


def uv_command() -> str:
    """The uv that came with mlpbench.

    Raises:
        UserError: it is not there.
    """
    import uv

    try:
        return str(uv.find_uv_bin())
    except FileNotFoundError as error:
        raise UserError("uv, which builds environments, cannot be found", "Run: pip install uv") from error


def uv_version() -> str:
    """Version and place of the uv that builds environments.

    Raises:
        UserError: it is not there, or cannot be started.
    """
    command = uv_command()
    done = subprocess.run([command, "--version"], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise UserError(f"{command} cannot be started: {done.stderr.strip()}", "Run: pip install --force-reinstall uv")
    return f"{done.stdout.split()[1]}, {command}"


def run_uv(arguments: list[str], variables: dict[str, str], progress: Progress, folder: Path) -> None:
    """Run uv in ``folder``, its lines going to ``progress``.

    Raises:
        UserError: it fails; the message holds the last of what it said.
    """
    said: list[str] = []
    environment = {key: value for key, value in os.environ.items() if key not in ("VIRTUAL_ENV", "PYTHONPATH")}
    process = subprocess.Popen(
        [uv_command(), *arguments, "--no-progress"],
        cwd=folder, env={**environment, **variables}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, errors="replace",
    )  # fmt: skip
    assert process.stdout is not None
    try:
        for line in process.stdout:
            said.append(line.rstrip())
            if line.strip() and not line.startswith(" + "):  # the list of 100 packages helps nobody
                progress(f"  {line.rstrip()}")
        code = process.wait()
    except BaseException:
        process.terminate()
        process.wait()
        raise
    if code != 0:
        text = "\n  ".join([line for line in said if line.strip()][-25:])
        raise UserError(f"uv {' '.join(arguments[:2])} failed (exit code {code}):\n  {text}")


def source_variables(wheels: Path | None, offline: bool, progress: Progress) -> dict[str, str]:
    """uv's variables that say where packages come from."""
    variables = {"UV_PYTHON_DOWNLOADS": "never"}
    if offline:
        variables |= {"UV_OFFLINE": "1"}
    if wheels is not None and offline:
        # Nothing but the folder: the indexes and folders of another machine must not get in the way.
        nothing = {"UV_NO_INDEX": "1", "UV_NO_CONFIG": "1", "UV_INDEX": ""}
        return variables | nothing | {"UV_FIND_LINKS": str(wheels.absolute())}
    variables |= uv_variables(os.environ, progress)
    if wheels is not None:
        links = [
            variables.get("UV_FIND_LINKS") or os.environ.get("UV_FIND_LINKS", ""),
            str(wheels.absolute()),
        ]
        variables["UV_FIND_LINKS"] = ",".join(link for link in links if link)
        variables.setdefault("UV_INDEX_STRATEGY", os.environ.get("UV_INDEX_STRATEGY", "unsafe-best-match"))
    return variables
