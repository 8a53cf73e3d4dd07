"""Made-up pairs of known geometry: good ones pass, each way of being no rectified pair is told apart."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from monodepth_nb.data.kitti import KittiStereo
from monodepth_nb.data.pair_check import check_pair, check_pairs, patch_shifts


def scene(seed: int, height: int, width: int) -> torch.Tensor:
    """(3, H, W) blotches of three sizes in random colours."""
    draw = torch.Generator().manual_seed(seed)
    sizes = [(height // s, width // s) for s in (4, 8, 32)]
    layers = [F.interpolate(torch.rand(1, 3, *size, generator=draw), (height, width)) for size in sizes]
    return torch.stack(layers).mean(0)[0]


def pair(height: int = 188, width: int = 512, near_px: float = 40, seed: int = 0, texture=scene):
    """Two views of a ground that comes nearer from top to bottom: disparity 0 to `near_px`."""
    left = texture(seed, height, width)
    x = torch.linspace(-1, 1, width).expand(height, width)
    y = torch.linspace(-1, 1, height)[:, None].expand(height, width)
    disparity = near_px * (y + 1) / 2
    grid = torch.stack((x + disparity * 2 / (width - 1), y), -1)[None]
    return left, F.grid_sample(left[None], grid, align_corners=True, padding_mode="reflection")[0]


def lowered(view: torch.Tensor, rows: int) -> torch.Tensor:
    return view.roll(rows, dims=-2)


SIZES = [(375, 1242), (188, 512), (96, 256), (64, 128)]


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_a_rectified_pair_passes(height, width):
    left, right = pair(height, width, near_px=width / 12)
    assert check_pair(left, right, "a") == []


def test_another_exposure_and_some_noise_pass():
    left, right = pair()
    right = (0.6 * right**1.2 + 0.02 * torch.randn(right.shape)).clamp(0, 1)
    assert check_pair(left, right, "a") == []


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_swapped_views_are_told(height, width):
    left, right = pair(height, width, near_px=width / 12)
    problems = check_pair(right, left, "a")
    assert len(problems) == 1 and "a: " in problems[0] and "swapped" in problems[0]


@pytest.mark.parametrize("rows", [-15, -4, 4, 15])
def test_rows_that_do_not_line_up_are_counted(rows):
    left, right = pair(375, 1242)
    (problem,) = check_pair(left, lowered(right, rows), "a")
    said = float(problem.split("lies ")[1].split(" rows")[0])
    assert said == pytest.approx(abs(rows), abs=0.5)
    assert ("lower" if rows > 0 else "higher") in problem


def test_swapped_and_shifted_views_have_both_problems():
    left, right = pair()
    problems = check_pair(right, lowered(left, 3), "a")
    assert len(problems) == 2 and "rows lower" in problems[0] and "swapped" in problems[1]


@pytest.mark.parametrize("exposure", [1, 0.7])
def test_the_same_picture_twice_is_told(exposure):
    left, _ = pair()
    (problem,) = check_pair(left, left * exposure, "a")
    assert "same picture" in problem


@pytest.mark.parametrize("seed", range(1, 6))
def test_unrelated_pictures_are_told(seed):
    (problem,) = check_pair(pair()[0], pair(seed=seed)[1], "a")
    assert "do not match" in problem


def test_a_rolled_camera_is_told():
    left, right = pair()
    turn = torch.tensor([[0.9986, -0.0523 * 188 / 512, 0], [0.0523 * 512 / 188, 0.9986, 0]])  # 3 degrees
    grid = F.affine_grid(turn[None], (1, *right.shape), align_corners=False)
    (problem,) = check_pair(left, F.grid_sample(right[None], grid, align_corners=False)[0], "a")
    assert "do not match" in problem


def test_views_of_two_sizes_are_told():
    left, right = pair()
    (problem,) = check_pair(left, right[:, 1:], "a")
    assert "188 x 512" in problem and "187 x 512" in problem


@pytest.mark.parametrize("shape", [(3, 188, 512), (3, 8, 16)])
def test_blank_or_tiny_pictures_are_told(shape):
    (problem,) = check_pair(torch.zeros(shape), torch.zeros(shape), "a")
    assert "too little texture" in problem


def test_patches_are_found_where_the_disparity_says():
    left = scene(0, 188, 512)
    rows, columns = patch_shifts(left, left.roll((2, -9), dims=(1, 2)))
    assert columns.median() == 9 and abs(rows.median() - 2) < 0.05


def save(path, image):
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(np.uint8(image.permute(1, 2, 0).numpy() * 255)).save(path)


def test_bad_files_of_a_folder_are_warned_of_by_name(tmp_path):
    left, right = pair()
    pairs = {"good": (left, right), "swapped": (right, left), "sizes": (left, right[:, 1:])}
    for name, (left, right) in pairs.items():
        save(tmp_path / "left" / f"{name}.png", left)
        save(tmp_path / "right" / f"{name}.png", right)
    with pytest.warns(UserWarning, match=r"(?s)2 pairs look wrong.*sizes\.png.*swapped: things lie"):
        found = check_pairs(KittiStereo(tmp_path))
    assert set(found) == {"swapped", "sizes"}


def test_a_good_folder_is_checked_in_silence_and_in_part(tmp_path, recwarn):
    for i in range(5):
        left, right = pair(96, 256, near_px=20, seed=i)
        save(tmp_path / "left" / f"{i}.png", left)
        save(tmp_path / "right" / f"{i}.png", right)
    save(tmp_path / "right" / "3.png", scene(9, 96, 256))  # bad, but not among the three picked
    assert check_pairs(KittiStereo(tmp_path), at_most=3) == {}  # 0, 2 and 4
    assert not [w for w in recwarn if issubclass(w.category, UserWarning)]
