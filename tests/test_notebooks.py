"""What a reader may rely on when opening a notebook. That they run is checked by nbmake (`make smoke`)."""

import re
import subprocess
import sys
import types
from pathlib import Path

import jupytext
import nbformat
import pytest
from nbclient import NotebookClient

from monodepth_nb.course.colab import set_repository

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = sorted((ROOT / "notebooks").glob("0*.py"))
NAMES = [s.stem for s in SCRIPTS]


def cells(path):
    return [(c.cell_type, c.source.strip()) for c in jupytext.read(path).cells]


def setup_cell(script):
    return next(c.source for c in jupytext.read(script).cells if "setup" in c.metadata.get("tags", []))


def output_text(script):
    notebook = nbformat.read(script.with_suffix(".ipynb"), as_version=4)
    return [str(o) for c in notebook.cells if c.cell_type == "code" for o in c.outputs]


def test_the_course_has_its_five_notebooks():
    assert NAMES == [
        "01_data_wrangling", "02_single_image_overfit", "03_learning_rate_study", "04_full_dataset",
        "05_semantic_extension",
    ]  # fmt: skip


@pytest.mark.parametrize("script", SCRIPTS, ids=NAMES)
def test_script_and_notebook_hold_the_same_cells(script):
    assert cells(script) == cells(script.with_suffix(".ipynb"))


@pytest.mark.parametrize("script", SCRIPTS, ids=NAMES)
def test_stored_cells_ran_in_order_and_without_error(script):
    code = [
        c for c in nbformat.read(script.with_suffix(".ipynb"), as_version=4).cells
        if c.cell_type == "code" and c.source.strip()
    ]  # fmt: skip
    assert [c.execution_count for c in code] == list(range(1, len(code) + 1))
    assert not [o for c in code for o in c.outputs if o.output_type == "error"]


@pytest.mark.parametrize("script", SCRIPTS, ids=NAMES)
def test_stored_outputs_say_where_they_come_from_and_hold_a_figure(script):
    outputs = output_text(script)
    provenance = re.compile(r"Provenance: (demo|paper) profile; data: .*torch \d.*\d{4}-\d\d-\d\d; [\d.]+ min")
    assert any(provenance.search(o) for o in outputs)
    assert any("image/png" in o or "image/jpeg" in o for o in outputs)


@pytest.mark.parametrize("script", SCRIPTS, ids=NAMES)
def test_stored_outputs_hold_no_paths_of_a_machine_and_no_progress_bars(script):
    for output in output_text(script):
        text = re.sub(r"'image/\w+': '[^']*'", "", output)
        assert not re.search(r"/home/|/root/|/Users/|/tmp/|[A-Z]:\\\\", text)
        assert not re.search(r"it/s|pair/s\]|widget-view|\d+%\|", text)


@pytest.mark.parametrize("script", SCRIPTS, ids=NAMES)
def test_no_notebook_is_larger_than_3_megabytes(script):
    assert script.with_suffix(".ipynb").stat().st_size < 3_000_000


def test_all_notebooks_begin_with_the_same_setup_cell():
    assert len({setup_cell(s) for s in SCRIPTS}) == 1


def run_setup_cell(monkeypatch, folder, colab):
    """Run the set-up cell in `folder`, with or without a stand-in for Colab's module; where it ended up."""
    if colab:
        monkeypatch.setitem(sys.modules, "google.colab", types.ModuleType("google.colab"))
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    exec(setup_cell(SCRIPTS[0]), {})
    return Path.cwd()


def test_on_colab_the_setup_cell_fetches_the_repository_and_enters_its_notebooks(monkeypatch, tmp_path):
    monkeypatch.setenv("MONODEPTH_REPO", f"file://{ROOT}")
    assert run_setup_cell(monkeypatch, tmp_path, colab=True) == tmp_path / "monodepth_course" / "notebooks"
    assert (tmp_path / "monodepth_course" / "monodepth_nb" / "networks.py").is_file()
    again = run_setup_cell(monkeypatch, tmp_path, colab=True)  # after a restart of the kernel
    assert again == tmp_path / "monodepth_course" / "notebooks"


def test_a_notebook_alone_in_an_empty_folder_runs_as_on_colab(monkeypatch, tmp_path):
    (tmp_path / "google" / "colab").mkdir(parents=True)  # a stand-in for Colab's module, which its kernels import
    (tmp_path / "google" / "colab" / "__init__.py").touch()
    for name, value in (("PYTHONPATH", tmp_path), ("MONODEPTH_REPO", f"file://{ROOT}"), ("MONODEPTH_PROFILE", "smoke")):
        monkeypatch.setenv(name, str(value))
    (tmp_path / "content").mkdir()
    notebook = jupytext.read(SCRIPTS[0])
    notebook.cells.insert(0, nbformat.v4.new_code_cell("import google.colab"))
    client = NotebookClient(notebook, kernel_name="python3", resources={"metadata": {"path": tmp_path / "content"}})
    client.execute()  # raises if a cell does
    assert "Provenance: smoke profile" in str(notebook.cells[-1].outputs)
    assert (tmp_path / "content" / "monodepth_course" / "datasets").is_dir()  # of the clone, not of this checkout


def test_on_colab_an_unset_address_is_said_with_the_remedy(monkeypatch, tmp_path):
    monkeypatch.setenv("MONODEPTH_REPO", "https://github.com/OWNER/NAME")
    with pytest.raises(RuntimeError, match="make colab REPO="):
        run_setup_cell(monkeypatch, tmp_path, colab=True)


def test_elsewhere_the_setup_cell_stays_where_it_is(monkeypatch):
    assert run_setup_cell(monkeypatch, ROOT / "notebooks", colab=False) == ROOT / "notebooks"


def test_far_from_the_repository_the_setup_cell_says_so(monkeypatch, tmp_path):
    with pytest.raises(FileNotFoundError, match="open this notebook inside its repository"):
        run_setup_cell(monkeypatch, tmp_path, colab=False)


def copy_of_texts(folder):
    (folder / "notebooks").mkdir()
    for path in (ROOT / "README.md", *SCRIPTS):
        (folder / path.relative_to(ROOT)).write_text(path.read_text())


def test_one_command_writes_badges_and_clone_address_and_can_be_repeated(tmp_path):
    copy_of_texts(tmp_path)
    for slug in ("ada/depth", "grace/depth-course"):
        changed = set_repository(tmp_path, f"https://github.com/{slug}")
        assert len(changed) == 1 + len(SCRIPTS)
        assert f"colab.research.google.com/github/{slug}/blob" in (tmp_path / "README.md").read_text()
        assert f'"https://github.com/{slug}"' in setup_cell(tmp_path / "notebooks" / SCRIPTS[0].name)


def test_a_wrong_repository_address_changes_nothing(tmp_path):
    copy_of_texts(tmp_path)
    with pytest.raises(ValueError, match="not an address"):
        set_repository(tmp_path, "git@github.com:ada/depth")
    assert (tmp_path / "README.md").read_text() == (ROOT / "README.md").read_text()


def test_exercises_have_folded_solutions():
    for script in SCRIPTS:
        text = script.read_text()
        assert text.count("<details><summary>Solution</summary>") == 3
        assert text.count("<details>") == text.count("</details>")


def test_git_stores_no_data_sets_and_no_builds():
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert not re.search(r"^(datasets|build|runs)/|\.zip$|\.pt$", tracked, re.MULTILINE)
