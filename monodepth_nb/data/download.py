"""Download KITTI 2015 stereo: resumable, checked, and unpacked completely or not at all.

Source: Menze and Geiger, "Object Scene Flow for Autonomous Vehicles", CVPR 2015, www.cvlibs.net,
licence CC BY-NC-SA 3.0. Every failure is a `DownloadError` that names the remedy; it is always safe to run again.
"""

import os
import shutil
import ssl
import sys
import time
import zipfile
import zlib
from http.client import HTTPException
from pathlib import Path
from typing import NamedTuple
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from tqdm.auto import tqdm

CHUNK_BYTES = 1 << 20
TIMEOUT_S = 15
RETRY_PAUSES_S = (1, 4, 10)  # between attempts that receive nothing; any progress starts the list again
DROPPED = (URLError, ConnectionError, TimeoutError, HTTPException, ssl.SSLError)  # worth another attempt
BY_HAND = "get the zip from www.cvlibs.net/datasets/kitti/eval_scene_flow.php and unpack it as <root>/Kitti2015"
MORE_SPACE = "free some space or pass another root, and run again: the download continues where it stopped"


class DownloadError(RuntimeError):
    """The message names the file and the remedy."""


class Archive(NamedTuple):
    """A zip on a server. KITTI publishes no checksum, so the right file is recognised by its size."""

    url: str
    size_bytes: int


KITTI_SERVER = "https://s3.eu-central-1.amazonaws.com/avg-kitti"
KITTI2015 = (
    Archive(f"{KITTI_SERVER}/data_scene_flow.zip", 1_681_488_619),  # images and disparity
    Archive(f"{KITTI_SERVER}/data_scene_flow_calib.zip", 1_631_055),  # focal length, baseline
)


def data_folder() -> Path:
    return folder_of("MONODEPTH_DATA", "datasets")


def build_folder() -> Path:
    return folder_of("MONODEPTH_BUILD", "build")


def folder_of(variable: str, name: str) -> Path:
    """What the environment variable says, else `name` in the checkout that one stands in, else in the user's cache."""
    if chosen := os.environ.get(variable):
        return Path(chosen).expanduser()
    if root := checkout():
        return root / name
    from platformdirs import user_cache_path  # a checkout does without

    return user_cache_path("monodepth_nb") / name


def checkout() -> Path | None:
    """The copy of the repository that holds the current folder."""
    here = Path.cwd()
    parts = ("monodepth_nb/__init__.py", "notebooks", "pyproject.toml")
    return next((p for p in (here, *here.parents) if all((p / part).exists() for part in parts)), None)


def download_kitti2015(root: str | Path | None = None, archives: tuple[Archive, ...] = KITTI2015) -> Path:
    """Return the folder `root/Kitti2015` with `training/` and `testing/`, downloaded first if it does not exist.

    root: default: `data_folder()`
    An existing folder, whoever made it, is used as it is. An interrupted download continues where it stopped.
    Raises `DownloadError`.
    """
    target = Path(root or data_folder()) / "Kitti2015"
    if (target / "training" / "image_2").is_dir():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists() and any(target.iterdir()):
            raise DownloadError(f"{target} holds something else: move it away, or pass another root")
        # The files that keep the bytes received so far.
        parts = {archive: target.parent / f"{archive.url.rsplit('/', 1)[-1]}.part" for archive in archives}
        # The zips hold PNG files, which do not shrink any more: unpacked they need as much space again.
        needed = sum(2 * archive.size_bytes - size_of(part) for archive, part in parts.items())
        free = shutil.disk_usage(target.parent).free
        if needed > free:
            raise OSError(f"{free / 1e9:.2f} of the {needed / 1e9:.2f} GB needed are free")
        for archive, part in parts.items():
            fetch(archive, part)
        unpack_all(parts, target)
    except OSError as error:  # of the disk: those of the network are handled in `fetch`
        raise DownloadError(f"{target.parent}: {error}: {MORE_SPACE}") from error
    return target


def size_of(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


# ---- One zip over HTTP ----


def fetch(archive: Archive, part: Path) -> None:
    """Receive all of `archive` into `part`, with new attempts after a dropped connection."""
    pauses = iter(RETRY_PAUSES_S)
    while (before := size_of(part)) < archive.size_bytes:
        try:
            receive(archive, part)
        except DROPPED as error:
            have = size_of(part)
            pauses = iter(RETRY_PAUSES_S) if have > before else pauses
            if problem := lasting_problem(error):
                raise DownloadError(f"{archive.url}: {problem}") from error
            if (pause := next(pauses, None)) is None:
                progress = f"connection lost ({error}) after {have:,} of {archive.size_bytes:,} bytes"
                raise DownloadError(f"{archive.url}: {progress}: run again later to continue from there") from error
            print(f"{archive.url}: {error}; trying again in {pause} s", file=sys.stderr)
            time.sleep(pause)


def lasting_problem(error: Exception) -> str | None:
    """What to say of an error that another attempt would meet again."""
    if isinstance(error, HTTPError) and error.code < 500:
        return f"the server answered {error.code} {error.reason}. If the file has moved, {BY_HAND}"
    if isinstance(getattr(error, "reason", None), ssl.SSLCertVerificationError):
        remedy = "set the clock right; with Python from python.org on macOS, run its 'Install Certificates.command'"
        return f"the server's certificate was not accepted ({error.reason}): {remedy}"
    return None


def receive(archive: Archive, part: Path) -> None:
    """One request: append what is missing to `part`, or start over where the server cannot resume."""
    have = size_of(part)
    request = Request(archive.url, headers={"Range": f"bytes={have}-"} if have else {})
    with urlopen(request, timeout=TIMEOUT_S) as answer:
        start = have if answer.status == 206 else 0
        size = start + int(answer.headers["Content-Length"] or 0)
        if size != archive.size_bytes:  # nothing is written, so that a login page does not spoil a good part
            found = f"another file ({answer.headers['Content-Type']}, {size:,} bytes)"
            remedy = f"Open it in a browser: the network may ask for a login. Otherwise {BY_HAND}"
            raise DownloadError(f"{archive.url}: {found} instead of the zip of {archive.size_bytes:,} bytes. {remedy}")
        bar = {"total": size, "initial": start, "unit": "B", "unit_scale": True, "desc": part.stem}
        with open(part, "ab" if start else "wb") as file, tqdm.wrapattr(file, "write", **bar) as watched:
            shutil.copyfileobj(answer, watched, CHUNK_BYTES)
    if size_of(part) < archive.size_bytes:
        raise ConnectionError("closed by the server before the end")


# ---- Unpacking ----


def unpack_all(parts: dict[Archive, Path], target: Path) -> None:
    """Unpack beside `target` and rename at the end, so that `target` is complete or does not exist."""
    temporary = target.with_name(f"{target.name}.unpacking")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        for archive, part in parts.items():
            unpack(archive, part, temporary)
        if target.exists():
            target.rmdir()  # empty: checked at the start
        temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    for part in parts.values():
        part.unlink()


def unpack(archive: Archive, part: Path, folder: Path) -> None:
    """Unpack a zip into `folder`. `zipfile` checks every CRC and keeps every entry inside of the folder."""
    try:
        if size_of(part) != archive.size_bytes:
            raise zipfile.BadZipFile(f"{size_of(part):,} bytes, {archive.size_bytes:,} expected")
        with zipfile.ZipFile(part) as entries:
            entries.extractall(folder, tqdm(entries.namelist(), desc=f"unpack {part.stem}"))
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        part.unlink()  # so that the next call starts afresh
        raise DownloadError(f"{part.name} was damaged or another file ({error}) and is deleted: run again") from error
