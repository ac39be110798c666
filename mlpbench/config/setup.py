"""Hydra made ready: its search path, the backends there are, and its global state for a moment."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from hydra import initialize_config_dir
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin

from mlpbench.backends.registry import backend_nodes
from mlpbench.config.places import conf_dirs, packaged_conf

CONFIG_NAME = "config"


class ConfSearchPath(SearchPathPlugin):
    """Puts the user's ``conf`` before the packaged one, so that one's own file of the same name wins."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Called by Hydra when it sets up."""
        for folder in reversed(conf_dirs()):
            search_path.prepend("mlpbench", f"file://{folder}")


def prepare_hydra() -> None:
    """Tell Hydra where configuration lies, and which backends there are. Safe to call again."""
    Plugins.instance().register(ConfSearchPath)
    ConfigStore.instance().store(group="backend", name="all", node=backend_nodes(conf_dirs()), provider="mlpbench")


@contextmanager
def hydra_state() -> Iterator[None]:
    """Hydra's global state, ours for a moment; inside another such block nothing is done."""
    if GlobalHydra.instance().is_initialized():
        yield
        return
    prepare_hydra()
    with initialize_config_dir(config_dir=str(packaged_conf()), version_base="1.3", job_name="mlpbench"):
        yield
