"""An edit of whatever a result depends on makes it stale; an edit of comments or of drawing does not."""

import ast
import importlib
import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from test_training import TinyNetwork, pairs, tiny_fit
from torch.utils.data import ConcatDataset, Subset

from monodepth_nb import identity, losses
from monodepth_nb.checkpoints import CheckpointError, RunFolder, load, settings_of
from monodepth_nb.data.loading import PairCache
from monodepth_nb.data.transforms import Compose, MirroredFlip, PasteNearer, Zoom
from monodepth_nb.identity import code_of, described, names_of
from monodepth_nb.losses import MonodepthLoss
from monodepth_nb.networks import DispResNet
from monodepth_nb.streets.segmenter import Segmenter, save_segmenter
from monodepth_nb.training import TrainConfig

PACKAGE = Path(identity.__file__).parent


# ---- Code ----


def hash_of(source: str) -> str:
    return identity.short_hash(identity.without_comments(ast.parse(source)))


def test_comments_docstrings_and_layout_do_not_count_and_anything_else_does():
    source = 'def f(x):\n    """Doubles."""\n    return 2 * x\n'
    assert hash_of(source) == hash_of("# A comment.\ndef f(x):\n    return (2 *\n        x)\n")
    for other in ("2 + x", "3 * x", "2 * y", '"2" * x', "2 * x or None"):
        assert hash_of(source) != hash_of(source.replace("2 * x", other))


def test_the_code_of_training_is_what_it_imports_and_neither_files_nor_figures_nor_the_command_line():
    modules = set(code_of("training"))
    assert {"training", "losses", "networks", "layers", "evaluation", "data.loading", "data.matching"} <= modules
    assert not modules & {"checkpoints", "figures", "inference", "__main__", "benchmark", "streets.scene"}
    assert set(code_of("streets.rendering")) == {
        f"streets.{n}" for n in ("rendering", "scene", "paint", "raycast", "textures")
    }


def test_no_module_counts_as_edited_from_outside_when_nothing_was_edited():
    for name in code_of("training", "course.full_set"):
        importlib.import_module(f"monodepth_nb.{name}")
        unchanged, *_ = identity.PARSED[f"monodepth_nb.{name}", identity.file_of(name)][1]
        assert code_of(name)[name] == unchanged, name


def test_a_function_that_a_notebook_replaces_counts_there_and_for_no_other_process(monkeypatch):
    before, on_disk = code_of("training"), code_of("training", loaded=False)
    monkeypatch.setattr(losses, "ssim_distance", lambda x, y: (x - y).abs())
    after = code_of("training")
    assert code_of("training", loaded=False) == on_disk
    assert "losses" in identity.changed_code(before, after)
    assert "networks" not in identity.changed_code(before, after)


# ---- Objects ----


class NotebookLoss(MonodepthLoss):
    weight = 2.0

    def forward(self, *arguments):
        return super().forward(*arguments)


def edited(**changes):
    return type("NotebookLoss", (MonodepthLoss,), dict(vars(NotebookLoss)) | changes)


def test_equal_objects_read_alike_and_each_parameter_counts():
    assert described(Compose(MirroredFlip(), Zoom())) == described(Compose(MirroredFlip(), Zoom()))
    different = [Compose(MirroredFlip(0.4), Zoom()), Compose(Zoom(), MirroredFlip())]
    different += [MonodepthLoss(), MonodepthLoss(0.2), MonodepthLoss(padding="border"), torch.zeros(2)]
    different += [Compose(MirroredFlip(), Zoom(1.2)), torch.zeros(2, 1)]
    different += [PasteNearer(pairs(2), Zoom()), PasteNearer(pairs(1), Zoom()), partial(Zoom, 2), partial(Zoom, 3)]
    assert len({described(value) for value in different}) == len(different)


def test_numbers_of_numpy_count_by_value():
    values = [np.zeros(2), np.array([0.0, 1.0]), np.zeros(2, np.float32), np.zeros((2, 1)), *np.float32([0, 1])]
    assert len({described(NotebookArray(value)) for value in values}) == len(values)
    assert described(NotebookArray(np.zeros(2))) == described(NotebookArray(np.zeros(2)))


