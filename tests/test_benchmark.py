"""What the benchmark measures and how it counts; no test here looks at a real clock."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from monodepth_nb import benchmark, figures
from monodepth_nb.__main__ import main
from monodepth_nb.data.kitti import KittiStereo, read_image
from monodepth_nb.data.loading import PairCache
from monodepth_nb.losses import MonodepthLoss
from monodepth_nb.networks import DispResNet
from monodepth_nb.pretrained import Trunk, segmentation_trunk

CPU, SMALL = torch.device("cpu"), (64, 128)


@pytest.fixture
def clock(monkeypatch):
    """A clock for the benchmark that goes on only when told to: `clock.now += seconds`."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(benchmark, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    return clock


def make_slow(monkeypatch, clock, owner, name, seconds):
    """Calls of the method take so long by `clock`. Returns the list of them."""
    original, calls = getattr(owner, name), []

    def slow(self, *args):
        calls.append(args)
        clock.now += seconds
        return original(self, *args)

    monkeypatch.setattr(owner, name, slow)
    return calls


# ---- Work and memory ----


def test_multiply_adds_of_the_full_network_are_those_of_the_specification():
    assert benchmark.giga_macs(DispResNet(), (256, 512)) == pytest.approx(13.4, abs=0.05)


def test_a_benchmarked_step_really_trains():
    model = DispResNet(width=0.125)
    before = [p.detach().clone() for p in model.parameters()]
    benchmark.training_step(model, 1, SMALL, CPU)()
    assert not any(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_the_peak_is_that_of_the_fastest_of_several_products(monkeypatch):
    seconds = iter([4.0, 2.0, *[3.0] * 8])
    monkeypatch.setattr(benchmark, "seconds_of", lambda step: next(seconds))
    assert benchmark.matmul_gflops(CPU) == pytest.approx(2 * 2048**3 / 2.0 / 1e9)


def test_live_bytes_are_counted_once_per_storage_and_no_longer_than_they_live():
    with benchmark.LiveBytes() as counter:
        a = torch.zeros(1000)
        b = a.view(10, 100) + 1  # now two storages of 4,000 bytes
        del a
        c = b + 1  # two again
        assert counter.peak == 8000
        b + c
    assert counter.peak == 12000


def test_peak_memory_is_that_of_forward_pass_loss_and_adams_state_and_grows_with_the_batch():
    peaks = []
    for batch in (2, 4):
        model, (left, right) = DispResNet(width=0.125), torch.rand(2, batch, 3, *SMALL)
        with benchmark.LiveBytes() as forward:
            MonodepthLoss()(model(left), left, right)  # remembers for the backward pass
        state = 2 * sum(p.nbytes for p in model.parameters())
        peaks.append(benchmark.peak_gib(benchmark.training_step(model, batch, SMALL, CPU), CPU))
        assert peaks[-1] * 2**30 == pytest.approx(forward.peak + state, rel=0.01)
    assert peaks[1] > 1.5 * peaks[0]


# ---- Steps and comparisons ----


def test_what_is_compared_is_called_turn_about_and_warm_up_does_not_count(clock):
    calls = []

    def step(name, seconds):
        calls.append(name)
        clock.now += seconds if len(calls) > 2 * benchmark.WARM_UP else 100 * seconds**2

    assert benchmark.times_faster(lambda: step("A", 3), lambda: step("B", 1), rounds=1) == 3
    assert "".join(calls) == "AB" * (benchmark.WARM_UP + 1)


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


def test_the_whole_fcn_gives_the_same_levels_and_learns_along():
    image = torch.rand(2, 3, *SMALL)
    whole, frozen = benchmark.WholeFCN(), segmentation_trunk("resnet50", "random")
    levels = whole(image)
    assert [f.shape for f in levels] == [f.shape for f in frozen(image)]
    assert all(level.requires_grad for level in levels)
    assert whole.fcn.backbone["bn1"].running_mean.any()  # its statistics drift: defect D9


def test_each_comparison_leaves_out_the_work_that_it_says(monkeypatch):
    passes = make_slow(monkeypatch, SimpleNamespace(now=0), Trunk, "features", 0)

    def trunk_passes(slow, fast, rounds):
        counts = []
        for step in (slow, fast):
            passes.clear()
            step()
            step()
            counts.append(len(passes))
        return counts

    monkeypatch.setattr(benchmark, "times_faster", trunk_passes)
    monkeypatch.setattr(benchmark, "FULL_SIZE", SMALL)
    monkeypatch.setattr(benchmark, "HALF_SIZE", SMALL)
    counts = benchmark.ratios(CPU)["times_faster"].tolist()
    assert counts == [[0, 2], [0, 2], [2, 1], [2, 1], [0, 0], [0, 0]]  # the first yardsticks run an FCN instead


# ---- Loading ----


def test_pairs_are_written_at_the_size_in_pixels_and_bytes_of_kittis(tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark, "PAIRS", 1)
    benchmark.write_pairs(tmp_path)
    for side in ("image_2", "image_3"):
        file = tmp_path / side / "000000_10.png"
        assert read_image(file).shape == (3, 375, 1242)
        assert 0.6e6 < file.stat().st_size < 1.2e6


def test_loading_goes_through_the_real_cache(tmp_path, monkeypatch, clock):
    monkeypatch.setattr(benchmark, "PAIRS", 2)
    benchmark.write_pairs(tmp_path)
    decoded = make_slow(monkeypatch, clock, KittiStereo, "read_pair", 9)
    fetched = make_slow(monkeypatch, clock, PairCache, "__getitem__", 1)
    assert benchmark.loading_seconds(1, SMALL, tmp_path) == (20, 2)
    assert len(decoded) == 2 and len(fetched) == 2 * 4  # decoded in the first of four epochs


# ---- Tables ----


@pytest.fixture
def small_settings(monkeypatch):
    monkeypatch.setattr(benchmark, "SETTINGS", ((0.125, *SMALL, 1), (0.125, *SMALL, 2)))
    monkeypatch.setattr(benchmark, "PAIRS", 2)


def test_the_table_has_a_row_for_every_setting(small_settings):
    table = benchmark.benchmark(CPU, rounds=1)
    assert table["batch"].tolist() == [1, 2]
    assert (table.drop(columns="size") > 0).all().all()
    assert table["peak_gib"].is_monotonic_increasing


def test_shares_follow_from_the_times_of_a_step_and_of_loading(small_settings, monkeypatch):
    monkeypatch.setattr(benchmark, "matmul_gflops", lambda device: 100.0)
    monkeypatch.setattr(benchmark, "seconds_per_call", lambda step, rounds: 0.5)
    monkeypatch.setattr(benchmark, "giga_macs", lambda model, size: 2.0)
    monkeypatch.setattr(benchmark, "loading_seconds", lambda batch, size, root: (4.5, 0.5))
    row = benchmark.benchmark(CPU).iloc[1]
    # 2 pairs, 3 passes, 2 operations per multiply-add, in half a second
    assert row["gflops"] == 2 * 3 * 2 * 2.0 / 0.5 and row["share_of_matmul"] == 0.48
    assert row["pairs_per_s"] == row["images_per_s"] == 4
    # an epoch of 2 pairs is one step: 4.5 s of loading and 0.5 s of training, later half and half
    assert (row["loading_first"], row["loading_later"], row["first_by_later"]) == (0.9, 0.5, 9)


def test_the_command_prints_the_tables_and_names_the_device(small_settings, monkeypatch, capsys):
    monkeypatch.setattr(benchmark, "ratios", lambda device, rounds: pd.DataFrame({"times_faster": [1.234]}))
    assert main(["benchmark", "--device", "cpu", "--rounds", "1"]) == 0
    printed = capsys.readouterr().out
    assert "device: CPU" in printed and "pairs_per_s" in printed and "1.23" in printed


# ---- Cost against work ----


def test_the_exponent_of_a_power_law_is_found():
    megapixels = np.array([0.03, 0.1, 0.5, 2.0])
    assert benchmark.cost_exponent(pd.DataFrame({"megapixels": megapixels, "step_s": 7 * megapixels**0.8})) == (
        pytest.approx(0.8)
    )


def test_the_cost_command_writes_table_and_figure(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(benchmark, "FULL_SIZE", SMALL)
    monkeypatch.setattr(benchmark, "COST_BATCHES", (1, 2))
    monkeypatch.setattr(benchmark, "COST_SIZES", (SMALL, (128, 128)))
    arguments = ["--cost", "--width", "0.125", "--rounds", "1", "--out", str(tmp_path / "new")]
    assert main(["benchmark", "--device", "cpu", *arguments]) == 0
    table = pd.read_csv(tmp_path / "new" / "cost.csv")
    assert table["size"].tolist() == ["64x128", "64x128", "64x128", "128x128"]
    assert (table["megapixels"] * 1e6).round().tolist() == [8192, 16384, 8192, 16384]
    assert (tmp_path / "new" / "cost.png").stat().st_size
    assert "to the power" in capsys.readouterr().out


def test_the_cost_figure_names_its_machine_and_draws_the_fitted_law():
    table = pd.DataFrame({"varied": ["batch size", "image size"], "megapixels": [1.0, 4.0], "step_s": [3.0, 6.0]})
    fig = figures.cost_figure(table, 0.5, "cpu, 2 threads, width 0.25")
    (ax,) = fig.axes
    assert "cpu, 2 threads, width 0.25" in ax.get_title() and not figures.plt.get_fignums()
    assert ax.lines[0].get_ydata() == pytest.approx([3, 6])
    assert "[s]" in ax.get_ylabel()
