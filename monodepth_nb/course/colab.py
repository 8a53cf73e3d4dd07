"""Write the repository's address into notebooks and README: `make colab REPO=https://github.com/you/name`."""

import re
from pathlib import Path

from monodepth_nb.course import ROOT

ADDRESS = re.compile(r"https://github\.com/([\w.-]+/[\w.-]+?)(?:\.git)?/?")
BADGE = re.compile(r"colab\.research\.google\.com/github/([\w.-]+/[\w.-]+)/")


def set_repository(address: str, root: Path = ROOT) -> list[Path]:
    """Replace OWNER/NAME in the Colab links and clone addresses below `root`. Returns the files that changed.

    Raises ValueError for an address that is not https://github.com/OWNER/NAME.
    """
    match = ADDRESS.fullmatch(address)
    if not match:
        raise ValueError(f"{address!r} is not an address like https://github.com/you/name")
    readme = root / "README.md"
    old = BADGE.search(readme.read_text(encoding="utf-8"))[1]
    changed = []
    for path in (readme, *sorted((root / "notebooks").glob("0*.*"))):
        text = path.read_text(encoding="utf-8")
        if old in text and old != match[1]:
            path.write_text(text.replace(old, match[1]), encoding="utf-8")
            changed.append(path)
    return changed
