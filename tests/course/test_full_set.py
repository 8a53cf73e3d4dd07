"""The notebooks' full set: what is scored on was never learnt from."""

import types
import warnings
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from monodepth_nb.course.full_set import follow_recipe, full_set, training_data, unbiased, warn_of_aspect
from monodepth_nb.course.profiles import PROFILES
from monodepth_nb.data.matching import RenderedPairs

SMOKE = PROFILES["smoke"]


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("MONODEPTH_DATA", str(tmp_path / "data"))


def pictures(data) -> set[bytes]:
    return {data[i]["left"].numpy().tobytes() for i in range(len(data))}


def test_no_rendered_street_is_in_two_parts_and_the_baseline_is_of_the_training_scenes():
    data = full_set(SMOKE)
    train, validation, test = (pictures(part) for part in (data.train, data.validation, data.test))
    assert (len(train), len(test)) == (SMOKE.train_scenes, SMOKE.test_scenes)
    assert not (train & validation or train & test or validation & test)
    assert pictures(data.labelled) == train and not data.pixel_mean().without


def test_of_rendered_streets_the_few_pairs_recipe_learns_the_true_disparity_and_the_course_recipe_none():
    options = dict(scenes=2, streets_seed=0, data_root=None, focal_px=None, baseline_m=None, rendered=0)
    flags = dict(no_validation=True, no_pair_check=False, no_augmentation=False)
    for recipe, learns_truth in (("few-pairs", True), ("course", False)):
        args = types.SimpleNamespace(data="streets", size=(64, 128), recipe=recipe, **options, **flags)
        pairs = follow_recipe(training_data(args), args)[0].data
        assert isinstance(pairs, RenderedPairs) == learns_truth == ("disparity" in pairs[0])


@pytest.mark.parametrize("kind", ["noc", "occ"])
def test_of_kitti_the_testing_scenes_teach_and_frame_10_of_the_training_scenes_is_scored(kind, tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    for folder in (tmp_path / "kitti" / s / v for s in ("training", "testing") for v in ("image_2", "image_3")):
        folder.mkdir(parents=True)
        for name in (f"{scene:06}_{frame}.png" for scene in range(10) for frame in (10, 11)):
            Image.fromarray(rng.integers(0, 255, (4, 1242, 3), np.uint8)).save(folder / name)
    truth = tmp_path / f"kitti/training/disp_{kind}_0"
    truth.mkdir()
    for scene in range(10):
        Image.fromarray(np.full((4, 1242), 512, np.uint16)).save(truth / f"{scene:06}_10.png")
    data = full_set(replace(SMOKE, stereo=str(tmp_path / "kitti")))
    train, validation, test = (pictures(part) for part in (data.train, data.validation, data.test))
    assert len(train | validation) == 20 and not train & validation and not test & (train | validation)
    assert data.test.names == [f"{scene:06}_10" for scene in range(10)] and kind in data.label
    assert set(data.pixel_mean().without) == set(data.test.names)  # each scored scene is left out of its own mean


def test_pairs_that_chose_the_best_weights_are_scored_with_the_last(tmp_path, capsys):
    best, last = tmp_path / "best.pt", tmp_path / "last.pt"
    network = types.SimpleNamespace(settings={"validation": ["b", "c"]})
    with pytest.warns(UserWarning, match=r"1 of the 2 .*best\.pt"):
        assert unbiased(best, network, {"a", "b"}, False) == best  # there is no other
    last.touch()
    assert unbiased(best, network, {"a", "b"}, False) == last and "last.pt" in capsys.readouterr().out
    assert unbiased(best, network, {"a"}, True) == best and unbiased(last, network, {"b"}, True) == last
    assert not capsys.readouterr().out


def test_scores_are_not_called_those_of_held_out_pairs_without_a_warning_if_none_was_held_out(tmp_path):
    last, network = tmp_path / "last.pt", types.SimpleNamespace(settings={"validation": None})
    with pytest.warns(UserWarning, match="held none out"):
        unbiased(last, network, {"a"}, held_out=True)
    assert unbiased(last, network, {"a"}, held_out=False) == last  # of other data


@pytest.mark.parametrize(("size", "warned"), [((512, 256), True), ((256, 512), False), ((256, 256), False)])
def test_a_size_with_the_width_first_is_noticed(size, warned):
    with warnings.catch_warnings(record=True) as caught:
        warn_of_aspect((375, 1242), size)
    assert bool(caught) == warned
