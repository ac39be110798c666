"""The downloader against a local server that misbehaves in every way that real ones do."""

from __future__ import annotations

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from mlpbench.datasets import download
from mlpbench.datasets.download import checksums, fetch
from mlpbench.datasets.schema import Download
from mlpbench.errors import UserError

CONTENT = bytes(range(256)) * 4096  # 1 MiB
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves CONTENT; ``faults`` are used up one by one, then it behaves."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.faults: list[str] = []
        self.ranges: list[str | None] = []
        self.honours_range = True
        self.content = CONTENT


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing on the terminal."""

    def do_GET(self) -> None:
        server = self.server
        asked = self.headers.get("Range")
        server.ranges.append(asked)
        fault = server.faults.pop(0) if server.faults else ""
        if fault.isdigit():
            self.send_response(int(fault))
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and server.honours_range else 0
        if start >= len(server.content):
            self.send_error(416)
            return
        body = server.content[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if fault == "dies":
            body = body[: len(body) // 2]
        self.wfile.write(body)
        if fault == "dies":
            self.wfile.flush()
            self.connection.close()


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(download, "WAIT_SECONDS", 0.01)
    monkeypatch.delenv("MLPBENCH_OFFLINE", raising=False)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    running = Server()
    thread = threading.Thread(target=running.serve_forever, daemon=True)
    thread.start()
    yield running
    running.shutdown()
    running.server_close()
    thread.join()


def item(server: Server, **values: Any) -> Download:
    url = f"http://127.0.0.1:{server.server_port}/set.bin"
    return Download.model_validate({"url": url, "filename": "set.bin", "sha256": SHA256, **values})


def parts(folder) -> list[str]:
    return [p.name for p in folder.iterdir() if p.name.endswith(".part")]


def test_downloads_verifies_and_asks_no_second_time(server, tmp_path):
    seen = []
    path = fetch(item(server), tmp_path, lambda name, done, total: seen.append((done, total)))
    assert path.read_bytes() == CONTENT
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert fetch(item(server), tmp_path) == path
    assert len(server.ranges) == 1
    assert parts(tmp_path) == []


def test_a_server_that_dies_half_way_is_resumed(server, tmp_path):
    server.faults = ["dies"]
    assert fetch(item(server), tmp_path).read_bytes() == CONTENT
    assert server.ranges == [None, f"bytes={len(CONTENT) // 2}-"]


def test_an_interrupted_download_goes_on_in_the_next_call(server, tmp_path):
    server.faults = ["dies", "503", "503", "503"]
    with pytest.raises(UserError, match=r"4 attempts failed.*524288 bytes are kept"):
        fetch(item(server), tmp_path)
    assert not (tmp_path / "set.bin").exists()
    assert fetch(item(server), tmp_path).read_bytes() == CONTENT
    assert server.ranges[-1] == "bytes=524288-"


def test_a_server_without_ranges_starts_again(server, tmp_path):
    server.honours_range, server.faults = False, ["dies"]
    assert fetch(item(server), tmp_path).read_bytes() == CONTENT


def test_a_part_that_is_too_long_is_thrown_away(server, tmp_path):
    (tmp_path / ".set.bin.part").write_bytes(b"x" * (len(CONTENT) + 5))
    assert fetch(item(server), tmp_path).read_bytes() == CONTENT


def test_a_foreign_part_fails_the_checksum_and_is_removed(server, tmp_path):
    (tmp_path / ".set.bin.part").write_bytes(b"x" * 1000)
    with pytest.raises(UserError, match="expected " + SHA256):
        fetch(item(server), tmp_path)
    assert parts(tmp_path) == []
    assert fetch(item(server), tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize(
    "wrong", [{"sha256": "0" * 64}, {"sha256": "unverified", "sha256_starts": "0" * 12}, {"git_blob": "0" * 40}]
)
def test_a_wrong_checksum_is_never_used(server, tmp_path, wrong):
    with pytest.raises(UserError, match=r"set\.bin: .* expected 0000"):
        fetch(item(server, **wrong), tmp_path)
    assert not (tmp_path / "set.bin").exists()


def test_all_kinds_of_checksum_together(server, tmp_path):
    (tmp_path / "x").write_bytes(CONTENT)
    known = {"git_blob": checksums(tmp_path / "x")["git_blob"], "sha256_starts": SHA256[:12]}
    assert fetch(item(server, **known), tmp_path).exists()


def test_git_blob_is_gits(tmp_path):
    (tmp_path / "x").write_bytes(b"hello\n")
    assert checksums(tmp_path / "x")["git_blob"] == "ce013625030ba8dba906f756967f9e9ca394464a"  # git hash-object


def test_404_says_where_to_put_the_file_by_hand(server, tmp_path):
    server.faults = ["404"]
    with pytest.raises(UserError, match="answers 404") as caught:
        fetch(item(server), tmp_path)
    assert str(tmp_path / "set.bin") in str(caught.value)
    assert len(server.ranges) == 1  # asking again would not help


def test_202_without_a_file_is_not_the_file(server, tmp_path):
    server.faults = ["202"]
    assert fetch(item(server), tmp_path).read_bytes() == CONTENT


def test_a_size_that_cannot_be_right_ends_at_once(server, tmp_path):
    with pytest.raises(UserError, match="offers 1048576 bytes, expected 77"):
        fetch(item(server, size_bytes=77), tmp_path)


def test_unknown_checksum_is_recorded_told_and_held_to(server, tmp_path):
    said: list[str] = []
    unknown = item(server, sha256="unverified")
    path = fetch(unknown, tmp_path, say=said.append)
    assert len(said) == 1
    assert SHA256 in said[0]
    fetch(unknown, tmp_path, say=said.append)
    assert len(said) == 1
    path.write_bytes(b"something else")
    with pytest.raises(UserError, match="was recorded when it was first used"):
        fetch(unknown, tmp_path, say=said.append)


def test_offline_names_the_file_and_the_place(server, tmp_path, monkeypatch):
    monkeypatch.setenv("MLPBENCH_OFFLINE", "1")
    with pytest.raises(UserError, match="MLPBENCH_OFFLINE") as caught:
        fetch(item(server), tmp_path)
    assert str(tmp_path / "set.bin") in str(caught.value)
    (tmp_path / "set.bin").write_bytes(CONTENT)  # put there by hand
    assert fetch(item(server), tmp_path).exists()
    assert server.ranges == []


def test_a_wrong_file_put_there_by_hand_is_refused(server, tmp_path):
    (tmp_path / "set.bin").write_bytes(b"a web page")
    with pytest.raises(UserError, match="was altered"):
        fetch(item(server), tmp_path)
    assert (tmp_path / "set.bin").exists()  # it is the user's: never removed


def test_two_at_once_download_once(server, tmp_path):
    threads = [threading.Thread(target=fetch, args=(item(server), tmp_path)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "set.bin").read_bytes() == CONTENT
    assert len(server.ranges) == 1


def test_no_server_at_all(tmp_path, monkeypatch):
    monkeypatch.setattr(download, "WAIT_SECONDS", 0.01)
    monkeypatch.delenv("MLPBENCH_OFFLINE", raising=False)
    nobody = Download(url="http://127.0.0.1:9/set.bin", filename="set.bin", sha256=SHA256)
    with pytest.raises(UserError, match="4 attempts failed"):
        fetch(nobody, tmp_path)
