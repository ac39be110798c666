"""uv does not read pip's settings: what a user has told pip, but not uv, is translated."""

from __future__ import annotations

import configparser
import os
import sys
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import unquote, urlparse

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
            note(f"pip's settings name the {kind} {folder}, which is not there: left out")
        else:
            kept.append(entry)
    return kept


def _local(entry: str) -> Path | None:
    """The folder an entry means, or None if it lies elsewhere."""
    parsed = urlparse(entry)
    if parsed.scheme == "file":
        return Path(unquote(parsed.path))
    return None if parsed.scheme else Path(entry).expanduser()
