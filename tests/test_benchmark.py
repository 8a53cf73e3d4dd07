import pytest
import torch

from monodepth_nb import benchmark
from monodepth_nb.__main__ import main
from monodepth_nb.networks import DispResNet


def test_multiply_adds_of_the_full_network_are_those_of_the_specification():
    assert benchmark.giga_macs(DispResNet(), (256, 512)) == pytest.approx(13.4, abs=0.05)


def test_a_benchmarked_step_really_trains():
    model = DispResNet(width=0.125)
    before = [p.detach().clone() for p in model.parameters()]
    benchmark.training_step(model, 1, (64, 128), torch.device("cpu"))()
    assert not any(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_the_table_has_a_row_for_every_setting(monkeypatch):
    monkeypatch.setattr(benchmark, "SETTINGS", ((0.125, 64, 128, 1), (0.125, 64, 128, 2)))
    table = benchmark.benchmark(torch.device("cpu"), rounds=1)
    assert table["batch"].tolist() == [1, 2]
    assert (table[["step_s", "pairs_per_s", "gmac", "gflops", "images_per_s"]] > 0).all().all()


def test_the_command_prints_the_table_and_names_the_device(monkeypatch, capsys):
    monkeypatch.setattr(benchmark, "SETTINGS", ((0.125, 64, 128, 1),))
    assert main(["benchmark", "--device", "cpu", "--rounds", "1"]) == 0
    printed = capsys.readouterr().out
    assert "device: cpu" in printed and "pairs_per_s" in printed
