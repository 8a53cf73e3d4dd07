import os
from base64 import b64encode
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from nbclient.exceptions import CellExecutionError
from nbformat.v4 import new_code_cell, new_notebook, new_output
from PIL import Image

from monodepth_nb.__main__ import main
from monodepth_nb.course import ROOT, reproduce, results
from monodepth_nb.course.profiles import PROFILES, choose_profile

SMOKE = PROFILES["smoke"]


@pytest.fixture(autouse=True)
def build(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "BUILD", tmp_path)
    monkeypatch.setattr(reproduce, "BUILD", tmp_path)
    return tmp_path


# ---- Records and profiles ----


def test_what_a_notebook_records_is_what_the_report_reads(tmp_path):
    with pytest.raises(FileNotFoundError, match=str(tmp_path / "smoke")):
        results.load_results(SMOKE)
    record = results.Record("02_toy", SMOKE)
    record.add("scratch", "motorcycle", seed=1, epe=4.5, d1_all=27.0)
    epe = results.load_results(SMOKE).set_index("metric").loc["epe"]
    expected = {"experiment": "scratch", "data": "motorcycle", "seed": 1, "value": 4.5, "profile": "smoke"}
    assert expected.items() <= dict(epe).items()


def test_numbers_of_other_code_or_another_profile_are_left_out_and_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(results, "NOTEBOOKS", tmp_path)
    for name in ("02_toy", "03_toy"):
        (tmp_path / f"{name}.py").write_text("# %% [markdown]\n# Prose.\n# %%\nepe = 4.5\n")
        results.Record(name, SMOKE).add("scratch", "motorcycle", epe=4.5)
    (tmp_path / "02_toy.py").write_text("# %% [markdown]\n# Better prose.\n# %%\nepe = 4.5  # pixels\n")
    assert set(results.load_results(SMOKE)["notebook"]) == {"02_toy", "03_toy"}
    assert capsys.readouterr().out == ""
    (tmp_path / "02_toy.py").write_text("# %%\nepe = 4.4\n")
    assert set(results.load_results(SMOKE)["notebook"]) == {"03_toy"}
    assert "02_toy" in capsys.readouterr().out
    with pytest.raises(FileNotFoundError):
        results.load_results(replace(SMOKE, study_epochs=3))


@pytest.mark.parametrize("code", ["75549133", "00549133", "1e549133"])
def test_a_hash_that_looks_like_a_number_is_still_the_same_code(code, monkeypatch):
    monkeypatch.setattr(results, "code_behind", lambda *_, **__: code)
    results.Record("02_toy", SMOKE).add("scratch", "motorcycle", epe=4.5)
    assert len(results.load_results(SMOKE)) == 1


def test_a_notebook_that_is_edited_while_it_runs_has_made_numbers_of_the_old_code(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "NOTEBOOKS", tmp_path)
    (tmp_path / "02_toy.py").write_text("# %%\nepe = 4.5\n")
    record = results.Record("02_toy", SMOKE)
    (tmp_path / "02_toy.py").write_text("# %%\nepe = 4.4\n")
    record.add("scratch", "motorcycle", epe=4.5)
    with pytest.raises(FileNotFoundError):
        results.load_results(SMOKE)


def test_provenance_names_profile_data_device_versions_date_and_duration():
    line = results.Record("02_toy", SMOKE).provenance("the motorcycle")
    for part in ("smoke profile", "the motorcycle", results.device_name(), "torch ", " min"):
        assert part in line


def test_labels_of_the_smoke_profile_warn_of_its_numbers():
    assert "nothing to be learnt" in SMOKE.label("any data")
    assert "nothing to be learnt" not in PROFILES["demo"].label("any data")


def test_the_profile_comes_from_the_environment_and_unknown_names_list_the_known(monkeypatch):
    monkeypatch.setenv("MONODEPTH_PROFILE", "demo")
    monkeypatch.setenv("MONODEPTH_STEREO", "kitti2015")
    assert (choose_profile().name, choose_profile().stereo) == ("demo", "kitti2015")
    monkeypatch.setenv("MONODEPTH_PROFILE", "fast")
    with pytest.raises(ValueError, match="'fast'.*paper.*smoke"):
        choose_profile()


# ---- What is stored of an executed notebook ----


def stored(*outputs):
    """The outputs of a cell after cleaning."""
    notebook = new_notebook(cells=[new_code_cell("", outputs=list(outputs))])
    return reproduce.cleaned(notebook).cells[0].outputs


def stream(text, name="stdout"):
    return new_output("stream", name=name, text=text)


def displayed(kind, content):
    return new_output("display_data", data={kind: content})


def test_progress_bars_and_live_widgets_are_not_stored():
    widget, number = displayed("application/vnd.jupyter.widget-view+json", {}), stream("EPE 4.2 px")
    assert stored(stream("50%|####    | 1/2", "stderr"), widget, number) == [number]


@pytest.mark.parametrize(("brightest", "kind"), [(255, "image/jpeg"), (1, "image/png")])
def test_photographs_are_stored_as_jpeg_and_small_drawings_as_they_are(brightest, kind):
    pixels, file = np.random.default_rng(0).integers(0, brightest, (300, 300, 3), dtype=np.uint8), BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    (output,) = stored(displayed("image/png", b64encode(file.getvalue()).decode()))
    assert list(output["data"]) == [kind]


@pytest.mark.parametrize(("root", "home"), [(ROOT, Path.home()), (Path("/home/ann"), Path("/home/anna"))])
def test_paths_of_the_machine_are_not_stored(root, home, monkeypatch):
    monkeypatch.setattr(reproduce, "ROOT", root)
    monkeypatch.setattr(Path, "home", lambda: home)
    assert stored(stream(f"{home}/.cache/x and {root}/build"))[0].text == "~/.cache/x and ./build"


