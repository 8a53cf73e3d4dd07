"""What the benchmark measures and how it counts; no test here looks at a real clock."""

from functools import partial
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from monodepth_nb import benchmark
from monodepth_nb.__main__ import main
from monodepth_nb.networks import DispResNet
from monodepth_nb.pretrained import Trunk
from monodepth_nb.training import Trainer

CPU, SMALL = torch.device("cpu"), (64, 64)


@pytest.fixture
def clock(monkeypatch):
    """A clock for the benchmark that only goes on when told to: `clock.now += seconds`."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(benchmark, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    return clock


# ---- Steps ----


def test_a_forward_pass_of_the_full_network_takes_13_4_billion_multiply_adds():
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        # A sixteenth of the pixels, and of the work. "nearest" takes less: its upsampling is part of a convolution.
        DispResNet(upsampling="bilinear")(torch.rand(1, 3, 64, 128))
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

    assert benchmark.times_faster(lambda: step("A", 3), lambda: step("B", 1)) == 3
    assert "".join(calls) == "AB" * (benchmark.WARM_UP + benchmark.ROUNDS)


def test_each_comparison_leaves_out_the_work_that_it_says(monkeypatch):
    passes, features = [], Trunk.features
    monkeypatch.setattr(Trunk, "features", lambda self, image: passes.append(self) or features(self, image))
    monkeypatch.setattr(Trainer, "train_step", lambda self, batch: self.model(batch["left"][..., :64, :64]))
    for draw in ("uniform_", "normal_"):  # the values do not matter here, and drawing them takes most of the time
        monkeypatch.setattr(torch.Tensor, draw, lambda self, *_, **__: self)
    narrow = partial(DispResNet, width=0.125)
    monkeypatch.setattr(benchmark, "DispResNet", lambda encoder="scratch", width=1, **other: narrow(encoder, **other))
    counts = []
    for _, *steps in benchmark.comparisons(CPU):
        for step in steps:
            passes.clear()
            step()
            step()
            counts.append(len(passes))
    assert counts == [2, 1, 2, 1, 0, 0, 0, 0]  # encoder again and once, of two networks; predictions, twice


# ---- The table ----


def test_the_command_names_the_device_and_prints_a_row_for_every_setting(monkeypatch, capsys):
    monkeypatch.setattr(benchmark, "SETTINGS", ((0.125, *SMALL, 1), (0.125, *SMALL, 2)))
    monkeypatch.setattr(benchmark, "seconds_per_call", lambda step: 0.5)
    monkeypatch.setattr(benchmark, "ratios", lambda device: pd.Series({"faster": 1.234}))
    assert main(["benchmark", "--device", "cpu"]) == 0
    printed = capsys.readouterr().out
    assert "device: CPU" in printed and "1.23" in printed
    rows = {name: values for name, *values in map(str.split, filter(None, printed.splitlines()))}
    assert rows["batch"] == ["1", "2"] and rows["step_s"] == ["0.5", "0.5"]
    assert rows["pairs_per_s"] == rows["images_per_s"] == ["2", "4"]


# ---- Another implementation ----

OTHER = """
import torch
class ReferenceNet(torch.nn.Conv2d):
    def __init__(self):
        super().__init__(3, 2, 3, padding=1)
def make_reference_step(batch_size, height, width, device):
    network = ReferenceNet().to(device)
    return lambda: network(torch.rand(batch_size, 3, height, width, device=device)).sum().backward()
"""


def test_another_implementation_is_compared_by_step_prediction_and_memory(tmp_path, monkeypatch, capsys):
    (tmp_path / "other.py").write_text(OTHER)
    small = partial(benchmark.against_reference, batch=2, size=SMALL, width=0.0625)
    monkeypatch.setattr(benchmark, "against_reference", small)
    assert main(["benchmark", "--device", "cpu", "--reference", str(tmp_path / "other.py")]) == 0
    rows = dict(line.rsplit(maxsplit=1) for line in capsys.readouterr().out.splitlines()[2:])
    assert 0 < float(rows["training step"]) < 1 and 0 < float(rows["prediction"]) < 1  # it does next to nothing
    assert rows["memory"] == "NaN"  # is measured on a GPU


def test_a_reference_that_is_not_written_in_python_is_named(tmp_path, capsys):
    (tmp_path / "README.md").write_text("This is no program.")
    assert main(["benchmark", "--device", "cpu", "--reference", str(tmp_path / "README.md")]) == 2
    assert "README.md" in capsys.readouterr().err
