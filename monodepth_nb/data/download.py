"""Download KITTI 2015 stereo: resumable, verified, and unpacked completely or not at all.

Source: Menze and Geiger, "Object Scene Flow for Autonomous Vehicles", CVPR 2015, www.cvlibs.net,
licence CC BY-NC-SA 3.0. Every failure is a `DownloadError` that names the remedy; it is always safe to run again.
"""

import errno
import hashlib
import json
import os
import shutil
import ssl
import time
import zipfile
import zlib
from dataclasses import dataclass
from datetime import datetime, timezone
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from tqdm import tqdm

CHUNK_BYTES = 1 << 20
TIMEOUT_S = 30
RETRY_PAUSES_S = (1, 4, 15, 30)  # between attempts that receive nothing; any progress starts the list again
DROPPED = (URLError, ConnectionError, TimeoutError, HTTPException, ssl.SSLError)  # worth another attempt
BY_HAND = "get the zip from www.cvlibs.net/datasets/kitti/eval_scene_flow.php and unpack it as <root>/Kitti2015"
DISK_FULL = "the disk is full: free some space and run again, the download continues where it stopped"
NOT_WRITABLE = "the folder is not writable: pass another root"
DISK_REMEDIES = dict.fromkeys((errno.ENOSPC, errno.EDQUOT), DISK_FULL)
DISK_REMEDIES |= dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), NOT_WRITABLE)


class DownloadError(RuntimeError):
    """The data could not be fetched; the message names the file and the remedy."""


@dataclass(frozen=True)
class Archive:
    """A zip on a server. KITTI publishes no checksum, so the right file is recognised by its size."""

    url: str
    size_bytes: int

    def part(self, folder: Path) -> Path:
        """Where the bytes received so far are kept."""
        return folder / f"{self.url.rsplit('/', 1)[-1]}.part"


KITTI_SERVER = "https://s3.eu-central-1.amazonaws.com/avg-kitti"
KITTI2015 = (
    Archive(f"{KITTI_SERVER}/data_scene_flow.zip", 1_681_488_619),  # images and disparity
    Archive(f"{KITTI_SERVER}/data_scene_flow_calib.zip", 1_631_055),  # focal length, baseline
)


def data_folder() -> Path:
    """Where data sets are kept: MONODEPTH_DATA, else `datasets/` beside the package."""
    return Path(os.environ.get("MONODEPTH_DATA", Path(__file__).resolve().parents[2] / "datasets"))


def download_kitti2015(root: str | Path = "datasets", archives: tuple[Archive, ...] = KITTI2015) -> Path:
    """Return the folder `root/Kitti2015` with `training/` and `testing/`, downloaded first if it does not exist.

    An existing folder, whoever made it, is used as it is. An interrupted download continues where it stopped.
    `download.json` in the folder records what was fetched (URL, size, SHA-256, date). Raises `DownloadError`.
    """
    target = Path(root) / "Kitti2015"
    if (target / "training" / "image_2").is_dir():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists() and any(target.iterdir()):
            raise DownloadError(f"{target} holds something else: move it away, or pass another root")
        require_space(archives, target.parent)
        unpack_all({fetch(archive, target.parent): archive for archive in archives}, target)
    except OSError as error:
        if error.errno not in DISK_REMEDIES:
            raise
        raise DownloadError(f"{target.parent}: {DISK_REMEDIES[error.errno]} ({error})") from error
    return target


def require_space(archives: tuple[Archive, ...], folder: Path) -> None:
    # The zips hold PNG files, which are already compressed: unpacking needs the same space again.
    needed = sum(2 * archive.size_bytes - size_of(archive.part(folder)) for archive in archives)
    free = shutil.disk_usage(folder).free
    if needed > free:
        space = f"{free / 1e9:.2f} GB free, {needed / 1e9:.2f} GB are needed"
        raise DownloadError(f"{folder} has {space}: free some space, or pass a root on another disk")


# ---- One zip over HTTP ----


