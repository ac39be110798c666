"""Folders of configuration, and Hydra made ready to read them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hydra import initialize_config_dir
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin

from mlpbench.acquisition import known_acquisitions
from mlpbench.backends.registry import backend_nodes, outside_packages
from mlpbench.errors import UserError

CONFIG_NAME = "config"


def packaged_conf() -> Path:
    """The ``conf`` folder that belongs to this installation: in the wheel, or at the top of the repository."""
    inside = Path(__file__).parents[1] / "conf"
    return inside if inside.is_dir() else Path(__file__).parents[2] / "conf"


def conf_dirs() -> list[Path]:
    """Folders with configuration, the first wins.

    ``$MLPBENCH_CONF`` or ``./conf``, then the packaged one, then those of outside packages that bring a backend.

    Raises:
        UserError: ``$MLPBENCH_CONF`` is set, but no folder; or see
            :func:`~mlpbench.backends.registry.outside_packages`.
    """
    packaged = packaged_conf()
    named = os.environ.get("MLPBENCH_CONF")
    own = Path(named) if named else Path("conf")
    if named and not own.is_dir():
        raise UserError(f"MLPBENCH_CONF is '{named}', which is not a folder", "Unset it, or run: mlpbench init DIR")
    has_groups = own.is_dir() and any((own / group.name).is_dir() for group in packaged.iterdir() if group.is_dir())
    installed = [packaged, *(folder / "conf" for folder in outside_packages().values())]
    if has_groups and own.resolve() not in [folder.resolve() for folder in installed]:
        return [own.resolve(), *installed]
    return installed


def acquired_conf(results: Path) -> Path:
    """The folder of configuration for data sets that explorations made, below the folder of the studies."""
    return results / ".registry"


class ConfSearchPath(SearchPathPlugin):
    """Puts the user's ``conf`` before the packaged one, so that one's own file of the same name wins; behind both what
    explorations made in ``results``.
    """

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Called by Hydra when it sets up."""
        for folder in reversed(conf_dirs()):
            search_path.prepend("mlpbench", f"file://{folder}")
        acquired = acquired_conf(Path("results"))
        if acquired.is_dir():
            search_path.append("mlpbench", f"file://{acquired.resolve()}")


def prepare_hydra() -> None:
    """Tell Hydra where configuration lies, and which backends there are. Safe to call again."""
    Plugins.instance().register(ConfSearchPath)
    _store_acquisitions()
    ConfigStore.instance().store(group="backend", name="all", node=backend_nodes(conf_dirs()), provider="mlpbench")


def _store_acquisitions() -> None:
    """Each acquisition of another package is an option of its group, with the common settings."""
    files = {path.stem for folder in conf_dirs() for path in (folder / "acquisition").glob("*.yaml")}
    for kind in known_acquisitions().keys() - files:
        node = {"defaults": ["_base", "_self_"], "kind": kind}
        ConfigStore.instance().store(group="acquisition", name=kind, node=node, provider="mlpbench")


@contextmanager
def hydra_state() -> Iterator[None]:
    """Hydra's global state, ours for a moment; inside another such block nothing is done."""
    if GlobalHydra.instance().is_initialized():
        yield
        return
    prepare_hydra()
    with initialize_config_dir(config_dir=str(packaged_conf()), version_base="1.3", job_name="mlpbench"):
        yield
