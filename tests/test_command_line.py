"""The command line trains as `fit` does, resumes, and answers wrong use in one line."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from test_training import assert_same_weights, blobs

from monodepth_nb import checkpoints
from monodepth_nb.__main__ import main
from monodepth_nb.checkpoints import load_model
from monodepth_nb.options import PARSER, with_options

ROOT = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.filterwarnings("ignore")  # blobs look wrong to the check of pairs


@pytest.fixture(autouse=True)
def without_report(monkeypatch):
    """Figures take longer than the training here. The test of a complete run draws them."""
    monkeypatch.setattr("monodepth_nb.course.report.write_run_figures", lambda *_: None)


SMALL = "train --data motorcycle --size 64 64 --width 0.0625 --batch-size 1 --device cpu"


def run(options: str) -> int:
    """The exit status of a small training."""
    return main(f"{SMALL} {options}".split())


@pytest.fixture
def kitti_folder(tmp_path):
    """Six scenes in KITTI's layout, ground truth included."""
    training = tmp_path / "kitti/training"
    (training / "calib_cam_to_cam").mkdir(parents=True)
    for scene in range(50, 56):
        sample = blobs(3, scene - 50, size=(64, 64))
        for view, folder in (("left", "image_2"), ("right", "image_3")):
            save_image((255 * sample[view]).byte().permute(1, 2, 0).numpy(), training / folder / f"{scene:06}_10.png")
        save_image(np.uint16(256 * sample.disparity_px), training / "disp_noc_0" / f"{scene:06}_10.png")
        rows = [f"P_rect_0{i}: 100 0 32 {offset} 0 100 32 0 0 0 1 0" for i, offset in ((2, 0), (3, -50))]
        (training / "calib_cam_to_cam" / f"{scene:06}.txt").write_text("\n".join(rows))
    return tmp_path / "kitti"


def save_image(pixels, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def test_one_command_trains_on_a_folder_and_leaves_a_complete_run(tmp_path, kitti_folder, capsys, monkeypatch):
    monkeypatch.undo()
    folder = tmp_path / "run"
    assert run(f"--data {kitti_folder} --epochs 2 --run-dir {folder}") == 0
    files = "config.json history.csv last.pt best.pt metrics.csv figure.png loss.png"
    assert {path.name for path in folder.iterdir()} == {*files.split()}
    config = json.loads((folder / "config.json").read_text())
    assert config["epochs"] == 2 and config["training_pairs"] == 5
    assert pd.read_csv(folder / "history.csv")["validation_total"].notna().all()
    assert pd.read_csv(folder / "metrics.csv")["name"].tolist() == ["000055_10"]  # held out
    assert "device: cpu" in capsys.readouterr().out


def test_ground_truth_of_an_unknown_camera_is_scored_without_metres(tmp_path, kitti_folder, capsys):
    for calibration in (kitti_folder / "training/calib_cam_to_cam").iterdir():
        calibration.unlink()
    command = f"--data {kitti_folder} --epochs 1 --run-dir {tmp_path}/run"
    assert run(command) == 0
    assert "unknown" in capsys.readouterr().out
    scores = pd.read_csv(tmp_path / "run/history.csv")
    assert scores["epe"].notna().all() and scores["abs_rel"].isna().all()
    assert run(f"{command} --focal-px 100") == 2
    assert "--baseline-m" in capsys.readouterr().err  # the option, not the argument of a function


def test_a_run_knows_the_baseline_of_its_unlabelled_pairs(tmp_path, kitti_folder):
    shutil.rmtree(kitti_folder / "training/disp_noc_0")
    for baseline_m, options in ((0.5, ""), (0.2, "--focal-px 100 --baseline-m 0.2")):
        folder = tmp_path / str(baseline_m)
        assert run(f"--data {kitti_folder} --epochs 1 --run-dir {folder} {options}") == 0
        assert checkpoints.load(folder / "last.pt")["settings"]["baseline_m"] == pytest.approx(baseline_m)


def test_all_pairs_are_trained_on_and_none_is_held_out_if_asked_for(tmp_path, kitti_folder):
    assert run(f"--data {kitti_folder} --epochs 1 --run-dir {tmp_path}/run --no-validation") == 0
    settings = checkpoints.load(tmp_path / "run/last.pt")["settings"]
    assert (settings["training_pairs"], settings["validation"], settings["truth"]) == (6, None, None)


def test_a_run_whose_held_out_pairs_have_no_truth_is_not_scored(tmp_path, kitti_folder):
    for folder in ("image_2", "image_3"):  # one drive, and of its frames 10 and 11 only the former has truth
        first, *others = sorted((kitti_folder / "training" / folder).iterdir())
        for path in others:
            path.unlink()
        first.rename(first.with_name("000002_10.png"))
        shutil.copy(first.with_name("000002_10.png"), first.with_name("000002_11.png"))
    truth = sorted((kitti_folder / "training/disp_noc_0").iterdir())
    truth[0].rename(truth[0].with_name("000002_10.png"))
    assert run(f"--data {kitti_folder} --epochs 1 --run-dir {tmp_path}/run") == 0
    assert "abs_rel" not in pd.read_csv(tmp_path / "run/history.csv")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--device gpu", "gpu"),
        ("--device meta", "meta"),
        ("--size 100 200", "128 x 192"),
        ("--width -1", "-1"),
        ("--width nan", "nan"),
        ("--trainable-encoder", "--encoder"),
        ("--batch-size 0", "--batch-size"),
        ("--data motorcycle --recipe few-pairs", "several pairs"),
        ("--start-from nowhere.pt", "nowhere.pt"),
    ],
)
def test_wrong_use_is_answered_in_one_line_before_any_data_is_fetched(options, message, tmp_path, capsys):
    assert run(f"--data streets --data-root {tmp_path} {options}") == 2
    assert message in capsys.readouterr().err.strip().splitlines()[-1]
    assert not list(tmp_path.iterdir())


