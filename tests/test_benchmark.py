"""What the benchmark measures and how it counts; no test here looks at a real clock."""

from functools import partial
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from monodepth_nb import benchmark
from monodepth_nb.__main__ import main
from monodepth_nb.data.kitti import KittiStereo, read_image
from monodepth_nb.data.loading import PairCache
from monodepth_nb.networks import DispResNet
from monodepth_nb.pretrained import LEVELS, Trunk
from monodepth_nb.training import Trainer

CPU, SMALL = torch.device("cpu"), (64, 64)


@pytest.fixture
def clock(monkeypatch):
    """A clock for the benchmark that only goes on when told to: `clock.now += seconds`."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(benchmark, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    return clock


def make_slow(monkeypatch, clock, owner, name, seconds):
    """Calls of the method take so many seconds by `clock`. Returns the list of calls."""
    original, calls = getattr(owner, name), []

    def slow(self, *args):
        calls.append(args)
        clock.now += seconds
        return original(self, *args)

    monkeypatch.setattr(owner, name, slow)
    return calls


# ---- Steps ----


def test_a_forward_pass_of_the_full_network_takes_13_4_billion_multiply_adds():
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        DispResNet()(torch.rand(1, 3, 64, 128))  # a sixteenth of the pixels, and of the work
    assert 16 * counter.get_total_flops() / 2e9 == pytest.approx(13.4, abs=0.05)


def test_a_benchmarked_step_trains_every_parameter():
    model = DispResNet(width=0.125)
    before = [p.detach().clone() for p in model.parameters()]
    benchmark.make_training_step(1, *SMALL, CPU, model)()
    assert not any(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_predictions_are_made_without_graph_in_the_layout_and_format_asked_for():
    class Spy(torch.nn.Module):
        def forward(self, image):
            layout = image.is_contiguous(memory_format=torch.channels_last)
            seen.append((layout, torch.is_autocast_enabled("cpu"), torch.is_inference_mode_enabled(), self.training))

    seen = []
    benchmark.prediction_step(Spy(), 1, SMALL, CPU)()
    benchmark.prediction_step(Spy(), 1, SMALL, CPU, torch.bfloat16)()
    benchmark.prediction_step(Spy(), 1, SMALL, CPU, torch.float32, torch.contiguous_format)()
    assert seen == [(True, False, True, False), (True, True, True, False), (False, False, True, False)]


# ---- Comparisons ----


def test_what_is_compared_is_interleaved_and_warm_up_does_not_count(clock):
    calls = []

    def step(name, seconds):
        calls.append(name)
        clock.now += seconds if len(calls) > 2 * benchmark.WARM_UP else 100 * seconds**2

    assert benchmark.times_faster(lambda: step("A", 3), lambda: step("B", 1), rounds=1) == 3
    assert "".join(calls) == "AB" * (benchmark.WARM_UP + 1)


def test_the_whole_fcn_gives_the_levels_of_the_frozen_trunk_and_learns_along():
    whole = benchmark.WholeFCN()
    levels = whole(torch.rand(2, 3, *SMALL))
    sizes = [(64, 32), (256, 16), (512, 8), (1024, 8), (2048, 8)]
    assert [tuple(level.shape) for level in levels] == [(2, c, n, n) for c, n in sizes[-len(LEVELS) :]]
    assert all(level.requires_grad for level in levels)
    assert whole.fcn.backbone["bn1"].running_mean.any()  # its statistics drift: defect D9


def test_each_comparison_leaves_out_the_work_that_it_says(monkeypatch):
    passes = make_slow(monkeypatch, SimpleNamespace(now=0), Trunk, "features", 0)
    monkeypatch.setattr(Trainer, "train_step", lambda self, batch: self.network(batch["left"][:1]))
    for draw in ("uniform_", "normal_"):  # the values do not matter here, and drawing them takes most of the time
        monkeypatch.setattr(torch.Tensor, draw, lambda self, *_, **__: self)
    narrow = partial(DispResNet, width=0.125)
    monkeypatch.setattr(benchmark, "DispResNet", lambda encoder="scratch", width=1, **other: narrow(encoder, **other))
    monkeypatch.setattr(benchmark, "FULL_SIZE", SMALL)
    monkeypatch.setattr(benchmark, "HALF_SIZE", SMALL)
    counts = []
    for _, _, *steps in benchmark.comparisons(CPU):
        for step in steps:
            passes.clear()
            step()
            step()
            counts.append(len(passes))
    # with the work, and without: an FCN beside a trunk; encoder again and once; predictions of two kinds, twice
    assert counts == [0, 2, 0, 2, 2, 1, 2, 1, 0, 0, 0, 0]


# ---- Loading and tables ----


@pytest.fixture
def small_settings(monkeypatch):
    monkeypatch.setattr(benchmark, "SETTINGS", ((0.125, *SMALL, 1), (0.125, *SMALL, 2)))
    monkeypatch.setattr(benchmark, "PAIRS", 2)


def test_loading_decodes_pairs_of_kittis_size_in_the_first_epoch_only(tmp_path, monkeypatch, clock, small_settings):
    benchmark.write_pairs(tmp_path)
    files = sorted(tmp_path.glob("image_?/*.png"))
    assert [read_image(file).shape for file in files] == [(3, 375, 1242)] * 4
    assert all(0.6e6 < file.stat().st_size < 1.2e6 for file in files)  # KITTI's are about as large
    decoded = make_slow(monkeypatch, clock, KittiStereo, "read_pair", 9)
    fetched = make_slow(monkeypatch, clock, PairCache, "__getitem__", 1)
    assert benchmark.loading_seconds(1, SMALL, tmp_path) == (20, 2)
    assert len(decoded) == 2 and len(fetched) == 2 * 4  # of four epochs


def test_shares_follow_from_the_times_of_a_step_and_of_loading(small_settings, monkeypatch):
    monkeypatch.setattr(benchmark, "seconds_per_call", lambda step, rounds: 0.5)
    monkeypatch.setattr(benchmark, "loading_seconds", lambda batch, size, root: (4.5, 0.5))
    row = benchmark.benchmark(CPU).iloc[1]
    assert row["pairs_per_s"] == row["images_per_s"] == 4  # 2 pairs in half a second
    # an epoch of 2 pairs is one step: 4.5 s of loading and 0.5 s of training, later half and half
    assert (row["loading_first"], row["loading_later"]) == (0.9, 0.5)


def test_the_command_names_the_device_and_prints_a_row_for_every_setting(small_settings, monkeypatch, capsys):
    monkeypatch.setattr(benchmark, "ratios", lambda device, rounds: pd.DataFrame({"times_faster": [1.234]}))
    assert main(["benchmark", "--device", "cpu", "--rounds", "1"]) == 0
    printed = capsys.readouterr().out
    assert "device: CPU" in printed and "1.23" in printed
    rows = {name: values for name, *values in map(str.split, printed.splitlines())}
    assert rows["batch"] == ["1", "2"]
    assert all(float(value) > 0 for name in ("step_s", "images_per_s") for value in rows[name])