def fetch(archive: Archive, folder: Path) -> Path:
    """Receive all of `archive` into its part file in `folder`, with new attempts after a dropped connection."""
    part = archive.part(folder)
    pauses = iter(RETRY_PAUSES_S)
    while (before := size_of(part)) < archive.size_bytes:
        try:
            receive(archive, part)
        except DROPPED as error:
            refuse_lasting(archive, error)
            have = size_of(part)
            pauses = iter(RETRY_PAUSES_S) if have > before else pauses
            pause = next(pauses, None)
            if pause is None:
                progress = f"connection lost ({error}) after {have:,} of {archive.size_bytes:,} bytes"
                raise DownloadError(f"{archive.url}: {progress}: run again later to continue from there") from error
            time.sleep(pause)
    return part


def refuse_lasting(archive: Archive, error: Exception) -> None:
    """Raise for an error that another attempt would meet again."""
    if isinstance(error, HTTPError) and error.code < 500:
        answer = f"the server answered {error.code} {error.reason}. If the file has moved, {BY_HAND}"
    elif isinstance(getattr(error, "reason", None), ssl.SSLCertVerificationError):
        answer = (
            f"the server's certificate was not accepted ({error.reason}): set the clock right; "
            "with Python from python.org on macOS, run its 'Install Certificates.command'"
        )
    else:
        return
    raise DownloadError(f"{archive.url}: {answer}") from error


def receive(archive: Archive, part: Path) -> None:
    """One request: append what is missing to `part`, or start over where the server cannot resume.

    Nothing is written before the answer is known to be this zip, so that a login page does not spoil a good part.
    """
    have, tag = size_of(part), part.with_suffix(".etag")
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
        bar = tqdm(total=archive.size_bytes, initial=start, unit="B", unit_scale=True, desc=part.stem)
        with open(part, "ab" if start else "wb") as file, bar:
            while chunk:
                file.write(chunk)
                bar.update(len(chunk))
                chunk = answer.read(CHUNK_BYTES)
    if size_of(part) < archive.size_bytes:
        raise ConnectionError("closed by the server before the end")


def refuse_another_file(archive: Archive, headers, start: int, chunk: bytes) -> None:
    """Raise if the announced size, or the first bytes, are not those of the zip."""
    length = headers["Content-Length"]  # None where the server does not know
    total = archive.size_bytes if length is None else start + int(length)
    if total != archive.size_bytes or not (start or chunk.startswith(b"PK") or not chunk):
        raise DownloadError(
            f"{archive.url}: the server sent another file ({headers['Content-Type']}, {total:,} bytes), not the zip of "
            f"{archive.size_bytes:,} bytes. Open it in a browser: the network may ask for a login. Otherwise {BY_HAND}"
        )


def size_of(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def delete(part: Path) -> None:
    part.unlink()
    part.with_suffix(".etag").unlink(missing_ok=True)


# ---- Unpacking ----


def unpack_all(archives: dict[Path, Archive], target: Path) -> None:
    """Unpack beside `target` and rename at the end, so that `target` is complete or does not exist."""
    temporary = target.with_name(f"{target.name}.unpacking")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        record = [unpack(archive, part, temporary) for part, archive in archives.items()]
        (temporary / "download.json").write_text(json.dumps(record, indent=2) + "\n")
        if target.exists():
            target.rmdir()  # empty: checked at the start
        temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    for part in archives:
        delete(part)


def unpack(archive: Archive, part: Path, folder: Path) -> dict[str, str | int]:
    """Unpack a zip and return its record. `zipfile` checks every CRC and keeps every entry inside of `folder`."""
    try:
        if size_of(part) != archive.size_bytes:
            raise zipfile.BadZipFile(f"{size_of(part):,} bytes, {archive.size_bytes:,} expected")
        with zipfile.ZipFile(part) as entries:
            for entry in tqdm(entries.infolist(), desc=f"unpack {part.stem}"):
                entries.extract(entry, folder)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        delete(part)  # so that the next call starts afresh
        raise DownloadError(f"{part.name} was damaged or another file ({error}) and is deleted: run again") from error
    digest = hashlib.sha256()
    with open(part, "rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    date = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return {"url": archive.url, "size_bytes": archive.size_bytes, "sha256": digest.hexdigest(), "date": date}
