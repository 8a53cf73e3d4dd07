"""Training learns what is known, resumes exactly, is shared by processes, and says what goes wrong."""

import gc
import platform
import shutil
import signal
import subprocess
import sys
import weakref
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import Dataset

from monodepth_nb import checkpoints, machine, monitoring, training
from monodepth_nb.checkpoints import CheckpointError, RunFolder, load_model
from monodepth_nb.data.loading import make_loader
from monodepth_nb.data.sample import Sample
from monodepth_nb.data.transforms import Compose, MirroredFlip, PairedPhotometric
from monodepth_nb.evaluation import left_disparity
from monodepth_nb.losses import LossTerms, MonodepthLoss
from monodepth_nb.machine import OutOfMemory
from monodepth_nb.monitoring import TrainingDiverged
from monodepth_nb.networks import DispResNet
from monodepth_nb.training import SCHEDULES, TrainConfig, fit, parameter_groups, seed_everything

ROOT = Path(__file__).resolve().parent.parent
AUGMENTATION = Compose(MirroredFlip(), PairedPhotometric())


def blobs(shift_px: int, seed: int = 0, size=(64, 128), blob=16) -> Sample:
    """Blobs of at least 16 pixels, `shift_px` further left in the right view; with ground truth."""
    (h, w), generator = size, torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, h // blob, w // blob + 1, generator=generator)
    wide = F.interpolate(coarse, scale_factor=blob, mode="bicubic").clamp(0, 1)[0]
    return Sample(
        left=wide[..., :w], right=wide[..., shift_px : shift_px + w], name=f"blobs {seed}",
        disparity_px=torch.full(size, float(shift_px)), focal_px=100.0, baseline_m=0.5,
    )  # fmt: skip


class TinyNetwork(nn.Module):
    """Three layers with the outputs of `DispResNet`; drops units, so that it needs the random generators."""

    def __init__(self):
        super().__init__()
        self.encoder, self.dropout = nn.Conv2d(3, 8, 5, padding=2), nn.Dropout(0.2)
        self.decoder = nn.Conv2d(8, 2, 3, padding=1)
        self.seen_modes = []

    def forward(self, image):
        self.seen_modes.append(self.training)
        finest = 0.3 * self.decoder(self.dropout(F.elu(self.encoder(image)))).sigmoid()
        return [F.avg_pool2d(finest, 2**s) for s in range(4)]


class Normalised(TinyNetwork):
    """The same without dropout and with batch norm, whose statistics follow the pictures that a process sees."""

    def __init__(self):
        super().__init__()
        self.dropout = nn.BatchNorm2d(8)


def tiny(seed: int = 0) -> TinyNetwork:
    seed_everything(seed)
    return TinyNetwork()


def pairs(count: int, size=(32, 64)) -> list[Sample]:
    return [blobs(3, seed, size, blob=8) for seed in range(count)]


def tiny_fit(model, epochs, run_dir=None, count=5, **options):
    fields = {"batch_size": 2, "learning_rate": 1e-2} | options.pop("config", {})
    options = {"transform": AUGMENTATION, "progress": False, "device": "cpu"} | options
    return fit(model, pairs(count), TrainConfig(epochs=epochs, **fields), run_dir=run_dir, **options)


def assert_same_weights(one: nn.Module, other: nn.Module, tolerance: float = 0):
    torch.testing.assert_close(one.state_dict(), other.state_dict(), rtol=tolerance, atol=tolerance)


# ---- It learns ----


def trained_on_blobs(sample: Sample, epochs: int) -> torch.Tensor:
    """Disparity of the left view in pixels, away from what the right view does not see."""
    seed_everything(0)
    model = DispResNet(width=0.125)
    config = TrainConfig(epochs=epochs, learning_rate=2e-3, schedule="cosine")
    fit(model, [sample], config, progress=False, device="cpu")
    return 128 * left_disparity(model, sample.left[None])[0, 8:-8, 24:-8]


def test_a_known_shift_is_recovered_within_a_tenth_of_a_pixel():
    assert (trained_on_blobs(blobs(6), epochs=120) - 6).abs().mean() < 0.1


def test_swapped_views_do_not_converge_and_are_noticed():
    sample = blobs(6)
    with pytest.warns(UserWarning, match="swapped"):
        found = trained_on_blobs(Sample(sample, left=sample.right, right=sample.left), epochs=80)
    assert (found - 6).abs().mean() > 4


# ---- The record ----


def test_history_holds_every_term_of_both_splits_and_metrics_when_asked():
    history = tiny_fit(tiny(), 4, validation_data=pairs(2), truth_data=pairs(1), config={"metrics_every": 2})
    assert history["epoch"].tolist() == [1, 2, 3, 4]
    terms = {f"{split}_{term}" for split in ("train", "validation") for term in LossTerms._fields}
    assert terms | {"learning_rate", "seconds", "pairs_per_s"} <= set(history)
    assert history["epe"].notna().tolist() == history["abs_rel"].notna().tolist() == [False, True, False, True]


