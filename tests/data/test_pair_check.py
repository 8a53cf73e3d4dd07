"""Synthetic pairs of known geometry: good ones pass, and each kind of bad pair is recognised."""

from functools import cache

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from monodepth_nb.data.kitti import KittiStereo
from monodepth_nb.data.pair_check import check_pair, check_pairs, match_offsets


@cache
def pair(height: int = 188, width: int = 512, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Two views, (3, H, W), of a textured ground: disparity grows from 0 at the top to width / 12 at the bottom."""
    generator = torch.Generator().manual_seed(seed)
    sizes = [(height // s, width // s) for s in (4, 8, 32)]
    layers = [F.interpolate(torch.rand(1, 3, *size, generator=generator), (height, width)) for size in sizes]
    left = torch.stack(layers).mean(0)
    y, x = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    grid = torch.stack((x + width / 12 * (y + 1) / (width - 1), y), -1)[None]
    return left[0], F.grid_sample(left, grid, align_corners=True, padding_mode="reflection")[0]


@pytest.mark.parametrize(("height", "width"), [(375, 1242), (188, 512), (64, 128)])
def test_a_rectified_pair_passes_and_exchanged_views_are_recognised(height, width):
    left, right = pair(height, width)
    assert check_pair(left, right, "a") == []
    (problem,) = check_pair(right, left, "a")
    assert problem.startswith("a: ") and "swapped" in problem


def test_another_exposure_and_some_noise_pass():
    left, right = pair()
    noise = torch.randn(right.shape, generator=torch.Generator().manual_seed(0))
    assert check_pair(left, (0.6 * right**1.2 + 0.02 * noise).clamp(0, 1), "a") == []


@pytest.mark.parametrize("rows", [-15, 4])
def test_rows_that_do_not_line_up_are_counted_in_exchanged_views_too(rows):
    left, right = pair(375, 1242)
    (problem,) = check_pair(left, right.roll(rows, dims=-2), "a")
    first, second = check_pair(right, left.roll(rows, dims=-2), "a")
    for found in (problem, first):
        measured = float(found.split("lies ")[1].split(" rows")[0])
        assert measured == pytest.approx(abs(rows), abs=0.5)
        assert ("lower" if rows > 0 else "higher") in found
    assert "swapped" in second


def rotated(image, sine=0.0523):  # 3 degrees
    _, h, w = image.shape
    turn = torch.tensor([[0.9986, -sine * h / w, 0], [sine * w / h, 0.9986, 0]])
    grid = F.affine_grid(turn[None], (1, *image.shape), align_corners=False)
    return F.grid_sample(image[None], grid, align_corners=False)[0]


NO_PAIR = {
    "same picture": (lambda: (pair()[0], pair()[0]), ["same picture"]),
    "same picture, darker": (lambda: (pair()[0], 0.7 * pair()[0]), ["same picture"]),
    "another scene": (lambda: (pair()[0], pair(seed=1)[1]), ["do not match"]),
    "rotated camera": (lambda: (pair()[0], rotated(pair()[1])), ["do not match"]),
    "two sizes": (lambda: (pair()[0], pair()[1][:, 1:]), ["188 x 512", "187 x 512"]),
    "blank": (lambda: torch.zeros(2, 3, 188, 512), ["texture"]),
    "tiny": (lambda: torch.zeros(2, 3, 8, 16), ["texture"]),
}


@pytest.mark.parametrize(("views", "named"), NO_PAIR.values(), ids=NO_PAIR)
def test_views_that_are_no_pair_are_told_apart(views, named):
    (problem,) = check_pair(*views(), "a")
    assert all(word in problem for word in named)


def test_points_are_found_where_the_disparity_says():
    left, _ = pair()
    rows, columns = match_offsets(left, left.roll((2, -9), dims=(1, 2)))
    assert abs(np.median(columns) + 9) < 0.05 and abs(np.median(rows) - 2) < 0.05


def test_bad_pairs_of_a_folder_are_warned_of_by_name_if_they_are_among_those_checked(tmp_path, recwarn):
    left, right = pair(96, 256)
    pairs = {"a good": (left, right), "b exchanged": (right, left), "c good": (left, right), "d": (left, right[:, 1:])}
    for name, views in pairs.items():
        for view, image in zip(("left", "right"), views, strict=True):
            (tmp_path / view).mkdir(exist_ok=True)
            Image.fromarray(np.uint8(image.permute(1, 2, 0).numpy() * 255)).save(tmp_path / view / f"{name}.png")
    assert check_pairs(KittiStereo(tmp_path), at_most=2) == {}  # a and c, in silence
    assert not [w for w in recwarn if issubclass(w.category, UserWarning)]
    with pytest.warns(UserWarning, match=r"(?s)2 .*b exchanged: .*d\.png"):
        assert set(check_pairs(KittiStereo(tmp_path))) == {"b exchanged", "d"}
