"""Write the repository's address into notebooks and README: `make colab`."""

import re
import subprocess
from pathlib import Path

from monodepth_nb.course import ROOT

# As a browser shows it, or as git does: git@github.com:you/name.git, ssh://git@github.com/you/name.git
ADDRESS = re.compile(r"(?:(?:https|ssh)://(?:[^/@]+@)?github\.com/|git@github\.com:)([\w.-]+/[\w.-]+?)(?:\.git)?/?")
BADGE = re.compile(r"colab\.research\.google\.com/github/([\w.-]+/[\w.-]+)/")


def set_repository(address: str | None = None, root: Path = ROOT) -> list[Path]:
    """Replace OWNER/NAME in the Colab links and clone addresses below `root`. Returns the files that changed.

    address: default: that of the remote `origin`
    Raises ValueError for an address that is not of GitHub, and where there is none.
    """
    address = address or origin_of(root)
    match = ADDRESS.fullmatch(address)
    if not match:
        raise ValueError(f"{address!r} is not an address like https://github.com/you/name")
    paths = root / "README.md", *sorted((root / "notebooks").glob("0*.*"))
    texts = {path: path.read_text(encoding="utf-8") for path in paths}
    olds = {path: badge[1] for path, text in texts.items() if (badge := BADGE.search(text))}  # each file's own
    changed = [path for path, old in olds.items() if old != match[1]]
    for path in changed:
        path.write_text(texts[path].replace(olds[path], match[1]), encoding="utf-8")
    return changed


def origin_of(root: Path) -> str:
    command = ["git", "-C", str(root), "remote", "get-url", "origin"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError) as error:
        raise ValueError(f"{root} has no git remote called origin: pass https://github.com/you/name") from error
