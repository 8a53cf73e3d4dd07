"""The notebooks' full set: what is scored on was never learnt from."""

import numpy as np
import pytest
from PIL import Image

from monodepth_nb.course.full_set import full_set
from monodepth_nb.course.profiles import PROFILES

SMOKE = PROFILES["smoke"]


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("MONODEPTH_DATA", str(tmp_path / "data"))
    monkeypatch.delenv("MONODEPTH_STEREO", raising=False)


def pictures(data) -> set[bytes]:
    return {data[i]["left"].numpy().tobytes() for i in range(len(data))}


def test_no_rendered_street_is_in_two_parts_and_the_baseline_is_of_the_training_scenes():
    data = full_set(SMOKE)
    train, validation, test = (pictures(part) for part in (data.train, data.validation, data.test))
    assert (len(train), len(test)) == (SMOKE.train_scenes, SMOKE.test_scenes)
    assert not (train & validation or train & test or validation & test)
    assert pictures(data.labelled) == train and not data.pixel_mean().without


@pytest.mark.parametrize("kind", ["noc", "occ"])
def test_of_kitti_the_testing_scenes_teach_and_frame_10_of_the_training_scenes_is_scored(kind, tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    for folder in (tmp_path / "kitti" / s / v for s in ("training", "testing") for v in ("image_2", "image_3")):
        folder.mkdir(parents=True)
        for name in (f"{scene:06}_{frame}.png" for scene in range(10) for frame in (10, 11)):
            Image.fromarray(rng.integers(0, 255, (4, 1242, 3), np.uint8)).save(folder / name)
    (tmp_path / f"kitti/training/disp_{kind}_0").mkdir()
    for scene in range(10):
        truth = Image.fromarray(np.full((4, 1242), 512, np.uint16))
        truth.save(tmp_path / f"kitti/training/disp_{kind}_0/{scene:06}_10.png")
    monkeypatch.setenv("MONODEPTH_STEREO", str(tmp_path / "kitti"))
    data = full_set(SMOKE)
    train, validation, test = (pictures(part) for part in (data.train, data.validation, data.test))
    assert len(train | validation) == 20 and not train & validation and not test & (train | validation)
    assert data.test.names == [f"{scene:06}_10" for scene in range(10)] and kind in data.label
    assert set(data.pixel_mean().without) == set(data.test.names)  # each scored scene is left out of its own mean
