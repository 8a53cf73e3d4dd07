"""Training in 16 bits, compiled, and on a GPU: proven on the CPU, and repeated on CUDA where there is a GPU."""

import socket
from functools import partial

import pandas as pd
import pytest
import torch
from test_training import Killed, TinyNetwork, assert_same_weights, blobs, kill_after, pairs, tiny, tiny_fit
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.utils.data import default_collate

from monodepth_nb import checkpoints, machine, training
from monodepth_nb.data.loading import make_loader
from monodepth_nb.data.sample import Sample
from monodepth_nb.losses import DisparityLoss, MonodepthLoss
from monodepth_nb.monitoring import TrainingDiverged
from monodepth_nb.networks import DispResNet, SemanticDispResNet
from monodepth_nb.training import TrainConfig, Trainer, fit, seed_everything

NO_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
ON_CUDA = pytest.param("cuda", marks=(pytest.mark.cuda, NO_GPU))
on_every_device = pytest.mark.parametrize("device", ["cpu", ON_CUDA])
pytestmark = pytest.mark.filterwarnings("ignore:a CPU computes in fp16")


def trainer_of(model: nn.Module, device: str, loss: nn.Module | None = None, **config) -> Trainer:
    trainer = Trainer(model, TrainConfig(**config), loss or MonodepthLoss(), torch.device(device))
    trainer.model.train()
    return trainer


def batch(count: int = 2) -> dict:
    return default_collate([{view: blobs(3, seed)[view] for view in ("left", "right")} for seed in range(count)])


# ---- 16 bits ----


def loss_and_gradient(device: str, precision: str) -> tuple[float, torch.Tensor]:
    seed_everything(0)
    trainer = trainer_of(DispResNet(width=0.25), device, precision=precision)
    row = trainer.train_step(batch())
    gradient = torch.cat([p.grad.flatten().double().cpu() for p in trainer.model.parameters()])
    return (row[1] / row[0]).item(), gradient


@on_every_device
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_step_in_16_bits_has_the_loss_and_the_direction_of_one_in_32_bits(device, precision):
    (full, wide), (half, narrow) = (loss_and_gradient(device, name) for name in ("fp32", precision))
    assert half != full
    assert half == pytest.approx(full, rel=0.01)
    assert nn.functional.cosine_similarity(wide, narrow, dim=0) >= 0.99


@on_every_device
def test_a_step_whose_gradient_overflows_fp16_is_skipped_and_the_scale_halved(device):
    model = tiny()
    trainer = trainer_of(model, device, precision="fp16")
    trainer.scaler = torch.amp.GradScaler(device, init_scale=2.0**40)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    trainer.train_step(batch())
    torch.testing.assert_close(dict(model.state_dict()), before, rtol=0, atol=0)
    assert trainer.scaler.get_scale() == 2.0**39


@on_every_device
def test_a_resumed_fp16_run_goes_on_with_the_scale_that_it_had(device, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.amp, "GradScaler", partial(torch.amp.GradScaler, init_scale=2.0**32))
    whole, broken = tiny(), tiny()
    options = {"config": {"precision": "fp16", "batch_size": 1}, "device": device}
    tiny_fit(whole, 6, tmp_path / "whole", **options)
    with pytest.raises(Killed):
        tiny_fit(broken, 6, tmp_path / "broken", on_epoch=kill_after(4), **options)
    tiny_fit(broken, 6, tmp_path / "broken", **options)
    scales = [checkpoints.load(tmp_path / run / "last.pt")["scaler"]["scale"] for run in ("whole", "broken")]
    assert scales[0] == scales[1] < 2.0**32
    assert_same_weights(broken, whole, tolerance=0 if device == "cpu" else 1e-3)


class LargeFeatures(TinyNetwork):
    """Features of about `size` between the two layers; the maps do not depend on it."""

    def __init__(self, size: float):
        super().__init__()
        self.dropout.p = 0.0
        with torch.no_grad():
            self.encoder.weight.mul_(size)
            self.decoder.weight.div_(size)


@on_every_device
def test_a_network_that_overflows_fp16_takes_that_step_in_32_bits(device):
    rows = []
    for precision in ("fp32", "fp16"):
        seed_everything(0)
        model = LargeFeatures(1e6)
        trainer = trainer_of(model, device, precision=precision)
        rows.append(trainer.train_step(batch()).cpu())
        assert trainer.validate([batch()]).isfinite().all()
    torch.testing.assert_close(*rows)
    with pytest.raises(TrainingDiverged):  # float32 ends as well
        tiny_fit(LargeFeatures(1e40), 1, config={"precision": "fp16"}, device=device)


def test_fp16_on_a_cpu_comes_with_a_warning_that_it_is_slow():
    with pytest.warns(UserWarning, match="fp16"):
        assert machine.autocast_dtype("fp16", torch.device("cpu")) == torch.float16


# ---- Every tensor where it belongs, and no value read ----

META = "meta"  # a device of shapes without numbers: mixing it with another device and reading a value both raise
NETWORKS = {
    "scratch": lambda: DispResNet(width=0.125),
    "bilinear": lambda: DispResNet(width=0.125, upsampling="bilinear", edges="replicate"),
    "frozen ResNet": lambda: DispResNet("imagenet18", 0.25, weights="random"),
    "trained ResNet": lambda: DispResNet("imagenet18", 0.25, weights="random", trainable_encoder=True),
    "frozen lite0": lambda: DispResNet("lite0", 0.25, weights="random"),
    "trained lite0": lambda: DispResNet("lite0", 0.25, weights="random", trainable_encoder=True),
    "semantic": lambda: SemanticDispResNet("random", "resnet18", width=0.125),
    "semantic, wide": lambda: SemanticDispResNet("random", "resnet50", "wide", width=0.125),
}


