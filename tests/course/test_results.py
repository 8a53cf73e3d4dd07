import os
import sys
from base64 import b64encode
from io import BytesIO
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest
from nbclient.exceptions import CellExecutionError
from PIL import Image

from monodepth_nb.course import reproduce, results
from monodepth_nb.course.profiles import PROFILES, choose_profile

SMOKE = PROFILES["smoke"]


@pytest.fixture(autouse=True)
def build(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "BUILD", tmp_path)
    monkeypatch.setattr(reproduce, "BUILD", tmp_path)
    return tmp_path


def notebook_with(*cells):
    return nbformat.v4.new_notebook(cells=list(cells))


def script(folder, code):
    path = folder / "09_toy.py"
    path.write_text(f"# %%\n{code}\n")
    return path


def test_what_a_notebook_records_is_what_the_report_reads():
    record = results.Record("02_toy", SMOKE)
    record.add("scratch", "motorcycle", seed=1, epe=4.5, d1_all=27.0)
    table = results.load_results(SMOKE).set_index("metric")
    assert table.loc["epe", ["experiment", "data", "seed", "value", "profile"]].tolist() == [
        "scratch", "motorcycle", 1, 4.5, "smoke",
    ]  # fmt: skip


def test_results_that_do_not_exist_are_asked_for():
    with pytest.raises(FileNotFoundError, match="run the notebooks before this one"):
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
    assert choose_profile().name == "demo"
    monkeypatch.setenv("MONODEPTH_PROFILE", "fast")
    with pytest.raises(ValueError, match="'fast'.*known: paper, demo, smoke"):
        choose_profile()


def test_progress_bars_and_live_widgets_are_not_stored():
    bar = nbformat.v4.new_output("stream", name="stderr", text="50%|####    | 1/2")
    widget = nbformat.v4.new_output("display_data", data={"application/vnd.jupyter.widget-view+json": {}})
    number = nbformat.v4.new_output("stream", name="stdout", text="EPE 4.2 px")
    cleaned = reproduce.without_debris(notebook_with(nbformat.v4.new_code_cell("", outputs=[bar, widget, number])))
    assert cleaned.cells[0].outputs == [number]


def test_photographs_are_stored_as_jpeg_and_small_drawings_as_they_are():
    def stored(pixels):
        file = BytesIO()
        Image.fromarray(pixels).save(file, "PNG")
        output = nbformat.v4.new_output("display_data", data={"image/png": b64encode(file.getvalue()).decode()})
        return (
            reproduce.without_debris(notebook_with(nbformat.v4.new_code_cell("", outputs=[output]))).cells[0].outputs[0]
        )

    photo = np.random.default_rng(0).integers(0, 255, (300, 300, 3), dtype=np.uint8)
    assert list(stored(photo)["data"]) == ["image/jpeg"]
    assert list(stored(np.zeros((300, 300, 3), np.uint8))["data"]) == ["image/png"]


def test_paths_of_the_machine_are_not_stored():
    output = nbformat.v4.new_output("stream", name="stdout", text=f"{Path.home()}/.cache/x and {results.ROOT}/build")
    cleaned = reproduce.without_debris(notebook_with(nbformat.v4.new_code_cell("", outputs=[output])))
    assert cleaned.cells[0].outputs[0]["text"] == "~/.cache/x and ./build"


def test_a_home_that_begins_like_the_project_is_hidden_as_well(monkeypatch):
    monkeypatch.setattr(reproduce, "ROOT", Path("/home/ann"))
    monkeypatch.setattr(Path, "home", lambda: Path("/home/anna"))
    output = nbformat.v4.new_output("stream", text="/home/anna/x and /home/ann/build")
    reproduce.hide_home(output)
    assert output.text == "~/x and ./build"


def test_an_executed_notebook_keeps_its_outputs_and_knows_its_profile(tmp_path, monkeypatch):
    monkeypatch.setenv("MONODEPTH_PROFILE", "demo")
    path = script(tmp_path, "import os; print(os.environ['MONODEPTH_PROFILE'], os.getcwd())")
    output = reproduce.execute(path, SMOKE).cells[0].outputs[0]
    assert output.text.strip() == f"smoke {tmp_path}"


def test_relative_folders_mean_the_same_to_notebooks_which_run_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MONODEPTH_BUILD", "out")
    monkeypatch.setenv("MONODEPTH_STEREO", "streets")
    monkeypatch.setattr(sys, "argv", ["reproduce", "none"])
    with pytest.raises(SystemExit, match="no notebook"):
        reproduce.main()
    assert os.environ["MONODEPTH_BUILD"] == str(tmp_path / "out") and os.environ["MONODEPTH_STEREO"] == "streets"


def test_a_cell_that_fails_stops_the_run_with_its_error(tmp_path):
    with pytest.raises(CellExecutionError, match="the road is closed"):
        reproduce.execute(script(tmp_path, "raise ValueError('the road is closed')"), SMOKE)


def test_the_page_shows_results_pictures_and_links_and_needs_no_network(build):
    record = results.Record("02_toy", SMOKE)
    record.add("scratch", "motorcycle", epe=4.567)
    record.figure("sharpening", plt.figure(figsize=(1, 1)))
    (build / "smoke" / "02_toy.html").write_text("<p>toy</p>")
    page = reproduce.write_page(SMOKE, minutes=3).read_text()
    for part in ("4.567", "smoke/figures/02_toy_sharpening.png", 'href="smoke/02_toy.html"', 'name="viewport"'):
        assert part in page
    assert "http" not in page