class NotebookArray(MonodepthLoss):
    def __init__(self, weights):
        super().__init__()
        self.weights = weights


def test_the_code_of_a_notebooks_own_class_counts_with_what_it_calls():
    same = [NotebookLoss, edited(), edited(__doc__="Another text.")]
    assert len({described(kind()) for kind in same}) == 1
    others = [edited(weight=3.0), edited(forward=lambda self, *_: 0), edited(forward=lambda self, *_: scale(0))]
    assert len({described(kind()) for kind in (NotebookLoss, *others)}) == 4


def scale(x):
    return FACTOR * x


FACTOR = 1


def test_a_helper_and_a_constant_that_a_notebooks_function_uses_count(monkeypatch):
    texts = [described(scale), described(lambda x: scale(x))]
    monkeypatch.setitem(globals(), "FACTOR", 2)
    assert not set(texts) & {described(scale), described(lambda x: scale(x))}


def test_names_come_from_within_caches_subsets_and_chains():
    data = pairs(3)
    cache = PairCache(Subset(data, [2, 0]), (32, 64))
    assert names_of(cache) == ["blobs 2", "blobs 0"]
    assert names_of(ConcatDataset([cache, data])) == ["blobs 2", "blobs 0", "blobs 0", "blobs 1", "blobs 2"]


def test_a_segmenter_that_was_trained_anew_gives_another_run(tmp_path):
    path = tmp_path / "segmenter.pt"
    settings = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        save_segmenter(Segmenter(), path)
        for trainable in (False, True):
            model = DispResNet("imagenet18", width=0.0625, weights=f"streets:{path}", trainable_encoder=trainable)
            settings.append(settings_of(model, TrainConfig(), MonodepthLoss(), (None, None), pairs(1)))
    texts = [str(s) for s in settings]
    assert len(set(texts)) == 4


# ---- A run ----


def test_an_edited_network_of_a_notebook_is_another_network(tmp_path):
    tiny_fit(TinyNetwork(), 1, tmp_path)

    class TinyNetwork2(TinyNetwork):
        def forward(self, image):
            return [0.5 * level for level in super().forward(image)]

    TinyNetwork2.__qualname__ = TinyNetwork.__qualname__
    with pytest.raises(CheckpointError, match="network"):
        tiny_fit(TinyNetwork2(), 1, tmp_path, on_mismatch="refuse")


def test_a_run_of_older_code_says_which_module_changed(tmp_path, capsys):
    folder, model = tmp_path / "run", TinyNetwork()
    tiny_fit(model, 1, folder)
    settings = load(folder / "last.pt")["settings"]
    assert len(RunFolder(folder, model, settings, {}).resume()) == 1
    edited = settings | {"code": settings["code"] | {"losses": "00000000"}}
    with pytest.raises(CheckpointError, match="losses"):
        RunFolder(folder, model, edited, {}).resume("refuse")
    assert RunFolder(folder, model, edited, {}).resume() == []
    line = capsys.readouterr().out
    assert "losses" in line and "networks" not in line and "run_old1" in line


RUN = """
from monodepth_nb import TrainConfig, fit
from test_training import pairs, tiny
print("TOTAL", fit(tiny(), pairs(2), TrainConfig(1), run_dir="run", device="cpu", progress=False)["train_total"][0])
"""


def test_a_finished_run_is_not_believed_after_an_edit_of_a_helper(tmp_path):
    shutil.copytree(PACKAGE, tmp_path / "monodepth_nb", ignore=shutil.ignore_patterns("__pycache__"))
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}:{Path(__file__).parent}", "PYTHONDONTWRITEBYTECODE": "1"}
    path, outputs = tmp_path / "monodepth_nb" / "losses.py", []
    for constants in ("0.01**2, 0.03**2", "0.02**2, 0.03**2"):
        path.write_text(path.read_text().replace("0.01**2, 0.03**2", constants))
        run = [sys.executable, "-c", RUN]
        done = subprocess.run(run, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        outputs.append(done.stdout.splitlines())
    (first,), (message, second) = outputs
    assert "losses" in message and second != first
