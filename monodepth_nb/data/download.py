"""Download KITTI 2015 stereo: resumed after a break, verified, unpacked safely and all at once.

Source: Menze and Geiger, "Object Scene Flow for Autonomous Vehicles", CVPR 2015, www.cvlibs.net,
licence CC BY-NC-SA 3.0. Every failure is a `DownloadError` that says what to do; running again is safe.
"""

import errno
import hashlib
import json
import os
import shutil
import ssl
import stat
import time
import zipfile
import zlib
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from tqdm import tqdm

CHUNK_BYTES = 1 << 20
TIMEOUT_S = 30
RETRY_PAUSES_S = (1, 4, 15, 30)  # between tries that received nothing; a try that got something starts anew
DROPPED = (URLError, ConnectionError, TimeoutError, HTTPException, ssl.SSLError)  # worth another try


class DownloadError(RuntimeError):
    """The data could not be fetched; the message names the file and the remedy."""


@dataclass(frozen=True)
class Archive:
    """A zip on a server. KITTI publishes no checksum, so the size tells a right file from a wrong one."""

    url: str
    size_bytes: int

    @property
    def name(self) -> str:
        return self.url.rsplit("/", 1)[-1]


KITTI_SERVER = "https://s3.eu-central-1.amazonaws.com/avg-kitti"
KITTI2015 = (
    Archive(f"{KITTI_SERVER}/data_scene_flow.zip", 1_681_488_619),  # images and disparity
    Archive(f"{KITTI_SERVER}/data_scene_flow_calib.zip", 1_631_055),  # focal length, baseline
)


def data_folder() -> Path:
    """Where data sets live: MONODEPTH_DATA, else `datasets/` beside the package."""
    return Path(os.environ.get("MONODEPTH_DATA", Path(__file__).resolve().parents[2] / "datasets"))


def download_kitti2015(root: str | Path = "datasets", archives: tuple[Archive, ...] = KITTI2015) -> Path:
    """Return the folder `root/Kitti2015`, holding `training/` and `testing/`; download it if it is not there.

    A folder that is there already, whoever made it, is used as it is. A broken download goes on where it
    stopped. A note of what was fetched (URL, size, SHA-256, date) is left in `download.json`.
    Raises `DownloadError`.
    """
    target = Path(root) / "Kitti2015"
    if (target / "training" / "image_2").is_dir():
        return target
    with disk_errors_explained(target.parent):
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists() and any(target.iterdir()):
            raise DownloadError(f"{target} holds something else: move it away, or pass another root")
        # The zips hold PNG files, which do not shrink any more: unpacked they are as large again.
        missing = sum(2 * a.size_bytes - part_size(part_path(a, target.parent)) for a in archives)
        require_space(target.parent, missing)
        parts = [fetch(archive, target.parent) for archive in archives]
        unpack_all(archives, parts, target)
    return target


def part_path(archive: Archive, folder: Path) -> Path:
    """Where the bytes received so far are kept."""
    return folder / f"{archive.name}.part"


