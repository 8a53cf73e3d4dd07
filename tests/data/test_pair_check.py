"""Synthetic pairs of known geometry: good ones pass, and each kind of bad pair is recognised."""

from functools import cache

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from test_files import turned, write
from torch.utils.data import Subset

from monodepth_nb.data.kitti import KittiStereo
from monodepth_nb.data.pair_check import check_files, check_pair, check_pairs, check_truth, match_offsets, same_place


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


def data_set(root, pairs: dict, suffix: str = ".png", **options) -> KittiStereo:
    """The data set of {name: (left, right)} tensors; options of the left views."""
    for name, views in pairs.items():
        for view, image, saved in zip(("left", "right"), views, (options, {}), strict=True):
            write(root / view / f"{name}{suffix}", np.uint8(image.permute(1, 2, 0).numpy() * 255), **saved)
    return KittiStereo(root)


def test_bad_pairs_of_a_folder_are_warned_of_by_name_if_they_are_among_those_checked(tmp_path, recwarn):
    left, right = pair(96, 256)
    pairs = {"a good": (left, right), "b exchanged": (right, left), "c good": (left, right), "d": (left, right[:, 1:])}
    data = data_set(tmp_path, pairs)
    assert check_pairs(data, at_most=2) == {}  # a and c, in silence
    assert not [w for w in recwarn if issubclass(w.category, UserWarning)]
    with pytest.warns(UserWarning, match=r"(?s): 2\n.*b exchanged: .*d\.png"):
        assert set(check_pairs(data)) == {"b exchanged", "d"}


def test_a_folder_whose_pairs_are_all_exchanged_is_refused_but_not_one_without_texture(tmp_path):
    left, right = pair(96, 256)
    with pytest.raises(ValueError, match="turned towards each other"):
        check_pairs(data_set(tmp_path / "exchanged", {"a": (right, left), "b": (right, left)}))
    with pytest.warns(UserWarning, match="texture"):
        check_pairs(data_set(tmp_path / "blank", {"a": (0 * left, 0 * right)}))


def test_all_torn_unequal_and_turned_files_are_named_at_once(tmp_path):
    left, right = pair(96, 256)
    check_files(data_set(tmp_path, dict.fromkeys("abcd", (left, right))))
    for torn in ("left/b.png", "right/d.png"):
        (tmp_path / torn).write_bytes((tmp_path / torn).read_bytes()[:2000])
    with pytest.raises(ValueError, match=r"(?s): 3\n.*left/b\.png.*right/d\.png.*right/e\.png"):
        check_files(data_set(tmp_path, {"e": (left, right[:, 1:])}))


def test_an_orientation_tag_on_one_view_only_is_named(tmp_path):
    data = data_set(tmp_path, {"a": pair(96, 256)}, ".jpg", exif=turned(3))  # upside down: the size does not tell
    with pytest.raises(ValueError, match=r"left/a\.jpg is 3"):
        check_files(data)


def test_blank_truth_is_left_out_by_name_and_all_torn_truth_is_an_error(tmp_path):
    data_set(tmp_path, {name: pair(96, 256) for name in "abc"})
    for name, value in (("a", 256), ("b", 0), ("c", 256)):
        write(tmp_path / "disp_noc_0" / f"{name}.png", np.full((96, 256), value, np.uint16))
    split = Subset(KittiStereo(tmp_path, truth="noc"), [0, 1])
    with pytest.warns(UserWarning, match=r"1 .*\n.*b\.png"):
        assert check_truth(split).indices == [0]
    for name in "ab":
        torn = tmp_path / "disp_noc_0" / f"{name}.png"
        torn.write_bytes(torn.read_bytes()[:60])
    with pytest.raises(ValueError, match=r"(?s)a\.png.*b\.png"):
        check_truth(split)


def test_two_views_show_the_same_place_and_two_scenes_do_not():
    left, right = pair()
    assert same_place(left, right) and not same_place(left, pair(seed=1)[0])
    assert not same_place(left, torch.zeros_like(left))