def step_on_meta(build, loss: nn.Module) -> torch.Tensor:
    with torch.device(META):
        network = build()
    loss._range_checked = True  # the first batch's values are read on purpose
    known = {"disparity": torch.full((2, 2, 64, 128), 0.1)} if isinstance(loss, DisparityLoss) else {}
    return trainer_of(network, META, loss).train_step(batch() | known)


@pytest.mark.parametrize(
    ("network", "loss"),
    [
        *((name, MonodepthLoss) for name in NETWORKS),
        ("scratch", partial(MonodepthLoss, padding="border")),
        ("scratch", DisparityLoss),
    ],
)
def test_a_step_keeps_all_tensors_on_the_device_and_reads_no_value(network, loss):
    row = step_on_meta(NETWORKS[network], loss())
    assert row.device.type == META and row.shape == (7,)


@pytest.mark.parametrize(
    "mistake",
    [lambda total: total + torch.ones(1), lambda total: total * total.item(), lambda total: total if total > 0 else 0],
)
def test_the_meta_device_notices_a_tensor_on_the_cpu_and_a_value_that_is_read(mistake):
    class Mistaken(MonodepthLoss):
        def forward(self, *arguments):
            terms = super().forward(*arguments)
            return terms._replace(total=mistake(terms.total))

    with pytest.raises(RuntimeError, match="meta"):
        step_on_meta(NETWORKS["scratch"], Mistaken())


# ---- Compiled ----


@on_every_device
def test_network_and_loss_are_compiled_as_one_graph_once_for_training_and_once_for_validation(device, monkeypatch):
    torch.compiler.reset()
    backend = CompileCounterWithBackend("inductor" if device == "cuda" else "eager")
    monkeypatch.setattr(training.torch, "compile", partial(torch.compile, backend=backend, fullgraph=True))
    histories = []
    for compiled in (True, False):
        seed_everything(0)
        config = TrainConfig(2, batch_size=2, precision="fp32", compile=compiled)
        data, validation = ([blobs(3, seed, (64, 64)) for seed in range(count)] for count in (5, 3))
        options = {"validation_data": validation, "device": device, "progress": False}
        histories.append(fit(DispResNet(width=0.0625), data, config, **options))
    assert backend.frame_count == 2  # although the last batches are smaller
    losses = [column for column in histories[0] if "total" in column]
    pd.testing.assert_frame_equal(*(history[losses] for history in histories), rtol=1e-3)


def test_pictures_out_of_range_are_refused_before_a_compiled_loss_that_cannot_see_them():
    bright = [Sample(sample, left=255 * sample.left) for sample in pairs(1)]
    with pytest.raises(ValueError, match="255"):
        fit(tiny(), bright, TrainConfig(1, compile=True), device="cpu", progress=False)


# ---- Processes ----


@pytest.fixture
def torchrun(monkeypatch):
    """The environment of the only process that torchrun started."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    names = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "test"}
    for name, value in (names | {"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": 1}).items():
        monkeypatch.setenv(name, str(value))


@on_every_device
def test_one_process_of_torchrun_learns_the_same_as_without_it(device, torchrun):
    alone, launched = tiny(), tiny()
    tiny_fit(alone, 1, device=device)
    with machine.processes_of_torchrun(device):
        tiny_fit(launched, 1, device=device)
    assert_same_weights(launched, alone, tolerance=0 if device == "cpu" else 1e-4)


@pytest.mark.parametrize(("device", "backend"), [("cpu", "gloo"), (None, "nccl"), ("cuda", "nccl"), ("cuda:0", "nccl")])
def test_on_a_gpu_machine_the_processes_talk_as_the_device_asked_for_needs(device, backend, torchrun, monkeypatch):
    used = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_device", lambda index: used.append(index))
    monkeypatch.setattr(torch.distributed, "init_process_group", lambda name, **_: used.append(name))
    monkeypatch.setattr(torch.distributed, "destroy_process_group", lambda: None)
    with machine.processes_of_torchrun(device):
        assert used == ([0, "nccl"] if backend == "nccl" else ["gloo"])


# ---- Only on a GPU ----


@pytest.mark.cuda
@NO_GPU
def test_everything_that_is_copied_is_pinned():
    data = [Sample(sample, disparity=torch.zeros(2, 32, 64)) for sample in pairs(2)]
    loaded = next(iter(make_loader(data, 2, pin_memory=True)))
    assert all(loaded[name].is_pinned() for name in ("left", "right", "disparity"))


@pytest.mark.cuda
@NO_GPU
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_16_bits_need_less_memory(precision):
    peaks = []
    for name in ("fp32", precision):
        trainer = trainer_of(DispResNet(), "cuda", precision=name)
        torch.cuda.reset_peak_memory_stats()
        trainer.train_step({view: torch.rand(4, 3, 256, 512) for view in ("left", "right")})
        peaks.append(torch.cuda.max_memory_allocated())
        del trainer
    assert peaks[1] < peaks[0]
