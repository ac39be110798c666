"""uv, which builds environments: where it looks for packages, and what it says when it fails."""

from __future__ import annotations

import configparser
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import unquote, urlparse

from mlpbench.errors import UserError

Note = Callable[[str], None]

_UV_SOURCES = (
    "UV_INDEX", "UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS", "UV_NO_INDEX",
)  # fmt: skip
_TOML_SOURCES = ("index", "index-url", "extra-index-url", "find-links", "no-index")


def uv_variables(environment: Mapping[str, str], note: Note) -> dict[str, str]:
    """Variables that make uv look where pip would; empty where uv has settings of its own.

    With more than one place uv takes a package from the first that has any version of it, so an extra folder
    with one wheel for another Python hides the right one: ``UV_INDEX_STRATEGY=unsafe-best-match`` chooses
    as pip.

    Args:
        environment: variables of this process.
        note: called with a line on each folder that is named but not there (uv would stop at it).
    """
    variables: dict[str, str] = {}
    settings = pip_settings(environment)
    if "cert" in settings and "SSL_CERT_FILE" not in environment:
        variables["SSL_CERT_FILE"] = settings["cert"]
    if "timeout" in settings and "UV_HTTP_TIMEOUT" not in environment:
        variables["UV_HTTP_TIMEOUT"] = settings["timeout"]
    if any(environment.get(name) for name in _UV_SOURCES) or _uv_file_names_sources(environment):
        return variables
    if "index-url" in settings:
        variables["UV_DEFAULT_INDEX"] = settings["index-url"].strip()
    extra = _existing(settings.get("extra-index-url", ""), "extra index", note)
    links = _existing(settings.get("find-links", ""), "folder of wheels", note)
    if extra:
        variables["UV_INDEX"] = " ".join(extra)
    if links:
        variables["UV_FIND_LINKS"] = ",".join(links)
    if settings.get("no-index", "").strip().lower() in ("1", "true", "yes", "on"):
        variables["UV_NO_INDEX"] = "1"
    if "trusted-host" in settings and "UV_INSECURE_HOST" not in environment:
        variables["UV_INSECURE_HOST"] = " ".join(settings["trusted-host"].split())
    if (extra or links) and "UV_INDEX_STRATEGY" not in environment:
        variables["UV_INDEX_STRATEGY"] = "unsafe-best-match"
    return variables


def pip_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """pip's settings from its files in their order, then from ``PIP_*`` variables."""
    settings: dict[str, str] = {}
    for path in _pip_files(environment):
        parser = configparser.RawConfigParser()
        try:
            parser.read(path, encoding="utf-8")
        except (configparser.Error, UnicodeDecodeError):
            continue  # pip itself will complain of it; uv need not fail for it
        for section in ("global", "install"):
            if parser.has_section(section):
                settings |= {key.replace("_", "-"): value for key, value in parser.items(section)}
    for key, value in environment.items():
        if key.startswith("PIP_") and value:
            settings[key.removeprefix("PIP_").lower().replace("_", "-")] = value
    return settings


def _pip_files(environment: Mapping[str, str]) -> list[Path]:
    """Where pip looks, least important first (pip's documentation, "Configuration files")."""
    named = environment.get("PIP_CONFIG_FILE")
    if named == os.devnull:
        return []
    own = Path(environment.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "pip" / "pip.conf"
    files = [Path("/etc/xdg/pip/pip.conf"), Path("/etc/pip.conf"), Path.home() / ".pip" / "pip.conf", own]
    if sys.platform == "darwin":
        files.append(Path.home() / "Library" / "Application Support" / "pip" / "pip.conf")
    files.append(Path(sys.prefix) / "pip.conf")
    return [*files, Path(named)] if named else files


def _uv_file_names_sources(environment: Mapping[str, str]) -> bool:
    config = Path(environment.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    named = environment.get("UV_CONFIG_FILE")
    for path in [Path(named)] if named else [config / "uv" / "uv.toml", Path("/etc/uv/uv.toml")]:
        try:
            content = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
            continue  # not there, or uv's own message about it will be the better one
        if any(key in content or key in content.get("pip", {}) for key in _TOML_SOURCES):
            return True
    return False


def _existing(value: str, kind: str, note: Note) -> list[str]:
    """The entries of a white-space separated list, without folders that are not there."""
    kept = []
    for entry in value.split():
        folder = _local(entry)
        if folder is not None and not folder.exists():
            note(f"pip's settings name the {kind} {folder}, which does not exist: ignored")
        else:
            kept.append(entry)
    return kept


def _local(entry: str) -> Path | None:
    """The folder an entry means, or None if it lies elsewhere."""
    parsed = urlparse(entry)
    if parsed.scheme == "file":
        return Path(unquote(parsed.path))
    return None if parsed.scheme else Path(entry).expanduser()


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
