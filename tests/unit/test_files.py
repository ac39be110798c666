"""Names, locks and clear words about disks."""

from __future__ import annotations

import errno
import fcntl
from pathlib import Path
from typing import Any

import pytest

from mlpbench import files
from mlpbench.errors import UserError
from mlpbench.files import locked, problem_of, slug, told
from mlpbench.protocol import replacing


def test_a_slug_is_one_safe_name_and_no_two_names_share_one() -> None:
    assert slug("ethanol") == "ethanol"
    names = ["a/b", "a_b", "a b", "..", ".a", "x" * 300, "x" * 299 + "y", "", "rMD17:ethanol", "été λ"]
    made = [slug(name) for name in names]
    assert len(set(made)) == len(made)
    for name in made:
        assert name
        assert "/" not in name
        assert not name.startswith(".")
        assert len(name) <= 60


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS])
def test_a_file_system_without_locks_is_named_and_never_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(number, "not here")

    files._probe_locks.cache_clear()
    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(UserError, match="has no file locks"), locked(tmp_path / "new" / ".lock"):
        pass
    files._probe_locks.cache_clear()


def test_a_held_lock_is_refused_at_once_and_free_afterwards(tmp_path: Path) -> None:
    again = locked(tmp_path / ".lock", wait=False, busy="somebody has it")
    with locked(tmp_path / ".lock"), pytest.raises(UserError, match="somebody"), again:
        pass
    with locked(tmp_path / ".lock", wait=False):
        pass


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT])
def test_what_a_user_can_change_about_a_disk_is_said(number: int) -> None:
    with pytest.raises(UserError, match="/somewhere") as caught, told():
        raise OSError(number, "words of the system", "/somewhere")
    assert caught.value.hint
    assert problem_of(OSError(errno.EINVAL, "a fault of ours")) is None


def test_a_file_is_replaced_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with replacing(path) as part:
        part.write_text("first")
    with pytest.raises(TypeError), replacing(path) as part:
        part.write_text(3)  # type: ignore[arg-type]
    assert path.read_text() == "first"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]
