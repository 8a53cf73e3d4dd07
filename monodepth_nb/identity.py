"""What a stored result depends on, as short texts that are stored beside it, so that an edit makes it stale.

The texts are a hash of every module that computes it (`code_of`), and a line for each object involved (`described`).
Whoever finds other texts there computes anew, and keeps the old result (`move_aside`).
"""

import ast
import hashlib
import sys
from collections.abc import Iterator
from functools import partial
from itertools import count
from pathlib import Path
from types import CodeType, FunctionType

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import ConcatDataset, Subset

PACKAGE = Path(__file__).parent
# These store, draw, fetch, report or judge numbers, and compute none.
NEUTRAL = {"checkpoints", "identity", "figures", "data.download", "course.results", "course.verdicts"}
PLAIN = (type(None), bool, int, float, str, bytes, Path, torch.dtype, torch.device)
PARSED: dict = {}  # by name and path of a module: version, (hash, imports, names of its functions) and spec


def short_hash(content) -> str:
    return hashlib.sha256(content if isinstance(content, bytes) else str(content).encode()).hexdigest()[:8]


def move_aside(folder: Path) -> Path:
    """Rename `folder` to the first free of NAME_old1, NAME_old2 ...; returns its new path."""
    paths = (folder.with_name(f"{folder.name}_old{n}") for n in count(1))
    return folder.rename(next(path for path in paths if not path.exists()))


def changed_code(old: dict[str, str], new: dict[str, str]) -> str:
    """For a message: the modules whose hashes differ between two results of `code_of`; the older one may be empty."""
    names = [name for name in sorted(old | new) if old.get(name) != new.get(name)]
    return f"the code of {', '.join(names)} changed since" if old else "it was made by an older version"


def code_of(*roots: str | Path, loaded: bool = True) -> dict[str, str]:
    """{module: hash} of modules of the package and of all that they import, directly or not, except NEUTRAL.

    roots:  names such as "data.kitti", or paths of scripts. Comments and docstrings do not count.
    loaded: as this process runs them; False: as their files are now, which is what another process will run
    """
    found, waiting = {}, list(roots)
    while waiting:
        root = waiting.pop()
        name, path = (root.stem, root) if isinstance(root, Path) else (root, file_of(root))
        if name not in found and name not in NEUTRAL and path.is_file():
            found[name], imports = parsed(f"monodepth_nb.{name}" if loaded else "", path)
            waiting += imports
    return dict(sorted(found.items()))


def file_of(name: str) -> Path:
    return PACKAGE.joinpath(*name.split(".")).with_suffix(".py")


def parsed(module: str, path: Path) -> tuple[str, list[str]]:
    """Hash and imports of a module. The hash of a loaded module is kept until the module is reloaded."""
    loaded = sys.modules.get(module)
    version = id(loaded.__spec__) if loaded else path.stat().st_mtime_ns
    if PARSED.get((module, path), [None])[0] != version:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        defined = [node.name for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef))]
        parts = short_hash(without_comments(tree)), list(imports_of(tree)), defined
        PARSED[module, path] = version, parts, loaded and loaded.__spec__  # kept, so that no other gets its id
    code, imports, defined = PARSED[module, path][1]
    # Functions that were replaced from outside, as by `losses.ssim_distance = mine`.
    live = [getattr(loaded, name, None) for name in defined]
    replaced = [described(f) for f in live if getattr(f, "__module__", module) != module]
    return short_hash([code, replaced]) if replaced else code, imports


def without_comments(node):
    """A syntax tree as nested lists, without positions and docstrings: the same in all versions of Python."""
    if isinstance(node, list):
        texts = [isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant) for n in node]
        return [without_comments(n) for n, text in zip(node, texts, strict=True) if not text]
    if not isinstance(node, ast.AST):
        return node
    return [type(node).__name__, *((k, without_comments(v)) for k, v in ast.iter_fields(node) if v not in (None, []))]


