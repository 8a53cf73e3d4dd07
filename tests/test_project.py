"""The promises that the repository makes about itself."""

import ast
import re
from pathlib import Path

import pytest
import yaml

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "monodepth_nb"
CONDA_NAMES = {
    "pytorch": "torch",
    "opencv": "opencv-python-headless",
    "matplotlib-base": "matplotlib",
    "seaborn-base": "seaborn",
}


def parsed(lines):
    """{package: lower bound} of lines like "numpy>=1.26"."""
    return dict(line.split(">=") for line in lines if line.strip() and not line.startswith("#"))


def test_requirements_environment_and_pyproject_name_the_same_packages_and_bounds():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    optional = project["optional-dependencies"]
    wanted = parsed(project["dependencies"] + optional["notebooks"] + optional["test"])
    requirements = parsed((ROOT / "requirements.txt").read_text().splitlines())
    *lines, from_pip = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    conda = parsed(lines + from_pip["pip"])
    assert conda.pop("pip")  # it installs the project itself; newer Pythons of conda-forge come without
    assert conda.pop("python") == project["requires-python"].removeprefix(">=")
    assert requirements == wanted
    assert {CONDA_NAMES.get(name, name): bound for name, bound in conda.items()} == wanted


# ---- Which module may import which ----

MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
OUTCOME = {"evaluation", "inference", "onnx_export", "figures", "benchmark", "gpu_check", "__main__", "__init__"}
ROOMS = {"data", "streets", "course"}
METHOD = tuple(name for name in MODULES if name not in OUTCOME | ROOMS and "." not in name)
FORBIDDEN = [  # (importing modules or rooms, imported modules or rooms)
    (METHOD, ("course", "streets", "figures", "inference", "__main__")),
    (("losses", "networks"), ("data",)),
    (("data",), ("networks", "training", "evaluation", "streets", "course")),
    (("evaluation",), ("streets", "course")),
    (tuple(name for name in MODULES if name != "__main__" and not name.startswith("course")), ("course",)),
]


def imports(name, at_once=False):
    """What a module imports: "torch", "data.kitti", "data.kitti.read_image"; at_once: not what its functions import."""
    tree = ast.parse(MODULES[name].read_text())
    for node in tree.body if at_once else ast.walk(tree):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: relative imports are not followed here"
            found = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        yield from (module.removeprefix("monodepth_nb.") for module in found)


def within(module, rooms):
    return any(module == room or module.startswith(f"{room}.") for room in rooms)


@pytest.mark.parametrize(("importers", "imported"), FORBIDDEN)
def test_no_module_imports_what_its_room_must_not_know(importers, imported):
    names = [name for name in MODULES if within(name, importers)]
    assert {(name, module) for name in names for module in imports(name) if within(module, imported)} == set()


def test_the_method_is_what_the_rules_on_imports_take_for_it():
    assert {"networks", "pretrained", "losses", "training", "checkpoints", "machine"} <= set(METHOD)
    assert {name for rule in FORBIDDEN for names in rule for name in names} <= set(MODULES)


def test_the_command_line_loads_notebook_tools_and_matplotlib_only_for_commands_that_use_them():
    loaded, waiting = set(), {"__main__"}
    while waiting:
        loaded |= waiting
        waiting = {module for name in waiting for module in imports(name, at_once=True) if module in MODULES} - loaded
    external = {module.split(".")[0] for name in loaded for module in imports(name, at_once=True)}
    assert not external & {"jupytext", "nbformat", "nbclient", "nbconvert", "matplotlib", "seaborn"}


def test_no_module_is_longer_than_330_lines():
    lines = {name: len(path.read_text().splitlines()) for name, path in MODULES.items()}
    assert {name: count for name, count in lines.items() if count > 330} == {}


# ---- What README and docs say ----

PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / ".github").glob("*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_internal_link_leads_to_a_file(page):
    links = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_every_decimal_of_the_readmes_results_was_printed_by_a_stored_notebook():
    results = (ROOT / "README.md").read_text().partition("## Results")[2].partition("Real streets")[0]
    printed = "".join(path.read_text() for path in (ROOT / "notebooks").glob("*.ipynb"))
    decimals = set(re.findall(r"(?<![\w.])\d+\.\d+", results))
    assert decimals and {number for number in decimals if number not in printed} == set()


def test_the_readme_is_short_enough_to_be_read():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 130