def test_the_padding_of_a_run_reaches_its_loss():
    zeros, border = (tiny_fit(tiny(), 1, config={"padding": p})["train_consistency"][0] for p in ("zeros", "border"))
    assert border < zeros


def test_losses_are_means_over_pairs_whatever_the_batches():
    frozen = {"learning_rate": 1e-30}
    for split in ("train", "validation"):
        totals = []
        for batch_size in (1, 2, 5):  # of 5 pairs: with 2, the last batch is a smaller one
            model = tiny()
            model.dropout.p = 0.0
            history = tiny_fit(
                model, 1, config=frozen | {"batch_size": batch_size}, validation_data=pairs(5), transform=None
            )
            totals.append(history[f"{split}_total"][0])
        assert totals == pytest.approx([totals[0]] * 3, rel=1e-5)


def test_training_loss_is_the_loss():
    model, data = tiny(), pairs(2)
    model.dropout.p = 0.0
    left, right = (torch.stack([sample[view] for sample in data]) for view in ("left", "right"))
    expected = MonodepthLoss()(model(left), left, right)
    row = tiny_fit(model, 1, count=2, transform=None).iloc[0]
    for term, value in expected._asdict().items():
        assert row[f"train_{term}"] == pytest.approx(value.item(), rel=1e-5)


def test_the_network_trains_in_train_mode_and_is_judged_in_eval_mode():
    model = tiny().eval()
    tiny_fit(model, 1, count=2, validation_data=pairs(1), truth_data=pairs(1), config={"metrics_every": 1})
    assert model.seen_modes == [True, False, False]
    assert not model.training
    without_validation = tiny()
    tiny_fit(without_validation, 1, count=2, truth_data=pairs(1), config={"metrics_every": 1})
    assert without_validation.seen_modes == [True, False]


def test_augmentation_differs_between_pairs_and_epochs():
    drawn = []

    def note_draw(sample, generator):
        drawn.append(torch.rand(1, generator=generator).item())
        return sample

    tiny_fit(tiny(), 3, count=2, transform=note_draw)
    assert len(set(drawn)) == 6


def test_only_training_pairs_are_varied_and_their_order_changes():
    seen = []

    def note_name(sample, generator):
        seen.append(sample["name"])
        return sample

    validation = [Sample(sample, name="held out") for sample in pairs(2)]
    tiny_fit(tiny(), 3, count=6, transform=note_name, validation_data=validation)
    epochs = [seen[i : i + 6] for i in (0, 6, 12)]
    assert all(sorted(names) == sorted(epochs[0]) and "held out" not in names for names in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


@pytest.mark.parametrize(("epochs", "late_epochs"), [(8, 2), (5, 1), (3, 0)])
def test_the_late_transform_varies_the_last_quarter_of_the_epochs(epochs, late_epochs):
    calls = []

    def noted(name):
        return lambda sample, generator: calls.append(name) or sample

    tiny_fit(tiny(), epochs, count=1, transform=noted("first"), late_transform=noted("late"))
    assert calls == ["first"] * (epochs - late_epochs) + ["late"] * late_epochs


def test_schedules():
    factors = {name: [factor(e, 10) for e in range(10)] for name, factor in SCHEDULES.items()}
    assert factors["constant"] == [1.0] * 10
    assert factors["halving"] == [1.0] * 6 + [0.5] * 2 + [0.25] * 2
    warm_up, *fall = factors["cosine"]
    assert warm_up == 0.5 and fall[0] == 1 and 0 < fall[-1] < 0.1
    assert fall == sorted(fall, reverse=True)


def test_the_schedule_sets_the_learning_rate():
    history = tiny_fit(tiny(), 5, config={"schedule": "halving", "learning_rate": 4.0e-6})
    assert history["learning_rate"].tolist() == pytest.approx([4e-6, 4e-6, 4e-6, 2e-6, 1e-6])


def test_the_encoder_may_learn_at_its_own_rate_and_what_is_frozen_stays():
    model = tiny()
    model.decoder.weight.requires_grad_(False)
    rest, encoder = parameter_groups(model, TrainConfig(encoder_learning_rate=1e-5))
    assert encoder["lr"] == 1e-5
    assert [id(p) for p in encoder["params"]] == [id(p) for p in model.encoder.parameters()]
    assert [id(p) for p in rest["params"]] == [id(model.decoder.bias)]
    before = model.decoder.weight.clone()
    tiny_fit(model, 1, config={"encoder_learning_rate": 1e-5})
    assert torch.equal(model.decoder.weight, before)
    model.encoder.requires_grad_(False)
    with pytest.raises(ValueError, match="trainable"):
        tiny_fit(model, 1, config={"encoder_learning_rate": 1e-5})


@pytest.mark.parametrize(
    ("field", "named"),
    [
        ({"schedule": "steps"}, "halving"),
        ({"precision": "fp8"}, "bf16"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"encoder_learning_rate": -1e-4}, "encoder_learning_rate is -0.0001"),
    ],
)
def test_impossible_settings_are_refused_with_what_is_possible(field, named):
    with pytest.raises(ValueError, match=named):
        TrainConfig(**field)


