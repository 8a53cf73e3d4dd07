"""What a reader may rely on when opening a notebook. That they run is checked by nbmake (`make smoke`)."""

import re
import subprocess
import sys
import types
from functools import cache
from importlib.machinery import PathFinder
from pathlib import Path

import jupytext
import nbformat
import pytest

from monodepth_nb.__main__ import main
from monodepth_nb.course.colab import set_repository

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = sorted((ROOT / "notebooks").glob("0*.py"))
each_notebook = pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)


@cache
def cells(path):
    return jupytext.read(path).cells


@cache
def executed_cells(script):
    notebook = nbformat.read(script.with_suffix(".ipynb"), as_version=4)
    return [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]


def setup_cell(script):
    return next(c.source for c in cells(script) if "setup" in c.metadata.get("tags", []))


def test_the_course_has_its_five_notebooks_with_one_setup_cell():
    assert [script.stem for script in SCRIPTS] == [
        "01_data_wrangling", "02_single_image_overfit", "03_learning_rate_study", "04_full_dataset",
        "05_semantic_extension",
    ]  # fmt: skip
    assert len({setup_cell(script) for script in SCRIPTS}) == 1


@each_notebook
def test_script_and_notebook_hold_the_same_cells(script):
    ours, theirs = (
        [(c.cell_type, c.source.strip()) for c in cells(path)] for path in (script, script.with_suffix(".ipynb"))
    )
    assert ours == theirs


@each_notebook
def test_stored_cells_ran_in_order_and_without_error_and_fit_in_2_megabytes(script):
    code = executed_cells(script)
    assert [c.execution_count for c in code] == list(range(1, len(code) + 1))
    assert not [o for c in code for o in c.outputs if o.output_type == "error"]
    assert script.with_suffix(".ipynb").stat().st_size < 2_000_000


@each_notebook
def test_stored_outputs_say_where_they_come_from_and_hold_a_figure_but_no_paths_and_no_progress_bars(script):
    outputs = "\n".join(str(output) for cell in executed_cells(script) for output in cell.outputs)
    assert re.search(r"Provenance: (long|paper) profile; data: .*torch \d.*\d{4}-\d\d-\d\d; [\d.]+ min", outputs)
    assert "image/png" in outputs or "image/jpeg" in outputs
    text = re.sub(r"'image/\w+': '[^']*'", "", outputs)
    assert not re.search(r"/home/|/root/|/Users/|/tmp/|[A-Z]:\\\\", text)
    assert not re.search(r"it/s|pair/s\]|widget-view|\d+%\|", text)


@each_notebook
def test_exercises_have_folded_solutions(script):
    text = script.read_text()
    assert text.count("<details><summary>Solution</summary>") == 3
    assert text.count("<details>") == text.count("</details>")


# ---- The set-up cell, on Colab and elsewhere ----


def run_setup_cell(monkeypatch, folder, colab):
    """Run the set-up cell in `folder`, with or without a stand-in for Colab's module; where it ended up."""
    if colab:
        monkeypatch.setitem(sys.modules, "google.colab", types.ModuleType("google.colab"))
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    exec(re.sub(r"^%.*", "", setup_cell(SCRIPTS[0]), flags=re.MULTILINE), {})  # magics need a kernel
    return Path.cwd()


def test_on_colab_the_setup_cell_clones_the_repository_and_enters_it_and_finds_its_package(monkeypatch, tmp_path):
    monkeypatch.setenv("MONODEPTH_REPO", f"file://{ROOT}")
    clone = tmp_path / "monodepth_course"
    assert run_setup_cell(monkeypatch, tmp_path, colab=True) == clone / "notebooks"
    package = PathFinder.find_spec("monodepth_nb", sys.path).origin
    assert Path(package) == clone / "monodepth_nb" / "__init__.py"  # not of this checkout
    again = run_setup_cell(monkeypatch, tmp_path, colab=True)  # after a restart of the kernel
    assert again == clone / "notebooks"


def test_on_colab_an_unset_address_is_reported_with_the_remedy(monkeypatch, tmp_path):
    monkeypatch.setenv("MONODEPTH_REPO", "https://github.com/OWNER/NAME")
    with pytest.raises(RuntimeError, match="make colab REPO="):
        run_setup_cell(monkeypatch, tmp_path, colab=True)


def test_elsewhere_the_setup_cell_stays_in_the_repository_or_asks_for_it(monkeypatch, tmp_path):
    assert run_setup_cell(monkeypatch, ROOT / "notebooks", colab=False) == ROOT / "notebooks"
    with pytest.raises(FileNotFoundError, match="repository"):
        run_setup_cell(monkeypatch, tmp_path, colab=False)


# ---- The repository's address, and what git stores ----


@pytest.fixture
def copy_of_texts(tmp_path):
    (tmp_path / "notebooks").mkdir()
    for path in (ROOT / "README.md", *SCRIPTS):
        (tmp_path / path.relative_to(ROOT)).write_text(path.read_text())
    return tmp_path


def test_one_command_writes_badges_and_clone_address_and_can_be_repeated(copy_of_texts, monkeypatch, capsys):
    monkeypatch.setattr(set_repository, "__defaults__", (None, copy_of_texts))
    for slug in ("ada/depth", "grace/depth-course"):
        assert main(["colab", f"https://github.com/{slug}"]) == 0
        assert len(capsys.readouterr().out.splitlines()) == 1 + len(SCRIPTS)
        assert f"colab.research.google.com/github/{slug}/blob" in (copy_of_texts / "README.md").read_text()
        assert f'"https://github.com/{slug}"' in (copy_of_texts / "notebooks" / SCRIPTS[0].name).read_text()


@pytest.mark.parametrize("origin", ["git@github.com:ada/depth.git", "https://github.com/ada/depth"])
def test_without_an_address_it_is_that_of_gits_origin_and_a_readme_needs_no_badges(copy_of_texts, origin):
    readme = copy_of_texts / "README.md"
    readme.write_text("# Depth\n\nA copy without badges.\n")
    subprocess.run(["git", "init", "-q", str(copy_of_texts)], check=True)
    with pytest.raises(ValueError, match="origin"):
        set_repository(root=copy_of_texts)
    subprocess.run(["git", "-C", str(copy_of_texts), "remote", "add", "origin", origin], check=True)
    assert {path.stem for path in set_repository(root=copy_of_texts)} == {script.stem for script in SCRIPTS}
    assert '"https://github.com/ada/depth"' in (copy_of_texts / "notebooks" / SCRIPTS[0].name).read_text()
    assert set_repository(root=copy_of_texts) == []
    first = copy_of_texts / "notebooks" / SCRIPTS[0].name
    first.write_text((ROOT / "notebooks" / SCRIPTS[0].name).read_text())  # as after a merge of the original
    assert set_repository(root=copy_of_texts) == [first]


@pytest.mark.parametrize("address", ["git@gitlab.com:ada/depth", "ada"])
def test_a_wrong_repository_address_changes_nothing(copy_of_texts, address):
    with pytest.raises(ValueError, match="https://github.com/you/name"):
        set_repository(address, copy_of_texts)
    assert (copy_of_texts / "README.md").read_text() == (ROOT / "README.md").read_text()


def test_git_stores_no_data_sets_and_no_builds():
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert not re.search(r"^(datasets|build|runs)/|\.zip$|(?<!weights/streets)\.pt$", tracked, re.MULTILINE)