def test_a_killed_run_is_resumed_by_the_same_command(tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert run(f"--epochs 12 --run-dir {whole}") == 0
    every_epoch = "from monodepth_nb import checkpoints, __main__ as m; checkpoints.EVERY_S = 0; m.main()"
    command = [sys.executable, "-c", every_epoch, *f"{SMALL} --epochs 12 --run-dir {broken}".split()]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, **quiet)
    while not (broken / "last.pt").exists() and process.poll() is None:
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert len(checkpoints.load(broken / "last.pt")["history"]) < 12
    assert run(f"--epochs 12 --run-dir {broken}") == 0
    assert_same_weights(load_model(broken / "last.pt"), load_model(whole / "last.pt"))


def test_ctrl_c_on_the_command_line_has_its_own_exit_status(tmp_path, monkeypatch, capsys):
    write = checkpoints.RunFolder.write

    def write_and_interrupt(*arguments):
        monkeypatch.setattr(checkpoints.RunFolder, "write", write)
        signal.raise_signal(signal.SIGINT)
        write(*arguments)

    monkeypatch.setattr(checkpoints.RunFolder, "write", write_and_interrupt)
    assert run(f"--epochs 3 --run-dir {tmp_path}/run") == 130
    assert "1 of 3 epochs" in capsys.readouterr().err


def test_the_few_pairs_recipe_trains_from_the_command_line_and_resumes_only_as_such(tmp_path, capsys):
    command = f"--data streets --scenes 4 --epochs 1 --run-dir {tmp_path}/run --data-root {tmp_path}"
    assert run(f"{command} --recipe few-pairs --rendered 2") == 0
    history = pd.read_csv(tmp_path / "run" / "history.csv")
    assert {"train_logarithmic", "validation_logarithmic"} <= set(history)
    first = [(folder / "training/image_2/000000_10.png").read_bytes() for folder in tmp_path.glob("streets_*")]
    assert len(set(first)) == 2  # what is rendered besides is not what is held out
    assert run(command) == 2
    error = capsys.readouterr().err
    assert "recipe few-pairs" in error and "--run-dir" in error and f"delete {tmp_path}/run" in error
    assert run(f"{command} --rendered 2") == 2
    assert "--rendered" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "first", "late"),
    [("", True, False), ("--recipe few-pairs", True, True), ("--recipe few-pairs --no-augmentation", False, False)],
)
def test_the_recipe_decides_which_augmentations_training_gets(options, first, late, tmp_path, monkeypatch):
    fit = Mock(return_value=pd.DataFrame([{}, {}]))
    monkeypatch.setattr("monodepth_nb.__main__.fit", fit)
    assert run(f"--data streets --scenes 4 --epochs 2 --run-dir {tmp_path}/run --data-root {tmp_path} {options}") == 0
    assert [fit.call_args.kwargs[name] is not None for name in ("transform", "late_transform")] == [first, late]


