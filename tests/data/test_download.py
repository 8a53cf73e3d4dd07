"""A local server drops, refuses and lies. Each fault has a clear message, and the next call completes."""

import errno
import hashlib
import io
import json
import shutil
import ssl
import stat
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest

from monodepth_nb.data import download
from monodepth_nb.data.download import Archive, DownloadError, download_kitti2015

NOISE = np.random.default_rng(0).bytes(50_000)
IMAGES = {f"{part}/image_{v}/000000_10.png": NOISE[v:] for part in ("training", "testing") for v in (2, 3)}
CALIBRATION = {"training/calib_cam_to_cam/000000.txt": b"P_rect_02: 1"}


def zip_of(entries: dict) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return buffer.getvalue()


class Server:
    """Serves `files`; request number i is answered with `faults[i]`, later ones properly."""

    def __init__(self):
        self.files = {"/scene_flow.zip": zip_of(IMAGES), "/calib.zip": zip_of(CALIBRATION)}
        self.sizes = {path: len(body) for path, body in self.files.items()}
        self.etags, self.faults, self.requests, self.resumes = {}, [], [], True
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                server.requests.append((self.path, self.headers["Range"]))
                fault = server.faults.pop(0) if server.faults else "none"
                server.answer(self, fault)

            def log_message(self, *args):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    def answer(self, request, fault: str):
        if fault.isdigit():
            return request.send_error(int(fault))
        body, start, kind = self.files[request.path], 0, "application/zip"
        etag = self.etags.get(request.path)
        if "page" in fault:
            length = len(body) if "as long" in fault else 0
            body, kind = b"<html>please log in</html>".ljust(length), "text/html"
        elif self.resumes and request.headers["Range"] and request.headers["If-Range"] in (None, etag):
            start = int(request.headers["Range"][len("bytes=") : -1])
        request.send_response(206 if start else 200)
        request.send_header("Content-Type", kind)
        if etag:
            request.send_header("ETag", etag)
        if "of unknown length" not in fault:
            request.send_header("Content-Length", str(len(body) - start))
        request.end_headers()
        rest = body[start:]
        request.wfile.write(rest[: len(rest) // 2] if fault == "drop" else rest)

    def archives(self) -> tuple[Archive, ...]:
        return tuple(Archive(self.url + path, size) for path, size in self.sizes.items())


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(download, "RETRY_PAUSES_S", (0, 0))
    server = Server()
    yield server
    server.http.shutdown()
    server.http.server_close()


def part_size(root: Path) -> int:
    part = root / "scene_flow.zip.part"
    return part.stat().st_size if part.exists() else 0


def fails(server, root, message: str):
    with pytest.raises(DownloadError, match=message) as caught:
        download_kitti2015(root, server.archives())
    assert not (root / "Kitti2015").exists()
    return str(caught.value)


def completes(server, root):
    folder = download_kitti2015(root, server.archives())
    for name, content in (IMAGES | CALIBRATION).items():
        assert (folder / name).read_bytes() == content
    assert [p.name for p in root.iterdir()] == ["Kitti2015"]  # no partial file is left
    return folder


def test_both_archives_are_unpacked_and_noted(server, tmp_path):
    note = json.loads((completes(server, tmp_path / "new") / "download.json").read_text())
    assert [n["url"] for n in note] == [a.url for a in server.archives()]
    assert [n["size_bytes"] for n in note] == [a.size_bytes for a in server.archives()]
    assert [n["sha256"] for n in note] == [hashlib.sha256(body).hexdigest() for body in server.files.values()]
    assert all(n["date"] for n in note)


def test_what_is_there_is_not_requested_again(server, tmp_path):
    completes(server, tmp_path)
    server.requests.clear()
    completes(server, tmp_path)
    assert server.requests == []


def test_a_folder_of_the_user_is_used_as_it_is(server, tmp_path):
    own = tmp_path / "Kitti2015" / "training" / "image_2"
    own.mkdir(parents=True)
    assert download_kitti2015(tmp_path, server.archives()) == tmp_path / "Kitti2015"
    assert server.requests == [] and list(own.iterdir()) == []


def test_a_folder_of_something_else_is_not_touched(server, tmp_path):
    (tmp_path / "Kitti2015").mkdir()
    (tmp_path / "Kitti2015" / "thesis.tex").write_text("mine")
    with pytest.raises(DownloadError, match="Kitti2015"):
        download_kitti2015(tmp_path, server.archives())
    assert (tmp_path / "Kitti2015" / "thesis.tex").read_text() == "mine"


def test_a_dropped_connection_is_resumed_where_it_broke(server, tmp_path):
    server.faults = ["drop", "drop"]
    completes(server, tmp_path)
    size = len(server.files["/scene_flow.zip"])
    asked = [bytes_asked for path, bytes_asked in server.requests if path == "/scene_flow.zip"]
    assert asked == [None, f"bytes={size // 2}-", f"bytes={size // 2 + (size - size // 2) // 2}-"]


@pytest.mark.parametrize(("drops", "resumes"), [(8, True), (1, False)])
def test_any_number_of_drops_and_a_server_that_cannot_resume_are_survived(server, tmp_path, drops, resumes):
    server.faults, server.resumes = ["drop"] * drops, resumes
    completes(server, tmp_path)


PAGES = ["page", "page of unknown length", "page as long as the zip"]
ANSWERS = {"404": "404.*<root>/Kitti2015", "503": "503.*run again"} | dict.fromkeys(PAGES, "text/html.*login")


@pytest.mark.parametrize(("answer", "named"), ANSWERS.items(), ids=ANSWERS)
@pytest.mark.parametrize("half", [False, True], ids=["at once", "after half of the zip"])
def test_what_the_server_answers_is_named_and_spoils_no_part(server, tmp_path, answer, named, half):
    server.faults = ["drop"] * half + [answer] * 3
    fails(server, tmp_path, f"{server.url}/scene_flow.zip: .*{named}")
    assert part_size(tmp_path) == half * (server.sizes["/scene_flow.zip"] // 2)
    assert len(server.requests) == (3 if answer == "503" else half + 1)  # only a busy server is asked again
    server.requests, server.faults = [], []
    completes(server, tmp_path)
    assert bool(server.requests[0][1]) == half  # the next call continues from there


def test_an_unreachable_server_is_named(server, tmp_path):
    server.http.server_close()
    fails(server, tmp_path, f"{server.url}/scene_flow.zip")


def test_a_refused_certificate_is_reported_at_once(server, tmp_path, monkeypatch):
    calls = []

    def refuse(*_, **__):
        calls.append(1)
        raise URLError(ssl.SSLCertVerificationError("unable to get local issuer certificate"))

    monkeypatch.setattr(download, "urlopen", refuse)
    fails(server, tmp_path, "Install Certificates.command")
    assert len(calls) == 1


def test_a_file_that_changed_meanwhile_is_not_glued_to_the_old_half(server, tmp_path):
    path = "/scene_flow.zip"
    new = server.files[path]
    server.files[path], server.etags[path] = b"PK".ljust(len(new)), '"old"'
    server.faults = ["drop", "404"]
    fails(server, tmp_path, "404")
    server.files[path], server.etags[path] = new, '"new"'
    completes(server, tmp_path)


def test_a_zip_cut_short_on_the_server_is_refused(server, tmp_path):
    whole = server.files["/scene_flow.zip"]
    server.files["/scene_flow.zip"] = whole[:-1000]
    fails(server, tmp_path, f"{len(whole) - 1000:,} bytes.* {len(whole):,}")
    server.files["/scene_flow.zip"] = whole
    completes(server, tmp_path)


def cut(good: bytes) -> bytes:
    return good[:-1000] + bytes(1000)


def with_a_wrong_byte(good: bytes) -> bytes:
    return good[:20_000] + bytes([good[20_000] ^ 1]) + good[20_001:]


@pytest.mark.parametrize("damage", [cut, with_a_wrong_byte])
def test_a_damaged_zip_is_deleted_and_fetched_again(server, tmp_path, damage):
    good = server.files["/scene_flow.zip"]
    server.files["/scene_flow.zip"] = damage(good)
    fails(server, tmp_path, "scene_flow.zip.part .*run again")
    assert [p.name for p in tmp_path.iterdir()] == ["calib.zip.part"]  # the good one is kept
    server.files["/scene_flow.zip"] = good
    completes(server, tmp_path)


def test_a_part_that_is_longer_than_the_zip_is_deleted_and_fetched_again(server, tmp_path):
    size = server.sizes["/scene_flow.zip"]
    (tmp_path / "scene_flow.zip.part").write_bytes(server.files["/scene_flow.zip"] + b"more")
    fails(server, tmp_path, f"{size + 4:,} bytes, {size:,}")
    completes(server, tmp_path)


def test_no_entry_of_a_malicious_zip_leaves_the_folder_and_links_become_files(server, tmp_path):
    entries = [zipfile.ZipInfo(f"{up}escaped{i}") for i, up in enumerate(("training/../../", "/tmp/", "..\\", "C:/"))]
    link = zipfile.ZipInfo("training/link_escaped")
    link.external_attr = (stat.S_IFLNK | 0o644) << 16
    body = zip_of(IMAGES | dict.fromkeys([*entries, link], b"/etc/passwd"))
    server.files["/scene_flow.zip"], server.sizes["/scene_flow.zip"] = body, len(body)
    folder = download_kitti2015(tmp_path, server.archives())
    unpacked = set(folder.rglob("*escaped*"))
    assert len(unpacked) == 5 and unpacked == set(tmp_path.rglob("*escaped*"))
    assert all(path.is_file() and not path.is_symlink() for path in unpacked)
    assert not Path("/tmp/escaped1").exists()


def test_too_little_space_is_known_before_the_first_request(server, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda folder: usage._replace(free=2 * sum(server.sizes.values()) - 1))
        fails(server, tmp_path, f"{tmp_path} has 0.00 GB free")
    assert server.requests == []
    completes(server, tmp_path)


class DiskFullAfter(io.FileIO):
    """A file that takes 1000 bytes and no more."""

    def write(self, chunk):
        super().write(chunk[:1000])
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_disk_that_fills_up_keeps_what_was_received(server, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(download, "open", DiskFullAfter, raising=False)
        fails(server, tmp_path, f"{tmp_path}: .*full")
    assert part_size(tmp_path) == 1000
    completes(server, tmp_path)
    assert ("/scene_flow.zip", "bytes=1000-") in server.requests


def test_a_read_only_folder_is_named(server, tmp_path, monkeypatch):
    def refuse(self, *args, **kwargs):
        raise OSError(errno.EROFS, "Read-only file system")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "mkdir", refuse)
        fails(server, tmp_path, f"{tmp_path}: .*not writable")
    completes(server, tmp_path)


def test_an_interrupted_unpacking_leaves_no_half_folder(server, tmp_path, monkeypatch):
    extract = zipfile.ZipFile.extract

    def interrupted(self, entry, path):
        if "testing" in entry.filename:
            raise KeyboardInterrupt
        return extract(self, entry, path)

    with monkeypatch.context() as patch:
        patch.setattr(zipfile.ZipFile, "extract", interrupted)
        with pytest.raises(KeyboardInterrupt):
            download_kitti2015(tmp_path, server.archives())
    assert not (tmp_path / "Kitti2015").exists()
    server.requests.clear()
    completes(server, tmp_path)
    assert server.requests == []  # both zips were complete
