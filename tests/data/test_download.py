"""Downloads against a local server: whole, resumed, broken, refused, corrupted, and without a server."""

import hashlib
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from sdas.data import DataError
from sdas.data.download import RemoteFile, download
from sdas.data.rmd17 import BASE_URL, MOLECULES, fetch_rmd17, known_files, remote_files

CONTENT = bytes(range(256)) * 800


class Server:
    """Serves CONTENT at every path but /nothing; ``plan`` holds what to do to the next requests."""

    def __init__(self):
        self.requests, self.plan, self.ranges, self.content = [], [], True, CONTENT
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                outer.answer(self)

            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def answer(self, handler):
        wanted = handler.headers.get("Range")
        self.requests.append((handler.path, wanted))
        action = self.plan.pop(0) if self.plan else "whole"
        if handler.path == "/nothing":
            action = 404
        if isinstance(action, int):
            handler.send_error(action)
            return
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and self.ranges else 0
        handler.send_response(206 if start else 200)
        body = self.content[start:]
        handler.send_header("Content-Length", str(len(body)))
        if start:
            handler.send_header("Content-Range", f"bytes {start}-{len(self.content) - 1}/{len(self.content)}")
        handler.end_headers()
        handler.wfile.write(body[: len(body) // 2] if action == "break" else body)
        handler.wfile.flush()
        if action == "break":
            handler.connection.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def server():
    made = Server()
    yield made
    made.server.shutdown()
    made.server.server_close()


def remote(server, path="/a.npz", content=CONTENT):
    return RemoteFile(server.url + path, len(content), hashlib.sha256(content).hexdigest())


def test_a_file_comes_whole_and_only_once(tmp_path, server):
    seen = []
    target = tmp_path / "new" / "a.npz"
    assert download(remote(server), target, lambda here, total: seen.append((here, total))) is True
    assert target.read_bytes() == CONTENT
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert [path.name for path in target.parent.iterdir()] == ["a.npz"]
    assert download(remote(server), target) is False
    assert len(server.requests) == 1


def test_a_broken_connection_is_resumed_where_it_broke(tmp_path, server):
    server.plan = ["break", "break"]
    download(remote(server), tmp_path / "a.npz", pause=0)
    assert (tmp_path / "a.npz").read_bytes() == CONTENT
    half = len(CONTENT) // 2
    assert server.requests == [("/a.npz", None), ("/a.npz", f"bytes={half}-"), ("/a.npz", f"bytes={half + half // 2}-")]


def test_a_later_call_goes_on_from_what_an_earlier_one_left(tmp_path, server):
    server.plan = ["break", 503]
    with pytest.raises(DataError, match=r"in 2 attempts: HTTP status 503.*download it elsewhere, put it at .*a\.npz"):
        download(remote(server), tmp_path / "a.npz", attempts=2, pause=0)
    assert (tmp_path / "a.npz.part").stat().st_size == len(CONTENT) // 2
    assert not (tmp_path / "a.npz").exists()
    download(remote(server), tmp_path / "a.npz")
    assert server.requests[-1][1] == f"bytes={len(CONTENT) // 2}-"
    assert (tmp_path / "a.npz").read_bytes() == CONTENT


def test_a_server_without_ranges_sends_all_again(tmp_path, server):
    server.ranges, server.plan = False, ["break"]
    download(remote(server), tmp_path / "a.npz", pause=0)
    assert (tmp_path / "a.npz").read_bytes() == CONTENT
    assert len(server.requests) == 2


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_passing_failure_is_tried_again(tmp_path, server, status):
    server.plan = [status]
    download(remote(server), tmp_path / "a.npz", pause=0)
    assert len(server.requests) == 2


def test_a_wrong_checksum_is_refused_and_nothing_stays(tmp_path, server):
    server.content = CONTENT[:-1] + b"!"
    with pytest.raises(DataError, match=r"the checksum is [0-9a-f]{64}, expected .*not the published one"):
        download(remote(server), tmp_path / "a.npz", pause=0)
    assert list(tmp_path.iterdir()) == []
    assert len(server.requests) == 1


def test_a_part_of_another_file_is_thrown_away_and_fetched_afresh(tmp_path, server):
    (tmp_path / "a.npz.part").write_bytes(b"something else")
    download(remote(server), tmp_path / "a.npz", pause=0)
    assert (tmp_path / "a.npz").read_bytes() == CONTENT
    assert [wanted for _, wanted in server.requests] == ["bytes=14-", None]


def test_a_file_that_is_not_there_is_an_error_at_once(tmp_path, server):
    with pytest.raises(DataError, match=r"/nothing: HTTP status 404 .*put it at .*a\.npz,"):
        download(remote(server, "/nothing"), tmp_path / "a.npz")
    assert len(server.requests) == 1


def test_without_a_connection_the_address_and_the_way_out_are_named(tmp_path):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/a.npz"
    with pytest.raises(DataError, match=rf"could not download {url} in 3 attempts: .*put it at .*a\.npz"):
        download(RemoteFile(url, 1, "0"), tmp_path / "a.npz", attempts=3, pause=0)
    with pytest.raises(DataError, match="no address"):
        download(RemoteFile("not an address", 1, "0"), tmp_path / "a.npz")


def test_other_content_in_the_place_is_never_overwritten(tmp_path, server):
    (tmp_path / "a.npz").write_bytes(b"mine")
    with pytest.raises(DataError, match="is there with other content"):
        download(remote(server), tmp_path / "a.npz")
    assert (tmp_path / "a.npz").read_bytes() == b"mine"
    assert server.requests == []


def test_all_published_files_are_known():
    assert len(known_files()) == 100
    assert [len(remote_files("all", split)) for split in range(1, 6)] == [20] * 5
    for file in remote_files("all", 2):
        assert file.url.startswith(BASE_URL + "/rmd17_")
        assert file.url.endswith("_02.npz")
        assert len(file.sha256) == 64
    assert len({entry["sha256"] for entry in known_files().values()}) == 100


def test_checksums_are_those_of_the_files(real_data):
    from sdas.files import file_sha256

    paths = sorted(real_data("rmd17").glob("*.npz"))
    assert paths
    for path in paths:
        assert known_files()[path.name] == {"bytes": path.stat().st_size, "sha256": file_sha256(path)}


def test_fetching_a_molecule_brings_its_two_files(tmp_path, server, real_data):
    folder = real_data("rmd17")
    pair = {}

    def answer(handler):
        pair[handler.path] = (folder / handler.path.rpartition("/")[2]).read_bytes()
        server.content = pair[handler.path]
        Server.answer(server, handler)

    server.answer = answer
    paths = fetch_rmd17("benzene", tmp_path, base_url=server.url + "/rmd17-npz/")
    assert [path.name for path in paths] == ["rmd17_benzene_train_01.npz", "rmd17_benzene_test_01.npz"]
    assert list(pair) == [f"/rmd17-npz/{path.name}" for path in paths]


def test_unknown_molecules_and_splits_are_refused():
    with pytest.raises(DataError, match=f"no molecule 'water' in rMD17; it has {MOLECULES[0]}"):
        remote_files("water", 1)
    with pytest.raises(DataError, match="splits 1 to 5, got 6"):
        remote_files("ethanol", 6)
