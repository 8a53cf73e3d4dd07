"""A local server drops, refuses and lies. Each fault has a clear message, and the next call completes."""

import errno
import io
import shutil
import ssl
import stat
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from unittest.mock import Mock
from urllib.error import URLError

import numpy as np
import pytest

from monodepth_nb.data import download
from monodepth_nb.data.download import Archive, DownloadError, download_kitti2015

NOISE = np.random.default_rng(0).bytes(50_000)
IMAGES = {f"{part}/image_{v}/000000_10.png": NOISE[v:] for part in ("training", "testing") for v in (2, 3)}
CALIBRATION = {"training/calib_cam_to_cam/000000.txt": b"P_rect_02: 1"}
ZIP = "/scene_flow.zip"


def zip_of(entries: dict) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return buffer.getvalue()


GOOD = zip_of(IMAGES)
HALF, QUARTER = len(GOOD) // 2, (len(GOOD) - len(GOOD) // 2) // 2


class Server:
    """Serves `files`; request number i is answered with `faults[i]`, later ones properly."""

    def __init__(self):
        self.files = {ZIP: GOOD, "/calib.zip": zip_of(CALIBRATION)}
        self.sizes = {path: len(body) for path, body in self.files.items()}
        self.faults, self.requests, self.resumes = [], [], True
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                server.requests.append((self.path, self.headers["Range"]))
                server.answer(self, server.faults.pop(0) if server.faults else "none")

            def log_message(self, *args):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    def answer(self, request, fault: str):
        if fault.isdigit():
            return request.send_error(int(fault))
        body, start, kind = self.files[request.path], 0, "application/zip"
        if "page" in fault:
            body, kind = b"<html>please log in</html>", "text/html"
        elif self.resumes and request.headers["Range"]:
            start = int(request.headers["Range"][len("bytes=") : -1])
        request.send_response(206 if start else 200)
        request.send_header("Content-Type", kind)
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
    with pytest.raises(DownloadError, match=message):
        download_kitti2015(root, server.archives())
    assert not (root / "Kitti2015").exists()


def completes(server, root):
    """The next call ends with everything and no partial file; returns the ranges of the image zip it asked for."""
    server.requests.clear()
    folder = download_kitti2015(root, server.archives())
    for name, content in (IMAGES | CALIBRATION).items():
        assert (folder / name).read_bytes() == content
    assert [p.name for p in root.iterdir()] == ["Kitti2015"]
    return [asked for path, asked in server.requests if path == ZIP]


def test_both_archives_are_unpacked_once(server, tmp_path):
    assert completes(server, tmp_path / "new") == [None]
    assert completes(server, tmp_path / "new") == []


def test_a_folder_of_the_user_is_used_as_it_is_and_one_of_something_else_is_not_touched(server, tmp_path):
    own, other = (tmp_path / name / "Kitti2015" for name in ("own", "other"))
    (own / "training" / "image_2").mkdir(parents=True)
    assert download_kitti2015(own.parent, server.archives()) == own
    other.mkdir(parents=True)
    (other / "thesis.tex").write_text("mine")
    with pytest.raises(DownloadError, match=str(other)):
        download_kitti2015(other.parent, server.archives())
    assert (other / "thesis.tex").read_text() == "mine"
    assert server.requests == []


def test_a_dropped_connection_is_resumed_where_it_broke_if_the_server_can(server, tmp_path):
    server.faults = ["drop", "drop"]
    assert completes(server, tmp_path / "resumes") == [None, f"bytes={HALF}-", f"bytes={HALF + QUARTER}-"]
    server.faults = ["drop"] * 8  # more than there are pauses
    assert len(completes(server, tmp_path / "many")) == 9
    server.faults, server.resumes = ["drop"], False
    assert len(completes(server, tmp_path / "starts over")) == 2


ANSWERS = {"404": "404.*<root>/Kitti2015", "503": "503.*run again"}
ANSWERS |= dict.fromkeys(["page", "page of unknown length"], "text/html.*login")


@pytest.mark.parametrize(("answer", "named"), ANSWERS.items(), ids=ANSWERS)
@pytest.mark.parametrize("half", [False, True], ids=["at once", "after half of the zip"])
def test_what_the_server_answers_is_named_and_spoils_no_part(server, tmp_path, answer, named, half):
    server.faults = ["drop"] * half + [answer] * 3
    fails(server, tmp_path, f"{server.url}{ZIP}: .*{named}")
    assert part_size(tmp_path) == half * HALF
    assert len(server.requests) == (3 if answer == "503" else half + 1)  # only a busy server is asked again
    server.faults = []
    assert completes(server, tmp_path) == [f"bytes={HALF}-" if half else None]  # the next call continues from there


