import hashlib
import http.server
import io
import threading
import zipfile
from typing import ClassVar

import pytest

from cyclenet.data import download as module
from cyclenet.data.download import Archive, digest, download
from cyclenet.data.images import DataError


def zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


GOOD = {
    "repo/CamVid/train/a.png": b"a" * 50_000,
    "repo/CamVid/trainannot/a.png": b"b",
    "repo/README": b"not wanted",
}


class Server(http.server.BaseHTTPRequestHandler):
    """Serves `content`, with ranges, and drops the line after `limit` bytes."""

    content = b""
    limit: int | None = None
    ranges: ClassVar[list[str | None]] = []

    def do_GET(self):
        wanted = self.headers.get("Range")
        type(self).ranges.append(wanted)
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
        body = self.content[start:]
        if wanted and not body:
            self.send_error(416)
            return
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body if self.limit is None else body[: self.limit])

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    Server.content, Server.limit, Server.ranges = zipped(GOOD), None, []

    def publish(**changes):
        values = {
            "url": f"http://127.0.0.1:{httpd.server_port}/a.zip",
            "folders": {"repo/CamVid": "."},
        } | changes
        monkeypatch.setitem(module.ARCHIVES, "camvid", Archive(**values))

    yield publish
    httpd.shutdown()


def sha1() -> str:
    return hashlib.sha1(Server.content).hexdigest()


def test_fetch_and_unpack(server, tmp_path):
    server(sha1=sha1())
    root = tmp_path / "data" / "camvid"
    download("camvid", root)
    assert (root / "train/a.png").read_bytes() == GOOD["repo/CamVid/train/a.png"]
    assert sorted(p.name for p in root.parent.iterdir()) == [".camvid.lock", "camvid"]
    download("camvid", root)  # Complete: nothing is asked of the server.
    assert len(Server.ranges) == 1


def test_a_broken_download_goes_on(server, tmp_path):
    server(sha1=sha1())
    Server.limit = 20_000
    with pytest.raises(DataError, match="run it again to continue"):
        download("camvid", tmp_path / "camvid")
    assert not (tmp_path / "camvid").exists()
    Server.limit = None
    download("camvid", tmp_path / "camvid")
    assert Server.ranges == [None, "bytes=20000-"]
    assert (tmp_path / "camvid/train/a.png").stat().st_size == 50_000


def test_a_full_disk_is_not_a_bad_download(server, tmp_path):
    server(sha1=sha1())
    (tmp_path / "data").mkdir()
    (tmp_path / "data/.camvid.cyclenet.zip.part").symlink_to("/dev/full")
    with pytest.raises(
        DataError, match=r"zip.part cannot be written \(No space left on device\): free disk space"
    ):
        download("camvid", tmp_path / "data/camvid")


def test_a_wrong_checksum_is_refused_and_forgotten(server, tmp_path):
    server(sha1="0" * 40)
    with pytest.raises(DataError, match="SHA-1"):
        download("camvid", tmp_path / "camvid")
    assert [p.name for p in tmp_path.iterdir()] == [".camvid.lock"]


def test_contents_are_checked_where_the_zip_is_packed_anew(server, tmp_path):
    (tmp_path / "like/train").mkdir(parents=True)
    (tmp_path / "like/trainannot").mkdir()
    (tmp_path / "like/train/a.png").write_bytes(GOOD["repo/CamVid/train/a.png"])
    (tmp_path / "like/trainannot/a.png").write_bytes(b"b")
    server(contents=digest(tmp_path / "like"))
    download("camvid", tmp_path / "camvid")
    server(contents="0" * 64)
    with pytest.raises(DataError, match="does not hold the images"):
        download("camvid", tmp_path / "other")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    "name", ["../evil.png", "repo/CamVid/../../../evil.png", "/evil.png", "repo\\..\\evil.png"]
)
def test_an_archive_cannot_leave_its_folder(server, tmp_path, name):
    Server.content = zipped({**GOOD, name: b"evil"})
    server()
    with pytest.raises(DataError, match="leaves its folder"):
        download("camvid", tmp_path / "deep" / "camvid")
    assert not list(tmp_path.rglob("evil*")) and not (tmp_path / "deep" / "camvid").exists()


def test_what_cannot_be_fetched_is_a_sentence(server, tmp_path):
    server(url="http://127.0.0.1:9/a.zip")
    with pytest.raises(DataError, match="could not be fetched"):
        download("camvid", tmp_path / "camvid")
    with pytest.raises(DataError, match="csDownload"):
        download("cityscapes", tmp_path / "cityscapes")
    Server.content = b"an error page"
    server()
    with pytest.raises(DataError, match="not a whole zip file"):
        download("camvid", tmp_path / "camvid")


def test_a_users_own_copy_is_left_alone(server, tmp_path):
    server()
    (tmp_path / "camvid").mkdir()
    (tmp_path / "camvid" / "mine.png").write_bytes(b"")
    download("camvid", tmp_path / "camvid")
    assert Server.ranges == []