# ---- Running them ----


def test_notebooks_run_in_their_folder_and_profile_and_a_failing_cell_stops_them(tmp_path, monkeypatch):
    monkeypatch.setenv("MONODEPTH_PROFILE", "demo")
    script = tmp_path / "09_toy.py"
    script.write_text("# %%\nimport os; print(os.environ['MONODEPTH_PROFILE'], os.getcwd())\n")
    assert reproduce.execute(script, SMOKE).cells[0].outputs[0].text.strip() == f"smoke {tmp_path}"
    script.write_text("# %%\nraise ValueError('the road is closed')\n")
    with pytest.raises(CellExecutionError, match="the road is closed"):
        reproduce.execute(script, SMOKE)


def test_a_wrong_photo_is_reported_before_any_notebook_runs(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(reproduce, "execute", lambda *_: pytest.fail("a notebook ran"))
    monkeypatch.setenv("MONODEPTH_PHOTO", str(tmp_path / "missing.jpg"))
    assert main(["reproduce", "02"]) == 2
    assert "missing.jpg" in capsys.readouterr().err


def test_without_the_repository_its_notebooks_are_missed_in_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(reproduce, "NOTEBOOKS", tmp_path / "notebooks")
    with pytest.raises(ValueError, match="clone the repository"):
        reproduce.reproduce([])


def test_relative_folders_mean_the_same_to_notebooks_which_run_elsewhere(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MONODEPTH_BUILD", "out")
    monkeypatch.setenv("MONODEPTH_STEREO", "streets")
    monkeypatch.delenv("MONODEPTH_DATA", raising=False)
    assert main(["reproduce", "none", "01"]) == 2
    error = capsys.readouterr().err
    assert "none" in error and "05" in error
    assert os.environ["MONODEPTH_BUILD"] == str(tmp_path / "out") and os.environ["MONODEPTH_STEREO"] == "streets"
    assert Path(os.environ["MONODEPTH_DATA"]).is_absolute()  # else the kernels would choose a folder of their own


@pytest.mark.parametrize("options", [[], ["--commit"]])
def test_the_command_leaves_executed_copies_and_a_page_and_commits_outputs_if_asked_to(build, monkeypatch, options):
    notebooks = build / "notebooks"
    notebooks.mkdir()
    for name in ("01_first.py", "02_toy.py"):
        (notebooks / name).write_text("# %%\n1 + 1\n")
    monkeypatch.setattr(reproduce, "NOTEBOOKS", notebooks)
    monkeypatch.setattr(reproduce, "execute", lambda path, profile: new_notebook())
    monkeypatch.setenv("MONODEPTH_PROFILE", "smoke")
    results.Record("02_toy", SMOKE).add("scratch", "motorcycle", epe=4.5)
    assert main(["reproduce", "02", *options]) == 0
    assert {path.name for path in (build / "smoke").iterdir()} == {"02_toy.csv", "02_toy.ipynb", "02_toy.html"}
    assert (build / "index.html").is_file() and (build / "results.csv").is_file()
    assert [path.name for path in notebooks.glob("*.ipynb")] == (["02_toy.ipynb"] if options else [])


def test_an_interrupted_reproduction_goes_on_at_the_first_notebook_that_is_missing_or_out_of_date(build, monkeypatch):
    (build / "notebooks").mkdir()
    scripts = [build / "notebooks" / f"0{number}_toy.py" for number in (1, 2, 3)]
    for script in scripts:
        script.write_text("# %%\n1 + 1\n")
    ran = []
    monkeypatch.setattr(reproduce, "NOTEBOOKS", build / "notebooks")
    monkeypatch.setattr(results, "NOTEBOOKS", build / "notebooks")
    monkeypatch.setattr(reproduce, "execute", lambda path, profile: ran.append(path.name[:2]) or new_notebook())
    monkeypatch.setattr(reproduce, "write_page", lambda profile, minutes: None)
    monkeypatch.setenv("MONODEPTH_PROFILE", "smoke")

    def ran_by(*command):
        ran.clear()
        assert main(["reproduce", *command]) == 0
        return ran

    assert ran_by("01") == ["01"] and ran_by() == ["02", "03"] and ran_by() == []
    assert ran_by("02") == ["02"]  # asked for by name
    scripts[1].write_text("# %%\n1 + 2\n")
    assert ran_by() == ["02", "03"]  # a later notebook reads the results of earlier ones
    assert ran_by("--commit") == ["01", "02", "03"] and ran_by("--commit") == []  # the first time nothing was stored
    monkeypatch.setenv("MONODEPTH_STEREO", "kitti2015")
    assert ran_by() == ["01", "02", "03"]


def test_the_page_needs_no_network_and_shows_results_links_and_pictures_but_not_those_of_other_code(build):
    record = results.Record("02_toy", SMOKE)
    record.add("scratch", "motorcycle", epe=4.567)
    record.figure("sharpening", Figure(figsize=(1, 1)))
    (build / "smoke" / "02_toy.html").write_text("<p>toy</p>")
    page = reproduce.write_page(SMOKE, minutes=3).read_text()
    for part in ("4.567", "smoke/figures/02_toy_sharpening.png", 'href="smoke/02_toy.html"', 'name="viewport"'):
        assert part in page
    assert "http" not in page and "other code" not in page
    (build / "smoke" / "02_toy.ipynb").write_text('{"metadata": {"code": "12345678"}}')
    page = reproduce.write_page(SMOKE, minutes=3).read_text()
    assert "other code" in page and "sharpening" not in page