def test_a_map_that_is_zero_is_called_collapsed_not_diverged():
    terms = LossTerms(*torch.ones(len(LossTerms._fields)))
    row = monitoring.as_row(terms, torch.zeros(2, 2, 8, 8))
    assert row.isfinite().all() and monitoring.collapse(row) == "nearly zero everywhere"
    assert "largest possible" in monitoring.collapse(monitoring.as_row(terms, torch.full((2, 2, 8, 8), 0.2999)))
    assert monitoring.collapse(monitoring.as_row(terms, torch.full((2, 2, 8, 8), 0.1))) == "the same everywhere"
    assert monitoring.collapse(monitoring.as_row(terms, 0.1 + 0.1 * torch.rand(2, 2, 8, 8))) is None


def test_an_apple_gpu_that_cannot_train_is_not_chosen(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(machine, "can_warp", lambda device: device.type == "mps")
    assert machine.choose_device().type == "mps"
    monkeypatch.setattr(machine, "can_warp", lambda device: False)
    assert machine.choose_device().type == "cpu"


def test_a_device_without_the_gradient_of_the_warp_is_found_out(monkeypatch):
    def refuse(*_, **__):
        raise NotImplementedError("aten::grid_sampler_2d_backward is not implemented for MPS")

    assert machine.can_warp(torch.device("cpu"))
    monkeypatch.setattr(machine.F, "grid_sample", refuse)
    assert not machine.can_warp(torch.device("cpu"))


def test_loader_processes_change_nothing_that_is_learnt():
    models = [tiny(), tiny()]
    for workers, model in enumerate(models):
        tiny_fit(model, 2, config={"workers": workers}, validation_data=pairs(2))
    assert_same_weights(*models)


PAGES_CLEARED = """
import resource
from monodepth_nb.benchmark import make_training_step
from monodepth_nb.networks import DispResNet
step = make_training_step(4, 128, 256, model=DispResNet(width=0.125))
counts = []
for _ in range(12):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    step()
    counts.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(min(counts))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be asked to keep memory")
def test_a_training_step_on_a_cpu_gets_the_memory_of_the_step_before():
    done = subprocess.run([sys.executable, "-c", PAGES_CLEARED], cwd=ROOT, capture_output=True, text=True)
    assert int(done.stdout) < 1000, done.stderr  # else thousands in every step, since it uses more than 20 MB


def test_nothing_to_learn_from_is_refused():
    with pytest.raises(ValueError, match="0 training pairs"):
        tiny_fit(tiny(), 1, count=0)


# ---- Resuming ----


class Killed(Exception):
    pass


def kill_after(last: int):
    def on_epoch(epoch, model):
        if epoch == last:
            raise Killed

    return on_epoch


def test_a_run_without_a_gradient_scaler_goes_on_where_one_is_needed(tmp_path):
    tiny_fit(tiny(), 1, tmp_path)
    state, parts = checkpoints.load(tmp_path / "last.pt"), {"scaler": torch.amp.GradScaler("cpu", enabled=True)}
    assert state["scaler"] == {}
    assert len(RunFolder(tmp_path, tiny(), state["settings"], parts).resume("refuse")) == 1


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_killed_run_ends_exactly_like_one_that_was_not(tmp_path, schedule):
    options = {"config": {"schedule": schedule}, "validation_data": pairs(1)}
    whole, broken, resumed = tiny(), tiny(), tiny(seed=1)
    expected = tiny_fit(whole, 4, **options)
    with pytest.raises(Killed):
        tiny_fit(broken, 4, tmp_path, on_epoch=kill_after(2), **options)
    seed_everything(7)  # a new session has other random states
    history = tiny_fit(resumed, 4, tmp_path, **options)
    assert_same_weights(resumed, whole)
    losses = [column for column in expected if column not in ("seconds", "pairs_per_s")]
    pd.testing.assert_frame_equal(history[losses], expected[losses], check_exact=True)
    written = pd.read_csv(tmp_path / "history.csv")
    pd.testing.assert_frame_equal(written[losses], expected[losses])


def test_a_finished_run_can_be_lengthened_where_the_rate_is_constant(tmp_path):
    whole, model = tiny(), tiny()
    tiny_fit(whole, 3)
    tiny_fit(model, 2, tmp_path)
    tiny_fit(model, 3, tmp_path)
    assert_same_weights(model, whole)
    assert len(tiny_fit(model, 3, tmp_path)) == 3  # nothing is left to do


def test_a_run_of_other_settings_is_not_resumed(tmp_path):
    halving = {"schedule": "halving"}
    tiny_fit(tiny(), 2, tmp_path, config=halving)
    for named, epochs, others in (
        (r"learning_rate 0.01 .*0.001.*seed 0", 2, {"config": halving | {"learning_rate": 1e-3, "seed": 1}}),
        (r"epochs 2 .*3", 3, {"config": halving}),
        (r"pairs_per_step 2 .*4", 2, {"config": halving | {"batch_size": 4}}),
        (r"transform .*MirroredFlip.*None", 2, {"config": halving, "transform": None}),
        (r"transform .*0.5.*0.4", 2, {"config": halving, "transform": Compose(MirroredFlip(0.4), PairedPhotometric())}),
        (r"loss .*=0.1.*=0.2", 2, {"config": halving, "loss": MonodepthLoss(smoothness_weight=0.2)}),
        (r"loss MonodepthLoss.*BreaksAt", 2, {"config": halving, "loss": BreaksAt(0)}),
        (r"padding zeros .*border", 2, {"config": halving | {"padding": "border"}}),
        ("training_pairs 5", 2, {"config": halving, "count": 4}),
    ):
        with pytest.raises(CheckpointError, match=named):
            tiny_fit(tiny(), epochs, tmp_path, on_mismatch="refuse", **others)
    config = TrainConfig(2, 2, 1e-2, "halving")
    with pytest.raises(CheckpointError, match="network"):
        fit(DispResNet(width=0.0625), pairs(5), config, run_dir=tmp_path, on_mismatch="refuse")


def test_numbers_of_numpy_are_stored_as_pythons_and_the_run_resumes(tmp_path):
    for epochs in (np.int64(1), 2):
        history = tiny_fit(tiny(), epochs, tmp_path, config={"learning_rate": np.float64(1e-2)}, on_mismatch="refuse")
        assert len(history) == epochs
    data, config = [blobs(3, size=(64, 64))], TrainConfig(epochs=1)
    fit(DispResNet(width=np.float64(0.0625)), data, config, run_dir=tmp_path / "network", progress=False)
    assert load_model(tmp_path / "network").arguments["width"] == 0.0625


class OnAppleGpu(torch.Tensor):
    """A tensor of MPS, which has no 64-bit numbers."""

    def double(self):
        raise TypeError("MPS has no float64")

    def cpu(self):
        return self.as_subclass(torch.Tensor)


def test_frozen_weights_are_known_on_a_device_without_64_bit_numbers(tmp_path):
    model = tiny()
    weight = model.decoder.weight.detach()
    model.decoder.weight = nn.Parameter(weight.as_subclass(OnAppleGpu), requires_grad=False)
    found = run_folder(tmp_path, model).settings["frozen_weights"]
    assert float(found) == pytest.approx(weight.abs().sum().item(), rel=1e-5)


def test_a_network_is_freed_with_its_training_at_once():
    objective = training.Objective(tiny(), MonodepthLoss(), torch.contiguous_format, torch.float32)
    network = weakref.ref(objective.network)
    gc.disable()  # which would find cycles later
    try:
        del objective
        assert network() is None
    finally:
        gc.enable()


def test_how_often_to_score_may_change_when_a_run_goes_on(tmp_path):
    tiny_fit(tiny(), 2, tmp_path)
    assert len(tiny_fit(tiny(), 3, tmp_path, config={"metrics_every": 1}, on_mismatch="refuse")) == 3


def test_a_network_of_the_same_tensors_that_upsamples_in_another_way_is_another_network(tmp_path):
    data, options = [blobs(3, 0, (64, 64), blob=8)], {"run_dir": tmp_path, "progress": False, "on_mismatch": "refuse"}
    fit(DispResNet(width=0.0625), data, TrainConfig(1, batch_size=1), **options)
    with pytest.raises(CheckpointError, match="upsampling nearest.*bilinear"):
        fit(DispResNet(width=0.0625, upsampling="bilinear"), data, TrainConfig(1, batch_size=1), **options)


def test_a_few_pairs_run_cannot_be_lengthened_for_its_last_quarter_would_be_another():
    settings = {"schedule": "constant", "recipe": "few-pairs", "epochs": 8}
    assert checkpoints.differences(settings, settings | {"epochs": 16}, epochs_done=8)
    course = settings | {"recipe": "course"}
    assert not checkpoints.differences(course, course | {"epochs": 16}, epochs_done=8)
    late = course | {"late_transform": "Zoom()"}
    assert checkpoints.differences(late, late | {"epochs": 16}, epochs_done=8)


@pytest.mark.parametrize("file", [1, 2])
def test_a_kill_while_writing_costs_an_epoch_at_most(tmp_path, monkeypatch, file):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    tiny_fit(tiny(), 3, whole)
    tiny_fit(tiny(), 1, broken)
    good, save, calls = checkpoints.load(broken / "last.pt"), torch.save, []

    def half_written(state, path):
        calls.append(path)
        if len(calls) == file:
            Path(path).write_bytes(b"PK half")
            raise Killed
        save(state, path)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(checkpoints.torch, "save", half_written)
        tiny_fit(tiny(), 3, broken)
    torch.testing.assert_close(checkpoints.load(broken / "last.pt")["model"], good["model"])
    tiny_fit(tiny(), 3, broken)
    for name in ("last.pt", "best.pt"):
        models = [checkpoints.load(run / name)["model"] for run in (whole, broken)]
        torch.testing.assert_close(*models, rtol=0, atol=0)


def test_a_run_does_not_go_on_with_other_pictures_of_the_same_number_and_size(tmp_path):
    data = pairs(5)
    exchanged = [Sample(data[4 - i], name=pair.name) for i, pair in enumerate(data)]
    mirrored = [Sample(pair, left=pair.right, right=pair.left) for pair in data]
    options = {"config": TrainConfig(1), "run_dir": tmp_path, "on_mismatch": "refuse", "progress": False}
    fit(tiny(), data, **options)
    for other in (exchanged, mirrored):
        with pytest.raises(CheckpointError, match="colours"):
            fit(tiny(), other, **options)


def run_folder(folder, model, **changes):
    settings = checkpoints.settings_of(model, TrainConfig(), MonodepthLoss(), (None, None), pairs(5))
    return RunFolder(folder, model, settings | changes, {})


def keep(run, model, *losses, history=()):
    """Give the epochs of these losses biases of their number, and write only after the last; the history."""
    history = list(history)
    for loss in losses:
        nn.init.constant_(model.encoder.bias, len(history) + 1)
        history.append({"epoch": len(history) + 1, "train_total": -len(history), "validation_total": loss})
        run.keep_best(history)
    run.write(history)
    return history


def saved_epoch(path):
    """The epoch whose weights a file of `keep` holds, which its history must say too."""
    state = checkpoints.load(path)
    assert state["model"]["encoder.bias"][0] == len(state["history"])
    return len(state["history"])


def test_best_checkpoint_is_of_the_epoch_with_the_lowest_validation_loss_and_stays_when_a_run_goes_on(tmp_path):
    model = tiny()
    keep(run_folder(tmp_path, model), model, 3.0, 1.0, 2.0)
    assert (saved_epoch(tmp_path / "best.pt"), saved_epoch(tmp_path / "last.pt")) == (2, 3)
    run = run_folder(tmp_path, model)
    keep(run, model, 1.5, history=run.resume())
    assert (saved_epoch(tmp_path / "best.pt"), saved_epoch(tmp_path / "last.pt")) == (2, 4)


def test_a_validation_that_is_added_to_a_run_is_not_compared_with_its_training_loss(tmp_path):
    model = tiny()
    tiny_fit(model, 2, tmp_path)
    history = tiny_fit(model, 4, tmp_path, validation_data=pairs(2), on_mismatch="refuse")
    assert history["validation_total"].notna().tolist() == [False, False, True, True]
    best = checkpoints.load(tmp_path / "best.pt")
    assert best["history"][-1]["validation_total"] == history["validation_total"].min()
    assert best["settings"]["validation"] == ["blobs 0", "blobs 1"] and best["settings"]["baseline_m"] == 0.5


def test_the_best_checkpoint_of_an_older_run_does_not_outlive_it(tmp_path):
    model = tiny()
    for loss in (1.0, 2.0):
        keep(run_folder(tmp_path, model), model, loss)
        (tmp_path / "last.pt").unlink()  # as somebody does who wants to start over
    assert checkpoints.load(tmp_path / "best.pt")["history"][0]["validation_total"] == 2.0


def test_a_best_checkpoint_copied_over_the_last_one_is_recognised(tmp_path):
    tiny_fit(tiny(), 1, tmp_path)
    shutil.copy(tmp_path / "best.pt", tmp_path / "last.pt")
    with pytest.raises(CheckpointError, match=r"last\.pt.*best\.pt.*optimizer"):
        tiny_fit(tiny(), 2, tmp_path)


def test_another_run_in_the_folder_is_kept_aside_and_the_new_one_starts_afresh(tmp_path, capsys):
    folder, fresh, model = tmp_path / "run", tiny(), tiny()
    tiny_fit(fresh, 2, config={"learning_rate": 1e-3})
    for n in (1, 2, 3):
        tiny_fit(tiny(), n, folder, config={"learning_rate": 1 / n})
    tiny_fit(model, 2, folder, config={"learning_rate": 1e-3})
    assert_same_weights(model, fresh)
    lengths = [len(pd.read_csv(tmp_path / f"run{old}/history.csv")) for old in ("_old1", "_old2", "_old3", "")]
    assert lengths == [1, 2, 3, 2]
    *_, line = capsys.readouterr().out.splitlines()
    assert "learning_rate" in line and str(tmp_path / "run_old3") in line


def test_a_short_run_writes_one_checkpoint_and_the_best_epoch_is_not_lost(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "EVERY_S", 3600)
    written = []
    monkeypatch.setattr(
        RunFolder, "write", lambda run, history, w=RunFolder.write: written.append(1) or w(run, history)
    )
    history = tiny_fit(tiny(), 6, tmp_path, validation_data=pairs(1))
    assert len(written) == 1
    assert len(checkpoints.load(tmp_path / "last.pt")["history"]) == 6
    assert len(checkpoints.load(tmp_path / "best.pt")["history"]) == 1 + history["validation_total"].argmin()


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("inline_container.cc: failed")])
def test_a_full_disk_is_named_with_its_folder_and_keeps_the_old_checkpoint(tmp_path, monkeypatch, error):
    whole = tiny()
    tiny_fit(whole, 3)
    tiny_fit(tiny(), 1, tmp_path)

    def full(state, path):
        Path(path).write_bytes(b"PK half")
        raise error

    with monkeypatch.context() as patch, pytest.raises(OSError, match=f"{tmp_path}.*space"):
        patch.setattr(checkpoints.torch, "save", full)
        tiny_fit(tiny(), 3, tmp_path)
    assert not list(tmp_path.glob("*.part"))
    model = tiny()
    assert len(tiny_fit(model, 3, tmp_path)) == 3
    assert_same_weights(model, whole)


@pytest.mark.parametrize(
    "error", [PermissionError(13, "Permission denied"), RuntimeError("inline_container.cc: Permission denied")]
)
def test_a_folder_that_must_not_be_written_to_is_not_called_full(tmp_path, error):
    def refuse(path):
        raise error

    with pytest.raises(OSError, match=f"{tmp_path}.*ermission denied.*allow") as caught:
        checkpoints.write_whole(tmp_path / "last.pt", refuse)
    assert "space" not in str(caught.value)


def test_a_folder_in_place_of_the_file_is_called_a_folder(tmp_path):
    with pytest.raises(OSError, match=f"{tmp_path} is a folder"):
        checkpoints.write_whole(tmp_path, lambda path: path.write_text("network"))
    assert not list(tmp_path.parent.glob("*.part"))


def test_a_score_that_fails_loses_no_training(tmp_path):
    class TornAtTheEnd(Dataset):
        def __len__(self):
            return 2

        def __getitem__(self, index):
            if index == 1:
                raise OSError("000031_10.png is torn")
            return pairs(1)[index]

    with pytest.warns(UserWarning, match="000031_10.png"):
        history = tiny_fit(tiny(), 2, tmp_path, truth_data=TornAtTheEnd(), config={"metrics_every": 1})
    assert len(history) == len(checkpoints.load(tmp_path / "last.pt")["history"]) == 2


def test_a_network_is_saved_before_it_is_scored(tmp_path, monkeypatch):
    def killed(*_):
        assert len(checkpoints.load(tmp_path / "last.pt")["history"]) == 1
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "score", killed)
    with pytest.raises(KeyboardInterrupt):
        tiny_fit(tiny(), 2, tmp_path, truth_data=pairs(1), config={"metrics_every": 1})


def test_a_score_that_an_interruption_lost_is_made_up_for(tmp_path):
    options = {"truth_data": pairs(1), "run_dir": tmp_path, "on_mismatch": "refuse"}
    unscored, whole = tiny_fit(tiny(), 2), tiny_fit(tiny(), 2, **options)
    state = checkpoints.load(tmp_path / "last.pt")
    state["history"][-1] = {name: value for name, value in state["history"][-1].items() if name in unscored}
    torch.save(state, tmp_path / "last.pt")
    pd.testing.assert_frame_equal(tiny_fit(tiny(), 2, **options), whole)


def test_a_process_whose_scenes_are_all_blank_leaves_the_scores_to_the_others(monkeypatch):
    scene = pairs(1)[0]
    blank = Sample(scene, name="blank", disparity_px=torch.full_like(scene.disparity_px, torch.nan))
    table = training.score(tiny(), [scene])
    monkeypatch.setattr(training, "process_count", lambda: 2)
    monkeypatch.setattr(training, "process_rank", lambda: 1)
    monkeypatch.setattr(machine, "gathered_from_processes", lambda own: [table, own])
    pd.testing.assert_frame_equal(training.score(tiny(), [scene, blank]), table)
    monkeypatch.setattr(machine, "gathered_from_processes", lambda own: [own, own])
    with pytest.raises(ValueError, match="blank"):
        training.score(tiny(), [scene, blank])
    nothing = table.iloc[:0]  # of a third process without a scene
    monkeypatch.setattr(machine, "gathered_from_processes", lambda own: [own, nothing])
    with pytest.raises(ValueError, match="blank"):
        training.score(tiny(), [scene, blank])


def test_machines_whose_run_folders_hold_different_runs_are_stopped(tmp_path, monkeypatch):
    """Else they would average two networks."""
    tiny_fit(tiny(), 1, tmp_path)
    monkeypatch.setattr(machine, "gathered_from_processes", lambda own: [own, own + 2])
    with pytest.raises(CheckpointError, match=str(tmp_path)):
        tiny_fit(tiny(), 4, tmp_path)


def test_a_network_is_rebuilt_from_its_checkpoint(tmp_path):
    model = DispResNet(width=0.0625, upsampling="bilinear")
    data = [blobs(3, size=(64, 64))]
    fit(model, data, TrainConfig(epochs=1), run_dir=tmp_path, device="cpu", progress=False)
    for name in ("last.pt", "best.pt"):
        rebuilt = load_model(tmp_path / name)
        assert not rebuilt.training and rebuilt.size == (64, 64)
        maps = [left_disparity(network, data[0].left[None]) for network in (rebuilt, model)]
        torch.testing.assert_close(*maps)


@pytest.mark.parametrize("content", [b"", b"no checkpoint at all", None])
def test_missing_foreign_and_damaged_checkpoints_are_named(tmp_path, content):
    path = tmp_path / "last.pt"
    with pytest.raises(FileNotFoundError, match=r"last\.pt"):
        load_model(path)
    torch.save({"weights": torch.zeros(3)}, path)
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"last\.pt"):
        load_model(path)
    with pytest.raises(CheckpointError, match=r"last\.pt"):
        tiny_fit(tiny(), 1, tmp_path)


def test_a_network_of_a_newer_version_is_named(tmp_path):
    fit(DispResNet(width=0.0625), [blobs(3, size=(64, 64))], TrainConfig(epochs=1), run_dir=tmp_path, progress=False)
    state = checkpoints.load(tmp_path / "last.pt")
    state["arguments"]["attention"] = True
    torch.save(state, tmp_path / "last.pt")
    with pytest.raises(CheckpointError, match=r"last\.pt.*attention"):
        load_model(tmp_path / "last.pt")


# ---- What can go wrong ----


class BreaksAt(MonodepthLoss):
    """Not a number at call number `step`, counted from 1."""

    def __init__(self, step: int):
        super().__init__()
        self.steps_left = step

    def forward(self, *arguments):
        terms = super().forward(*arguments)
        self.steps_left -= 1
        return terms if self.steps_left else LossTerms(*(term * float("nan") for term in terms))


def test_a_loss_that_is_not_a_number_stops_with_step_rate_and_last_good_checkpoint(tmp_path):
    message = rf"step 2 of epoch 2, at learning rate 0.01; .*{tmp_path}/last.pt"
    with pytest.raises(TrainingDiverged, match=message):  # 3 steps per epoch
        tiny_fit(tiny(), 3, tmp_path, loss=BreaksAt(5))
    assert len(checkpoints.load(tmp_path / "last.pt")["history"]) == 1
    assert all(tensor.isfinite().all() for tensor in load_tensors(tmp_path / "last.pt"))


def test_a_validation_loss_that_is_not_a_number_is_told_from_a_step(tmp_path):
    with pytest.raises(TrainingDiverged, match="validation of epoch 1"):  # after 3 steps
        tiny_fit(tiny(), 1, loss=BreaksAt(4), validation_data=pairs(1))


def test_weights_that_break_in_the_last_step_are_not_saved(tmp_path):
    def spoil(epoch, model):
        if epoch == 1:
            model.decoder.bias.register_hook(lambda gradient: gradient * float("nan"))

    with pytest.raises(TrainingDiverged, match="epoch 2"):
        tiny_fit(tiny(), 2, tmp_path, count=2, on_epoch=spoil)
    assert all(tensor.isfinite().all() for tensor in load_tensors(tmp_path / "last.pt"))


def load_tensors(path):
    return checkpoints.load(path)["model"].values()


def test_out_of_memory_names_what_to_try():
    class Hungry(TinyNetwork):
        def forward(self, image):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    data = [blobs(3, size=(128, 256))] * 8
    with pytest.raises(OutOfMemory, match=r"8 pairs of 128 x 256 .*4 .*64 x 128"):
        fit(Hungry(), data, TrainConfig(), progress=False, device="cpu")


def test_other_errors_are_not_taken_for_lack_of_memory():
    with pytest.raises(ValueError, match="64"):
        fit(DispResNet(width=0.0625), pairs(1), TrainConfig(), progress=False, device="cpu")


def test_pairs_of_different_sizes_are_refused_with_both_sizes():
    with pytest.raises(ValueError, match=r"\(32, 64\).*\(64, 64\)"):
        fit(tiny(), [blobs(3, 0, (32, 64), 8), blobs(3, 1, (64, 64), 8)], TrainConfig(1), progress=False, device="cpu")


class Interrupted(MonodepthLoss):
    """Ctrl-C during loss number `at`, counted from 1; a second time if `twice`."""

    def __init__(self, at: int, twice: bool = False):
        super().__init__()
        self._calls, self._at = 0, (at, at + 1 if twice else at)

    def forward(self, *arguments):
        self._calls += 1
        if self._calls in self._at:
            signal.raise_signal(signal.SIGINT)
        return super().forward(*arguments)


@pytest.mark.parametrize(("twice", "finished"), [(False, 2), (True, 1)])
def test_ctrl_c_finishes_and_saves_the_epoch_and_a_second_one_does_not_and_the_run_goes_on_exactly(
    tmp_path, monkeypatch, twice, finished
):
    whole, model, before = tiny(), tiny(), signal.getsignal(signal.SIGINT)
    tiny_fit(whole, 3)
    tiny_fit(model, 1, tmp_path, loss=Interrupted(0))
    monkeypatch.setattr(checkpoints, "EVERY_S", 3600)
    with pytest.raises(KeyboardInterrupt):  # so that no caller takes this for a result
        tiny_fit(model, 3, tmp_path, loss=Interrupted(2, twice))  # 3 steps an epoch
    assert len(checkpoints.load(tmp_path / "last.pt")["history"]) == finished
    assert signal.getsignal(signal.SIGINT) == before
    tiny_fit(model, 3, tmp_path, loss=Interrupted(0))
    assert_same_weights(model, whole)


# ---- Several processes ----

SHARED_RUN = """
import sys
sys.path.insert(0, {tests!r})
from test_training import AUGMENTATION, Normalised, pairs, tiny
from monodepth_nb import checkpoints
from monodepth_nb.machine import process_rank, processes_of_torchrun
from monodepth_nb.training import TrainConfig, fit

write = checkpoints.RunFolder.write
def logged_write(*arguments):
    with open({folder!r} + "/saves.txt", "a") as log:
        log.write(f"{{process_rank()}} ")
    write(*arguments)
checkpoints.RunFolder.write, checkpoints.EVERY_S = logged_write, 0

class Fragile(list):
    def __getitem__(self, index):
        if process_rank() == 1 and index == 3:
            raise OSError("the disk of this machine is gone")
        return super().__getitem__(index)

with processes_of_torchrun("cpu"):
    model = tiny(seed=process_rank())  # the first process's weights are to win
    model.dropout.p = 0.0
    config, options = TrainConfig(3, 2, 1e-2), dict(transform=AUGMENTATION, device="cpu", progress=False)
    fit(model, pairs(6), config, validation_data=pairs(3), truth_data=pairs(3), run_dir={folder!r}, **options)
    fit(Normalised(), pairs(6), config, validation_data=pairs(3), run_dir={folder!r} + "/normalised", **options)
    history = fit(model, pairs(6), TrainConfig(1, 2, 1e-2), validation_data=pairs(1), **options)
    sys.stdout.write("one pair: %d\\n" % len(history["validation_total"].dropna()))  # one piece: both write it
    fit(model, Fragile(pairs(6)), config, **options)
"""


@pytest.fixture(scope="module")
def shared_run(tmp_path_factory):
    """What two processes leave: a folder with their whole run, and how a second run ended in which one of them died."""
    folder = tmp_path_factory.mktemp("shared")
    script = folder / "shared_run.py"
    script.write_text(SHARED_RUN.format(tests=str(ROOT / "tests"), folder=str(folder)))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PATH": "", "TMPDIR": str(folder)}
    # The time-out is there to end a hang, which is what must not happen.
    done = subprocess.run([*launcher, str(script)], env=environment, capture_output=True, text=True, timeout=300)
    return folder, done


def test_two_processes_learn_the_same_as_one_with_the_double_batch(shared_run):
    folder, done = shared_run
    assert (folder / "last.pt").exists(), done.stderr
    model = tiny()
    model.dropout.p = 0.0
    history = tiny_fit(model, 3, count=6, config={"batch_size": 4}, validation_data=pairs(3), truth_data=pairs(3))
    shared = pd.read_csv(folder / "history.csv")
    compared = [column for column in history if column.startswith(("train_", "validation_", "epe", "abs_rel"))]
    pd.testing.assert_frame_equal(shared[compared], history[compared], rtol=1e-4)
    saved = checkpoints.load(folder / "last.pt")["model"]
    torch.testing.assert_close(saved, dict(model.state_dict()), rtol=1e-5, atol=1e-5)
    # Once an epoch, by the first process, and again after the scores; then those of the other run.
    assert (folder / "saves.txt").read_text() == "0 " * 4 + "0 " * 3


def test_two_processes_validate_with_the_batch_norm_statistics_that_are_saved(shared_run):
    folder, done = shared_run
    model = Normalised()
    assert (folder / "normalised" / "last.pt").exists(), done.stderr
    model.load_state_dict(checkpoints.load(folder / "normalised" / "last.pt")["model"])
    trainer = training.Trainer(model, TrainConfig(), MonodepthLoss(), torch.device("cpu"))
    count, total, *_ = trainer.validate(make_loader(pairs(3), 2))[0]
    shared = pd.read_csv(folder / "normalised" / "history.csv")["validation_total"].iloc[-1]
    assert shared == pytest.approx((total / count).item(), rel=1e-5)


def test_a_process_without_a_share_of_the_validation_pairs_does_not_stop_the_others(shared_run):
    _, done = shared_run
    assert done.stdout.count("one pair: 1") == 2, done.stderr


def test_a_dying_process_ends_the_run_of_both_with_an_error(shared_run):
    _, done = shared_run
    assert done.returncode != 0 and "the disk of this machine is gone" in done.stderr