def test_a_seed_study_trains_on_the_same_streets_which_are_kept_where_the_notebooks_keep_them(tmp_path, monkeypatch):
    monkeypatch.setattr("monodepth_nb.__main__.fit", lambda *_, **__: pd.DataFrame([{}]))
    pictures = []
    for number, options in enumerate(("--seed 0", "--seed 1", "--streets-seed 1")):
        monkeypatch.setenv("MONODEPTH_DATA", str(tmp_path / str(number)))
        assert run(f"--data streets --scenes 2 --epochs 1 {options}") == 0
        (picture,) = (tmp_path / str(number)).glob("streets_*/training/image_2/000000_10.png")
        pictures.append(picture.read_bytes())
    assert pictures[0] == pictures[1] != pictures[2]


def test_a_trained_network_is_trained_further_at_its_size(tmp_path, kitti_folder, capsys):
    base, tuned, other = (tmp_path / name for name in ("base", "tuned", "other"))
    assert run(f"--epochs 1 --run-dir {base}") == 0
    further = f"train --data {kitti_folder} --epochs 1 --device cpu --learning-rate 1e-9 --run-dir {tuned} --start-from"
    assert main([*further.split(), str(base)]) == 0
    before, after = (load_model(folder / "last.pt") for folder in (base, tuned))
    assert after.size == (64, 64)  # not the default
    for old, new in zip(before.parameters(), after.parameters(), strict=True):
        torch.testing.assert_close(new, old, atol=1e-6, rtol=0)
    assert run(f"--epochs 1 --seed 1 --run-dir {other}") == 0
    capsys.readouterr()
    assert main([*further.split(), str(other)]) == 2  # another start is another run
    assert "started_from" in capsys.readouterr().err
    for option in ("--width 0.5", "--size 64 128"):  # nothing that would be ignored is accepted
        assert main([*further.split(), str(base), *option.split()]) == 2
        assert option.split()[0] in capsys.readouterr().err


def test_pairs_that_are_all_wrong_are_trained_on_only_if_asked_for(tmp_path, capsys):
    rng = np.random.default_rng(0)
    for folder in ("left", "right"):
        for name in ("a1.png", "a2.png"):  # noise: no two views match
            save_image(rng.integers(0, 255, (128, 256, 3), dtype=np.uint8), tmp_path / "pairs" / folder / name)
    command = f"--data {tmp_path}/pairs --epochs 1 --run-dir {tmp_path}/run"
    assert run(command) == 2
    assert "--no-pair-check" in capsys.readouterr().err
    assert run(f"{command} --no-pair-check") == 0


def test_sizes_and_counts_are_positive(capsys):
    for options in ("--size -64 128", "--size 0 128", "--scenes 0"):
        with pytest.raises(SystemExit):
            main(["train", *options.split()])
        assert "not larger than 0" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["train", "--workers", "-1"])
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_run_folder_takes_one_training_at_a_time(tmp_path, capsys):
    with checkpoints.alone_in(tmp_path / "run"):
        assert run(f"--epochs 1 --run-dir {tmp_path}/run") == 2
    assert str(tmp_path / "run") in capsys.readouterr().err and not (tmp_path / "run").exists()
    assert run(f"--epochs 1 --run-dir {tmp_path}/run") == 0


def test_a_message_names_options_that_exist():
    message = with_options("pass trainable_encoder=True, or omit encoder_learning_rate", PARSER.parse_args(["train"]))
    assert message == "pass --trainable-encoder, or omit --encoder-learning-rate"


def test_ctrl_c_while_pytorch_loads_ends_without_a_traceback(tmp_path):
    (tmp_path / "torch.py").write_text("import signal; signal.raise_signal(signal.SIGINT)")
    command, environment = [sys.executable, "-m", "monodepth_nb", "train"], os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGINT and not done.stderr


def test_unknown_names_are_answered_by_the_known_ones(tmp_path, capsys):
    assert main(["train", "--data", "nowhere", "--run-dir", str(tmp_path)]) == 2
    assert "motorcycle, streets, kitti2015" in capsys.readouterr().err
    with pytest.raises(SystemExit) as refusal:
        main(["train", "--encoder", "vgg"])
    assert refusal.value.code == 2
    assert "scratch" in capsys.readouterr().err


def test_a_command_that_cannot_work_ends_with_one_line(tmp_path, capsys):
    (tmp_path / "last.pt").write_bytes(b"foreign")
    assert run(f"--run-dir {tmp_path}") == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "error:" in error and "last.pt" in error