def imports_of(tree: ast.Module) -> Iterator[str]:
    """The modules of the package that a module imports, also within its functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and f"{node.module}.".startswith("monodepth_nb."):
            inside = node.module.removeprefix("monodepth_nb").removeprefix(".")
            for name in (f"{inside}.{alias.name}".removeprefix(".") for alias in node.names):
                yield name if file_of(name).is_file() else inside or "__init__"


def described(value, outer: tuple = ()) -> str:
    """One line, equal for equal objects: class and public attributes, and the code of what is in no installed package.

    A data set is described by its class, the number of its pairs and their names; a tensor by its shape and a hash.
    """
    if isinstance(value, PLAIN) or id(value) in outer:
        return "..." if id(value) in outer else str(value)
    inner = partial(described, outer=(*outer, id(value)))
    if isinstance(value, (list, tuple, set, frozenset)):
        texts = [inner(v) for v in value]
        return f"[{', '.join(texts if isinstance(value, (list, tuple)) else sorted(texts))}]"
    if isinstance(value, (np.ndarray, np.generic)):
        return f"array{list(value.shape)} {value.dtype}#{short_hash(value.tobytes())}"
    if isinstance(value, Tensor):
        content = value.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes()
        return f"tensor{list(value.shape)}#{short_hash(content)}"
    if isinstance(value, (FunctionType, type)):
        return value.__qualname__ + own_code(value, inner)
    public = dict(value if isinstance(value, dict) else getattr(value, "__dict__", {}))
    if isinstance(value, partial):
        public |= {"of": value.func, "args": value.args, "keywords": value.keywords}
    elif isinstance(value, nn.Module):
        public |= value._modules | value._parameters | value._buffers
    elif hasattr(value, "__func__"):  # a method
        public |= {"of": getattr(value, "__self__", None), "code": value.__func__}
    elif hasattr(value, "__getitem__") and not isinstance(value, dict):
        public = {"pairs": len(value), "names": short_hash(names_of(value))}
    shown = {str(k): v for k, v in public.items() if str(k)[0] != "_" and k != "training"}
    return f"{inner(type(value))}({', '.join(f'{k}={inner(shown[k])}' for k in sorted(shown))})"


def own_code(value: FunctionType | type, inner) -> str:
    """A hash of the compiled code of a function or class that is in no installed package, with what it uses."""
    file = getattr(sys.modules.get(value.__module__), "__file__", None) or ""
    if value.__module__.split(".")[0] in {"monodepth_nb", *sys.stdlib_module_names} or "-packages" in file:
        return ""  # `code_of` covers the package
    if isinstance(value, type):
        members = {k: getattr(v, "__func__", getattr(v, "fget", v)) for k, v in vars(value).items()}
        used = {k: v for k, v in members.items() if isinstance(v, FunctionType) or k[:2] != "__"}
        return f"#{short_hash([*map(inner, value.__bases__), inner(used)])}"
    code, names = compiled(value.__code__)
    used = {name: value.__globals__[name] for name in names if name in value.__globals__}
    used |= {k: c.cell_contents for k, c in zip(value.__code__.co_freevars, value.__closure__ or (), strict=True)}
    # Not lists, dictionaries and tensors, which change in use.
    used = {k: v for k, v in used.items() if isinstance(v, (*PLAIN, tuple, FunctionType, type))}
    return f"#{short_hash([code, inner(used), inner([value.__defaults__, value.__kwdefaults__])])}"


def compiled(code: CodeType) -> tuple[list, set[str]]:
    """Instructions and constants of a function and those within it, without positions; and the names they use."""
    inner = [compiled(c) for c in code.co_consts if isinstance(c, CodeType)]
    constants = [described(c) for c in code.co_consts if not isinstance(c, CodeType)]
    names = set(code.co_names).union(*(names for _, names in inner))
    return [code.co_code, code.co_names, constants, [parts for parts, _ in inner]], names


def names_of(data) -> list[str] | None:
    """The names of a data set's pairs, where it, or the data set that it wraps, knows them."""
    if isinstance(data, list):
        return [pair.get("name") for pair in data]
    if isinstance(data, ConcatDataset):
        return [name for part in data.datasets for name in names_of(part) or [None]]
    wrapped = getattr(data, "dataset", getattr(data, "pairs", None))
    names = list(getattr(data, "names", [])) or (names_of(wrapped) if wrapped is not None else None)
    return [names[i] for i in data.indices] if names and isinstance(data, Subset) else names