def test_a_dead_server_is_asked_again_which_is_announced_and_a_refused_certificate_is_not(
    server, tmp_path, monkeypatch, capsys
):
    server.http.server_close()
    fails(server, tmp_path, f"{server.url}{ZIP}: .*run again")
    assert capsys.readouterr().err.count("; trying again") == len(download.RETRY_PAUSES_S)
    refused = URLError(ssl.SSLCertVerificationError("unable to get local issuer certificate"))
    monkeypatch.setattr(download, "urlopen", Mock(side_effect=refused))
    fails(server, tmp_path, "Install Certificates.command")
    assert download.urlopen.call_count == 1


DAMAGED = {  # what the server sends, and what the message names
    "end lost": (GOOD[:-1000] + bytes(1000), "scene_flow.zip.part .*run again"),
    "wrong byte": (GOOD[:20_000] + bytes([GOOD[20_000] ^ 1]) + GOOD[20_001:], "scene_flow.zip.part .*run again"),
    "cut short": (GOOD[:-1000], f"{len(GOOD) - 1000:,} bytes.* {len(GOOD):,}"),
}


@pytest.mark.parametrize(("body", "message"), DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_zip_is_refused_and_fetched_again(server, tmp_path, body, message):
    server.files[ZIP] = body
    fails(server, tmp_path, message)
    assert part_size(tmp_path) == 0
    server.files[ZIP] = GOOD
    assert completes(server, tmp_path) == [None]


def test_a_part_of_another_file_is_found_out_and_fetched_again(server, tmp_path):
    for part, message in ((GOOD + b"more", f"{len(GOOD) + 4:,} bytes"), (b"PK".ljust(HALF), "scene_flow.zip.part")):
        (tmp_path / "scene_flow.zip.part").write_bytes(part)
        fails(server, tmp_path, f"{message}.*run again")
    assert [p.name for p in tmp_path.iterdir()] == ["calib.zip.part"]  # the good one is kept
    assert completes(server, tmp_path) == [None]


def test_no_entry_of_a_malicious_zip_leaves_the_folder_and_links_become_files(server, tmp_path):
    entries = [zipfile.ZipInfo(f"{up}escaped{i}") for i, up in enumerate(("training/../../", "/tmp/", "..\\", "C:/"))]
    link = zipfile.ZipInfo("training/link_escaped")
    link.external_attr = (stat.S_IFLNK | 0o644) << 16
    server.files[ZIP] = zip_of(IMAGES | dict.fromkeys([*entries, link], b"/etc/passwd"))
    server.sizes[ZIP] = len(server.files[ZIP])
    folder = download_kitti2015(tmp_path, server.archives())
    unpacked = set(folder.rglob("*escaped*"))
    assert len(unpacked) == 5 and unpacked == set(tmp_path.rglob("*escaped*"))
    assert all(path.is_file() and not path.is_symlink() for path in unpacked)
    assert not Path("/tmp/escaped1").exists()


class DiskFullAfter(io.FileIO):
    """A file that takes 1000 bytes and no more."""

    def write(self, chunk):
        super().write(chunk[:1000])
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_and_a_read_only_folder_are_named_and_keep_what_was_received(server, tmp_path, monkeypatch):
    read_only = Mock(side_effect=OSError(errno.EROFS, "Read-only file system"))
    for thing, name, stand_in in ((download, "open", DiskFullAfter), (Path, "mkdir", read_only)):
        with monkeypatch.context() as patch:
            patch.setattr(thing, name, stand_in, raising=False)
            fails(server, tmp_path, f"{tmp_path}: .*(No space|Read-only).*another root")
        assert part_size(tmp_path) == 1000
    assert completes(server, tmp_path) == ["bytes=1000-"]


def test_too_little_space_is_known_before_the_first_request(server, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda folder: usage._replace(free=2 * sum(server.sizes.values()) - 1))
        fails(server, tmp_path, str(tmp_path))
    assert server.requests == []
    completes(server, tmp_path)


def test_an_interrupted_unpacking_leaves_no_half_folder(server, tmp_path, monkeypatch):
    def interrupted(self, path, members):
        self.extract(next(iter(members)), path)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(zipfile.ZipFile, "extractall", interrupted)
        with pytest.raises(KeyboardInterrupt):
            download_kitti2015(tmp_path, server.archives())
    assert not (tmp_path / "Kitti2015").exists()
    assert completes(server, tmp_path) == []  # both zips were complete


# ---- where data lives ----


def test_data_lives_in_the_named_folder_else_in_the_checkout_else_in_the_users_cache(tmp_path, monkeypatch):
    for name in ("MONODEPTH_DATA", "MONODEPTH_BUILD"):
        monkeypatch.delenv(name, raising=False)
    root = Path(__file__).resolve().parents[2]
    monkeypatch.chdir(root / "notebooks")
    assert (download.data_folder(), download.build_folder()) == (root / "datasets", root / "build")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    for folder in (download.data_folder(), download.build_folder()):
        assert "monodepth_nb" in folder.parts and "site-packages" not in folder.parts
        assert not folder.is_relative_to(root) and not folder.is_relative_to(tmp_path / "monodepth_nb")
    monkeypatch.setenv("MONODEPTH_DATA", str(tmp_path / "mine"))
    assert download.data_folder() == tmp_path / "mine"
