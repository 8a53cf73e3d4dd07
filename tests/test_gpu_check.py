"""The check of a GPU: tried on the CPU in tiny sizes, so that a machine with a GPU meets commands that work."""

import pytest
import torch
from test_command_line import kitti_folder  # noqa: F401, a fixture

from monodepth_nb import gpu_check
from monodepth_nb.__main__ import PARSER, main
from monodepth_nb.gpu_check import Part

TINY = {"size": (64, 64), "width": 0.0625, "steps": 2, "epochs": 1, "device": "cpu"}


def named(todo, *words):
    return [part for part in todo if part.title.startswith(words)]


def test_without_a_gpu_one_line_says_so_and_nothing_fails(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["gpu-check"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_its_trainings_and_scores_work_on_a_cpu_in_tiny_sizes(tmp_path, kitti_folder, capsys):  # noqa: F811
    todo = gpu_check.parts(tmp_path, kitti_folder, kitti_folder, None, **TINY)
    for part in named(todo, "One pair", "Few pairs"):
        assert main([str(argument) for argument in part.arguments[2:]]) == 0, part.title
    printed = capsys.readouterr().out
    assert all(result in printed for result in ("epe", "train_logarithmic", "abs_rel"))


def test_tests_for_a_gpu_are_found_and_skipped_without_one(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert gpu_check.check(named(gpu_check.parts(tmp_path, None, None, None), "Tests"), 9, tmp_path)
    assert "skipped" in (tmp_path / "report.md").read_text()


def test_the_command_line_knows_every_command_of_the_check(tmp_path):
    todo = gpu_check.parts(tmp_path, tmp_path, tmp_path, tmp_path)
    assert len(todo) == 6
    for part in named(todo, "Against", "One", "Few", "Benchmark"):
        PARSER.parse_args([str(argument) for argument in part.arguments[2:]])


def test_a_part_whose_folder_or_file_is_not_given_is_left_out(tmp_path):
    titles = [part.title for part in gpu_check.parts(tmp_path, None, tmp_path, None)]
    assert titles == ["Tests", "One pair", "Benchmark"]


def test_a_part_that_fails_or_hangs_does_not_lose_the_others(tmp_path):
    codes = {
        "broken": "raise SystemExit('no such kernel')",
        "hanging": "import time; time.sleep(600)",
        "good": "print(6 * 7)",
    }
    todo = [Part(title, share, ("-c", code)) for (title, code), share in zip(codes.items(), (1, 0.01, 1), strict=True)]
    assert not gpu_check.check(todo, 1, tmp_path)
    report = (tmp_path / "report.md").read_text()
    assert "| broken | failed" in report and "no such kernel" in report
    assert "| hanging | stopped" in report
    assert "| good | passed" in report and "\n42\n" in report


def test_an_earlier_check_is_kept_aside_because_its_runs_would_be_resumed(tmp_path):
    out = tmp_path / "check"
    for words in ("first", "second"):
        assert gpu_check.check([Part(words, 1, ("-c", "print()"))], 1, out)
    assert "second" in (out / "report.md").read_text() and "first" in (tmp_path / "check_old1/report.md").read_text()


def test_of_a_progress_bar_the_report_shows_the_last_state(tmp_path):
    code = "print('10 %', '99 %', '100 %', sep=chr(13)); print('done')"
    assert gpu_check.run(Part("bar", 1, ("-c", code)), 60, tmp_path / "bar.log").output == "100 %\ndone"


@pytest.mark.parametrize("minutes", [1, 8])
def test_all_parts_together_stay_within_the_time_given(minutes, tmp_path, monkeypatch):
    now, limits = [0.0], []
    monkeypatch.setattr(gpu_check.time, "monotonic", lambda: now[0])

    def run(part, limit_s, log):
        limits.append(limit_s)
        now[0] += limit_s if part.title == "Tests" else 0.5 * limit_s
        return gpu_check.Outcome(part, "passed", limit_s, "")

    monkeypatch.setattr(gpu_check, "run", run)
    gpu_check.check(gpu_check.parts(tmp_path, tmp_path, tmp_path, tmp_path), minutes, tmp_path)
    assert 0 < now[0] <= 60 * minutes
    assert limits[-1] > 60 * minutes * 0.1  # what earlier parts leave is the later ones'