def part_size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def require_space(folder: Path, needed_bytes: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed_bytes > free:
        raise DownloadError(
            f"{folder} has {free / 1e9:.2f} GB free and {needed_bytes / 1e9:.2f} GB are needed: "
            "free some space, or pass a root on another disk"
        )


@contextmanager
def disk_errors_explained(folder: Path):
    """Turn a full or write-protected disk into a `DownloadError` with its remedy."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            remedy = "the disk is full: free some space and run again, the download goes on where it stopped"
        elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            remedy = "the folder cannot be written: pass a root that can"
        else:
            raise
        raise DownloadError(f"{folder}: {remedy} ({error})") from error


# ---- One zip over HTTP ----


def fetch(archive: Archive, folder: Path) -> Path:
    """Receive all of `archive` into its `.part` file in `folder`; try again after a dropped connection."""
    part = part_path(archive, folder)
    pauses = iter(RETRY_PAUSES_S)
    while (before := part_size(part)) < archive.size_bytes:
        try:
            receive(archive, part)
        except DROPPED as error:
            if isinstance(error, HTTPError) and error.code < 500:
                raise DownloadError(refusal(archive, error)) from error
            if isinstance(getattr(error, "reason", None), ssl.SSLCertVerificationError):
                raise DownloadError(
                    f"{archive.url}: the server's certificate was not accepted ({error.reason}): set the clock right; "
                    "with Python from python.org on macOS, run its 'Install Certificates.command'"
                ) from error
            if part_size(part) > before:
                pauses = iter(RETRY_PAUSES_S)
            pause = next(pauses, None)
            if pause is None:
                raise DownloadError(
                    f"{archive.url}: connection lost ({error}) after {part_size(part):,} of "
                    f"{archive.size_bytes:,} bytes: run again later, it goes on from there"
                ) from error
            time.sleep(pause)
    if part_size(part) > archive.size_bytes:
        raise bad_part(part, f"{part_size(part):,} bytes, {archive.size_bytes:,} expected")
    return part


def receive(archive: Archive, part: Path) -> None:
    """One request: append what is missing to `part`, or start over where the server cannot resume.

    Nothing is written before the answer is known to be this zip, so a login page does no harm to a good part.
    """
    have, tag = part_size(part), part.with_suffix(".etag")
    headers = {"Range": f"bytes={have}-"} if have else {}
    if have and tag.exists():  # "resume only if the file is still the same, else send all of it"
        headers["If-Range"] = tag.read_text()
    with urlopen(Request(archive.url, headers=headers), timeout=TIMEOUT_S) as answer:
        start = have if answer.status == 206 else 0
        chunk = answer.read(CHUNK_BYTES)
        refuse_another_file(archive, answer.headers, start, chunk)
        if not start:
            tag.unlink(missing_ok=True)
            if answer.headers["ETag"]:
                tag.write_text(answer.headers["ETag"])
        bar = tqdm(total=archive.size_bytes, initial=start, unit="B", unit_scale=True, desc=archive.name)
        with open(part, "ab" if start else "wb") as file, bar:
            while chunk:
                file.write(chunk)
                bar.update(len(chunk))
                chunk = answer.read(CHUNK_BYTES)
    if part_size(part) < archive.size_bytes:
        raise ConnectionError("closed by the server before the end")


def refuse_another_file(archive: Archive, headers, start: int, chunk: bytes) -> None:
    """Raise if the announced size, or the first bytes, are not those of the zip."""
    length = headers["Content-Length"]  # None where the server does not know
    total = archive.size_bytes if length is None else start + int(length)
    if total == archive.size_bytes and (start or not chunk or chunk.startswith(b"PK")):
        return
    raise DownloadError(
        f"{archive.url}: the server sent another file ({headers['Content-Type']}, {total:,} bytes), not the "
        f"zip of {archive.size_bytes:,} bytes. Open it in a browser: the network may ask for a login. If the "
        "archive was replaced, unpack the new one by hand as <root>/Kitti2015"
    )


def refusal(archive: Archive, error: HTTPError) -> str:
    return (
        f"{archive.url}: the server answered {error.code} {error.reason}. If the file has moved, get it from "
        "www.cvlibs.net/datasets/kitti/eval_scene_flow.php and unpack it by hand as <root>/Kitti2015"
    )


def bad_part(part: Path, reason: str) -> DownloadError:
    """Delete a file known to be bad, so that the next call starts afresh."""
    part.unlink()
    part.with_suffix(".etag").unlink(missing_ok=True)
    return DownloadError(f"{part.name} was damaged or another file ({reason}); it is deleted now: run again")


# ---- Unpacking ----


def unpack_all(archives: tuple[Archive, ...], parts: list[Path], target: Path) -> None:
    """Unpack beside `target` and rename at the end: `target` is complete or not there at all."""
    temporary = target.with_name(f"{target.name}.unpacking")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        for part in parts:
            unpack(part, temporary)
        note = [note_of(archive, part) for archive, part in zip(archives, parts, strict=True)]
        (temporary / "download.json").write_text(json.dumps(note, indent=2) + "\n")
        if target.exists():
            target.rmdir()  # empty: checked at the start
        temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    for part in parts:
        part.unlink()
        part.with_suffix(".etag").unlink(missing_ok=True)


def unpack(part: Path, folder: Path) -> None:
    """Unpack a zip into `folder`; the CRC of every entry is checked while it is read."""
    try:
        with zipfile.ZipFile(part) as archive:
            entries = archive.infolist()
            for entry in entries:
                refuse_escape(entry)
            require_space(folder.parent, sum(entry.file_size for entry in entries))
            for entry in tqdm(entries, desc=f"unpack {part.stem}"):
                archive.extract(entry, folder)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise bad_part(part, str(error)) from error


def refuse_escape(entry: zipfile.ZipInfo) -> None:
    """Raise for an entry that could write outside the folder: an absolute path, `..`, or a link."""
    path = PurePosixPath(entry.filename.replace("\\", "/"))
    is_link = stat.S_ISLNK(entry.external_attr >> 16)
    if path.is_absolute() or ".." in path.parts or ":" in entry.filename or is_link:
        raise zipfile.BadZipFile(f"the entry {entry.filename!r} would land outside the folder")


def note_of(archive: Archive, part: Path) -> dict:
    digest = hashlib.sha256()
    with open(part, "rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    date = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return {"url": archive.url, "size_bytes": part_size(part), "sha256": digest.hexdigest(), "date": date}
