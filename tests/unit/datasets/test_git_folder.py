"""A folder of a git repository: only that folder comes, every file of it is verified, and nothing is left behind."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from mlpbench.datasets import git_folder
from mlpbench.datasets.download import fetch
from mlpbench.datasets.registry import trust
from mlpbench.datasets.schema import DatasetConfig, Download
from mlpbench.errors import UserError

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


def git(folder: Path, *words: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    return subprocess.run(["git", *identity, *words], cwd=folder, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def item(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Download:
    """A repository with the folder ``data/set`` and much else, served as public servers do."""
    monkeypatch.delenv("MLPBENCH_OFFLINE", raising=False)
    root = tmp_path / "server"
    for name, text in {
        "data/set/a/1.json": "{}",
        "data/set/a.b": "x",
        "data/set/b/2.json": "[]",
        "big.txt": "no" * 9,
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    git(root, "init", "-q")
    git(root, "add", ".")
    git(root, "commit", "-q", "-m", "first")
    git(root, "config", "uploadpack.allowFilter", "true")
    git(root, "config", "uploadpack.allowAnySHA1InWant", "true")
    commit, tree = git(root, "rev-parse", "HEAD").strip(), git(root, "rev-parse", "HEAD:data/set").strip()
    (root / "later.txt").write_text("later")
    git(root, "add", ".")
    git(root, "commit", "-q", "-m", "second")
    return Download(
        url=root.as_uri(), filename="set", git_folder="data/set", git_commit=commit, git_tree=tree, address="verified"
    )


def test_the_folder_alone_comes_and_is_verified(item, tmp_path):
    cache = tmp_path / "cache"
    target = fetch(item, cache)
    files = sorted(str(path.relative_to(cache)) for path in cache.rglob("*") if path.is_file())
    assert [name for name in files if not name.startswith(".")] == ["set/a.b", "set/a/1.json", "set/b/2.json"]
    assert not [path for path in cache.iterdir() if path.is_dir() and path.name != "set"]
    assert git_folder.tree_id(target) == item.git_tree  # git's own id, computed by git for the server
    shutil.rmtree(tmp_path / "server")
    assert fetch(item, cache) == target  # no server needed any more


def test_a_folder_put_there_by_hand_is_verified(item, tmp_path):
    shutil.copytree(tmp_path / "server" / "data" / "set", tmp_path / "cache" / "set")
    (tmp_path / "cache" / "set" / ".DS_Store").write_text("a file manager was here")
    assert fetch(item, tmp_path / "cache").is_dir()
    (tmp_path / "cache" / "set" / "b" / "2.json").write_text("{}")
    with pytest.raises(UserError, match=r"expected " + str(item.git_tree) + r"[\s\S]*Remove .*cache/set"):
        fetch(item, tmp_path / "cache")
    shutil.rmtree(tmp_path / "cache" / "set")
    (tmp_path / "cache" / "set").write_text("a web page")
    with pytest.raises(UserError, match="expected a folder"):
        fetch(item, tmp_path / "cache")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"git_tree": "0" * 40}, "expected 0000"), ({"git_commit": "0" * 40}, "git could not fetch data/set")],
)
def test_what_is_not_as_published_is_never_used(item, tmp_path, wrong, message):
    with pytest.raises(UserError, match=message):
        fetch(item.model_copy(update=wrong), tmp_path / "cache")
    assert not [path for path in (tmp_path / "cache").iterdir() if path.is_dir()]


def test_without_git_or_network_the_user_learns_what_to_do(item, tmp_path, monkeypatch):
    by_hand = r"get the folder data/set of file://.* by hand and put it at .*cache/set"
    with pytest.raises(UserError, match=by_hand):
        fetch(item.model_copy(update={"url": "file:///nowhere", "git_folder": "data/set"}), tmp_path / "cache")
    monkeypatch.setattr(git_folder.shutil, "which", lambda name: None)
    with pytest.raises(UserError, match=r"needs git[\s\S]*" + by_hand):
        fetch(item, tmp_path / "cache")
    monkeypatch.setenv("MLPBENCH_OFFLINE", "1")
    with pytest.raises(UserError, match=r"MLPBENCH_OFFLINE[\s\S]*data/set"):
        fetch(item, tmp_path / "cache")


def test_all_three_or_none():
    with pytest.raises(ValueError, match="all three"):
        Download(url="https://example.org/a.git", filename="a", git_folder="a")


def test_a_tree_counts_as_a_checksum(item):
    values = {"name": "x", "kind": "download", "n_train": 1, "n_valid": 1, "downloads": [item]}
    assert trust(DatasetConfig.model_validate(values)) == "git tree"
