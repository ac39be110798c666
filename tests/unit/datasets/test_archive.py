"""Archives: unpacked once, never outside their folder, never without bound."""

from __future__ import annotations

import io
import tarfile
import zipfile

import pytest

from mlpbench.datasets.download import extract
from mlpbench.errors import UserError


def tar(path, members):
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            if isinstance(content, bytes):
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
            else:
                member.type, member.linkname = content
                archive.addfile(member)
    return path


def test_zip_and_tar(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("folder/x.txt", "hello")
    assert (extract(tmp_path / "a.zip") / "folder" / "x.txt").read_text() == "hello"
    path = tar(tmp_path / "b.tar.gz", {"folder/x.txt": b"hello"})
    first = extract(path)
    assert (first / "folder" / "x.txt").read_text() == "hello"
    assert extract(path) == first


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "a/../../evil", "..\\evil", "C:\\evil"])
def test_no_member_lands_outside(tmp_path, name):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(name, "x")
    for path in (tmp_path / "a.zip", tar(tmp_path / "b.tar.gz", {name: b"x"})):
        with pytest.raises(UserError, match="outside the folder"):
            extract(path)
        assert not path.with_name(path.name + ".d").exists()
    assert not (tmp_path.parent / "evil").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE])
def test_no_links_or_devices(tmp_path, kind):
    path = tar(tmp_path / "b.tar.gz", {"x": (kind, "/etc/passwd")})
    with pytest.raises(UserError, match="link or device"):
        extract(path)


def test_no_links_in_a_zip(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        member = zipfile.ZipInfo("x")
        member.external_attr = 0o120777 << 16
        archive.writestr(member, "/etc/passwd")
    with pytest.raises(UserError, match="holds a link"):
        extract(tmp_path / "a.zip")


def test_a_bomb_is_stopped_while_unpacking(tmp_path):
    path = tar(tmp_path / "b.tar.gz", {"zeros": bytes(5_000_000)})
    with pytest.raises(UserError, match="more than the limit"):
        extract(path, max_bytes=1_000_000)
    assert [p.name for p in tmp_path.iterdir()] == ["b.tar.gz"]


def test_a_damaged_archive_leaves_nothing(tmp_path):
    path = tar(tmp_path / "b.tar.gz", {"x": bytes(range(256)) * 1000})
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(UserError, match="damaged archive"):
        extract(path)
    (tmp_path / "page.zip").write_text("<html>")
    with pytest.raises(UserError, match="neither zip nor tar"):
        extract(tmp_path / "page.zip")
    assert {p.name for p in tmp_path.iterdir()} == {"b.tar.gz", "page.zip"}
