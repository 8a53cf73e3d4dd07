"""The promises that the repository makes about itself."""

from pathlib import Path

import yaml

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
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
    conda = parsed(yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"])
    assert conda.pop("pip")  # it installs the project itself; newer Pythons of conda-forge come without
    assert conda.pop("python") == project["requires-python"].removeprefix(">=")
    assert requirements == wanted
    assert {CONDA_NAMES.get(name, name): bound for name, bound in conda.items()} == wanted
