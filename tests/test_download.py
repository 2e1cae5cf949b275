"""Downloads from servers that break off, ignore ranges, send wrong or endless files; and what later runs continue."""

import contextlib
import hashlib
import http.server
import os
import socket
import threading
import time
import tracemalloc

import numpy as np
import pytest
from sample_files import limit_file_size

from toolkit.errors import UserError
from toolkit.files import download as downloads
from toolkit.files.download import download

DATA = np.random.default_rng(0).bytes(300_000)
WRONG = DATA[:-1] + bytes([DATA[-1] ^ 1])
SHA256, MD5 = hashlib.sha256(DATA).hexdigest(), hashlib.md5(DATA).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """Serves one file under paths that say how: /good/x, /breaks/x, …; remembers (path, Range header) of each request.

    `breaks` is the number of bytes after which the paths that break off do so.
    """

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests, self.breaks = [], 100_000
        self.address = f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request, client_address):
        """A client that gives up is what some of the tests are about."""

    def url(self, way):
        return f"{self.address}/{way}/file.bin"

    def ways(self):
        return [path.split("/")[1] for path, _ in self.requests]

    def ranges(self):
        return [asked for _, asked in self.requests]


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        asked = self.headers["Range"]
        self.server.requests.append((self.path, asked))
        way = self.path.split("/")[1]
        data = WRONG if "wrong" in way else DATA
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and "plain" not in way else 0
        if way == "missing":
            return self.send_error(404)
        if start >= len(data):
            return self.send_error(416)
        body = data[start + 7 :] if way == "shifted" else data[start:]
        self.send_response(206 if start or way == "shifted" else 200)
        if way == "endless":
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Content-Length", str(10**12 if way == "huge" else len(body)))
        if start or way == "shifted":
            first = start + (7 if way == "shifted" else 0)
            self.send_header("Content-Range", f"bytes {first}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        self.close_connection = True
        try:
            if way == "drips":
                for i in range(100):
                    self.wfile.write(body[i : i + 1])
                    time.sleep(0.02)
            if way == "endless":
                for _ in range(200):  # 13 MB, far more than was asked for
                    self.wfile.write(b"10000\r\n" + bytes(2**16) + b"\r\n")
            self.wfile.write(body[: {"breaks": self.server.breaks, "huge": 1000}.get(way.split("-")[-1])])
        except OSError:
            pass  # the client has had enough


@pytest.fixture
def server():
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "data" / "file.bin"


def part_of(path):
    return path.with_name(".file.bin.part")


def is_complete(path):
    """Whether a file is in place, right, and nothing else beside it."""
    return path.read_bytes() == DATA and os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize("checksum", [SHA256, MD5])
def test_downloads_a_file(server, path, checksum):
    assert download(path, [server.url("good")], checksum) == path
    assert is_complete(path) and server.ranges() == [None]


def test_streams_to_disk(server, path):
    download(path, [server.url("good")], SHA256)  # imports what is needed
    path.unlink()
    tracemalloc.start()
    download(path, [server.url("good")], SHA256)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 250_000 < len(DATA)


def test_a_broken_connection_is_resumed(server, path):
    download(path, [server.url("breaks")], SHA256)
    assert is_complete(path) and server.ranges() == [None, "bytes=100000-", "bytes=200000-"]


def test_another_mirror_continues_what_one_began(server, path, monkeypatch):
    monkeypatch.setattr(downloads, "TRIES", 2)
    download(path, [server.url("breaks"), server.url("missing"), server.url("good")], SHA256)
    assert is_complete(path) and server.ways() == ["breaks", "breaks", "missing", "good"]
    assert server.ranges()[-1] == "bytes=200000-"


def test_the_next_run_continues(server, path, monkeypatch):
    monkeypatch.setattr(downloads, "TRIES", 1)
    with pytest.raises(UserError, match="ended after 100000 of 300000 bytes.* — run again to continue after 0.1 MB"):
        download(path, [server.url("breaks")], SHA256)
    assert not path.exists() and part_of(path).read_bytes() == DATA[:100_000]
    download(path, [server.url("good")], SHA256)
    assert is_complete(path) and server.ranges() == [None, "bytes=100000-"]


def test_what_ctrl_c_leaves_is_continued(server, path, monkeypatch):
    class Pressed:
        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def update(self, _):
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(downloads, "bar", lambda *_, **__: Pressed())
        with pytest.raises(KeyboardInterrupt):
            download(path, [server.url("good")], SHA256)
    got = part_of(path).stat().st_size
    assert 0 < got < len(DATA)
    download(path, [server.url("good")], SHA256)
    assert is_complete(path) and server.ranges() == [None, f"bytes={got}-"]


def test_a_complete_part_needs_no_request(server, path):
    path.parent.mkdir()
    part_of(path).write_bytes(DATA)
    download(path, [server.url("good")], SHA256)
    assert is_complete(path) and server.requests == []


def test_servers_that_ignore_ranges_start_over(server, path):
    path.parent.mkdir()
    part_of(path).write_bytes(DATA[:1000])
    download(path, [server.url("plain")], SHA256)
    assert is_complete(path) and server.ranges() == ["bytes=1000-"]


def test_a_server_that_ignores_ranges_and_breaks_off_is_given_up(server, path):
    download(path, [server.url("plain-breaks"), server.url("good")], SHA256)
    assert is_complete(path) and server.ways() == ["plain-breaks", "plain-breaks", "good"]


@pytest.mark.parametrize("length", [1000, len(DATA), len(DATA) + 5], ids=["short", "as long", "longer: 416"])
def test_a_part_of_another_file_is_thrown_away_once(server, path, length):
    path.parent.mkdir()
    part_of(path).write_bytes(bytes(length))
    download(path, [server.url("good")], SHA256)
    assert is_complete(path) and server.ranges() == [f"bytes={length}-", None]


def test_a_wrong_file_is_fetched_from_the_start_once_and_then_the_next_mirror_is_tried(server, path):
    path.parent.mkdir()
    part_of(path).write_bytes(DATA[:1000])
    download(path, [server.url("wrong"), server.url("good")], SHA256)
    assert is_complete(path) and server.ways() == ["wrong", "wrong", "good"]
    assert server.ranges() == ["bytes=1000-", None, None]


def test_a_wrong_file_that_keeps_breaking_off_ends(server, path):
    with pytest.raises(UserError, match="wrong checksum"):
        download(path, [server.url("wrong-breaks")], SHA256)
    assert server.ranges() == [None, "bytes=100000-", "bytes=200000-"]


def test_wrong_files_leave_nothing(server, path):
    ways = ["wrong", "missing", "wrong"]
    with pytest.raises(UserError) as caught:
        download(path, [server.url(way) for way in ways], SHA256)
    assert str(caught.value) == (
        f"file.bin is not in {path.parent} and cannot be downloaded (wrong checksum; Not Found) — "
        "put it there, or try --dataset synthetic, which needs no files"
    )
    assert os.listdir(path.parent) == [] and server.ways() == ways


def test_an_answer_that_is_another_range(server, path):
    path.parent.mkdir()
    part_of(path).write_bytes(DATA[:1000])
    download(path, [server.url("shifted"), server.url("good")], SHA256)
    assert is_complete(path) and server.ways() == ["shifted", "shifted", "good"]


@pytest.mark.parametrize("way", ["endless", "huge", "good"])
def test_too_large_answers_are_stopped(server, path, way):
    with pytest.raises(UserError, match="more than 200000 bytes"):
        download(path, [server.url(way)], SHA256, largest=200_000)
    assert os.listdir(path.parent) == []
    download(path, [server.url("good")], SHA256, largest=len(DATA))
    assert is_complete(path)


@pytest.mark.slow
def test_a_server_that_answers_byte_by_byte_is_given_up(server, path, monkeypatch):
    monkeypatch.setattr(downloads, "WINDOW", 1)
    download(path, [server.url("drips"), server.url("good")], SHA256)
    assert is_complete(path) and server.ways() == ["drips", "good"]


def test_links_in_the_place_of_a_part_are_not_followed(server, path, tmp_path):
    path.parent.mkdir()
    for lay in (os.symlink, os.link):
        (tmp_path / "precious").write_bytes(b"mine")
        lay(tmp_path / "precious", part_of(path))
        download(path, [server.url("good")], SHA256)
        assert is_complete(path) and (tmp_path / "precious").read_bytes() == b"mine"
        path.unlink()


def test_no_server_at_all(path):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(UserError, match="Connection refused"):
        download(path, [f"http://127.0.0.1:{port}/file.bin", "http://[bad/", "nothing"], SHA256)
    assert os.listdir(path.parent) == []


def test_a_full_disk_is_not_taken_for_a_broken_connection(server, path):
    with limit_file_size(150_000), pytest.raises(UserError, match="cannot write .*file.bin.* make room"):
        download(path, [server.url("good"), server.url("good")], SHA256)
    assert not path.exists() and server.ways() == ["good"]
    download(path, [server.url("good")], SHA256)
    assert is_complete(path)


def test_a_link_stays_a_link(server, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "file.bin"
    link.symlink_to(tmp_path / "elsewhere" / "file.bin")
    download(link, [server.url("good")], SHA256)
    assert link.is_symlink() and is_complete(tmp_path / "elsewhere" / "file.bin")


def test_two_downloads_of_one_file_at_once_fetch_it_once(server, path, capsys, monkeypatch):
    begun, results = threading.Event(), []
    fetch = downloads.fetch

    def slow(*args):
        begun.set()
        time.sleep(0.1)
        fetch(*args)

    monkeypatch.setattr(downloads, "fetch", slow)
    first = threading.Thread(target=lambda: results.append(download(path, [server.url("good")], SHA256)))
    first.start()
    begun.wait()
    results.append(download(path, [server.url("good")], SHA256))
    first.join()
    assert results == [path, path] and is_complete(path) and server.ways() == ["good"]
    assert f"another process is downloading to {path.parent}: waiting for it" in capsys.readouterr().err


def test_bytes_of_another_process_are_noticed_where_folders_cannot_be_locked(server, path, monkeypatch):
    def meanwhile(*args):
        fetch(*args)
        if len(server.requests) == 1:
            with open(part_of(path), "ab") as file:
                file.write(DATA[:10])

    fetch = downloads.fetch
    monkeypatch.setattr(downloads, "locked", lambda *_: contextlib.nullcontext())
    monkeypatch.setattr(downloads, "fetch", meanwhile)
    download(path, [server.url("good"), server.url("good")], SHA256)
    assert is_complete(path) and len(server.requests) == 2


def test_the_bar_goes_on_where_the_download_does(server, path, monkeypatch):
    bars = []

    class Bar:
        def __init__(self, total, title, unit, done):
            bars.append([total, title, unit, done])

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def update(self, size):
            bars[-1][-1] += size

    monkeypatch.setattr(downloads, "bar", Bar)
    server.breaks = 200_000
    download(path, [server.url("breaks")], SHA256)
    assert bars == [[300_000, "file.bin", "B", 200_000], [300_000, "file.bin", "B", 300_000]]
