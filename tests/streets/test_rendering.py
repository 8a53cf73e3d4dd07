"""What must hold of rendered streets: two views of one world, with truth that is exact."""

import json

import numpy as np
import pytest
from PIL import Image

from monodepth_nb.streets import rendering as streets
from monodepth_nb.streets.raycast import band, look_up, stripes, texture_bank
from monodepth_nb.streets.rendering import CENTRE, FOCAL, render_scene, render_streets
from monodepth_nb.streets.scene import CLASSES

SIZE = 128, 256


@pytest.fixture(scope="module")
def scenes():
    return [render_scene((1, number), SIZE) for number in range(10)]


def sample_row(image, x):
    """Linear interpolation of (H, W) or (H, W, C) along its rows, at column indices x (H, W), clipped to the edge."""
    x = np.clip(x, 0, image.shape[1] - 1.001)
    column, row = x.astype(int), np.arange(len(image))[:, None]
    share = (x - column).reshape(*x.shape, *[1] * (image.ndim - 2))
    return image[row, column] * (1 - share) + image[row, column + 1] * share


def seen_at(scene):
    """Column of the right view that shows the surface of each left pixel (sky: none; read anywhere)."""
    return np.arange(SIZE[1]) - np.nan_to_num(scene["disparity_px"])


def warp_error(scene):
    """|left - right warped to it|, mean of the channels, in grey levels; the known tone difference is undone."""
    warped = sample_row(scene["right"].astype(float), seen_at(scene)) / scene["right_tone"]
    error = np.abs(warped - scene["left"]).mean(-1)
    error[scene["left"].max(-1) > 245] = np.nan  # clipped in one of the views
    return error


def test_right_view_warped_by_the_truth_is_the_left_view(scenes):
    for scene in scenes:
        error = warp_error(scene)[scene["visible"] & ~scene["shiny"]]
        assert np.nanmedian(error) < 2  # of 255; 0.5 to 1 is usual: half of it is rounding to 8 bits
        assert np.nanmean(error) < 8  # interpolation across edges, where left and right sample differently


def test_warping_the_other_way_or_not_at_all_fits_far_worse(scenes):
    right = np.mean([np.nanmean(warp_error(s)[s["visible"]]) for s in scenes])
    for factor in (0, -1):
        wrong = [np.nanmean(warp_error(dict(s, disparity_px=factor * s["disparity_px"]))[s["visible"]]) for s in scenes]
        assert np.mean(wrong) > 3 * right


def test_right_disparity_agrees_with_the_left_where_both_views_see_the_point(scenes):
    for scene in scenes:
        seen = scene["visible"]
        gap = np.abs(sample_row(scene["disparity_right_px"], seen_at(scene)) - scene["disparity_px"])[seen]
        assert np.nanmedian(gap) < 1e-3
        assert np.mean(gap < 0.1) > 0.9  # the rest lies on edges, where interpolation mixes two surfaces


def test_something_nearer_hides_every_occluded_point(scenes):
    covered = []
    for scene in scenes:
        x, truth, row = seen_at(scene), scene["disparity_px"], np.arange(SIZE[0])[:, None]
        column = np.clip(x.astype(int), 0, SIZE[1] - 2)
        beside = np.nan_to_num([scene["disparity_right_px"][row, column + k] for k in (0, 1)])
        hidden = np.isfinite(truth) & ~scene["visible"] & (x >= 0)
        covered.append(beside.max(0)[hidden] > 1.0005 * truth[hidden])
        assert np.mean((beside.min(0) > 1.05 * truth)[scene["visible"]]) < 0.01
    covered = np.concatenate(covered)
    assert covered.mean() > 0.97  # thin things hide between columns
    assert len(covered) > 1000


def test_points_beyond_the_left_edge_of_the_right_view_are_not_visible(scenes):
    for scene in scenes:
        assert not scene["visible"][seen_at(scene) < -1e-3].any()
        assert not scene["visible"][np.isnan(scene["disparity_px"])].any()
        assert scene["visible"].mean() > 0.4


def test_only_the_sky_has_no_disparity(scenes):
    for scene in scenes:
        sky = scene["classes"] == CLASSES.index("sky")
        assert np.array_equal(sky, np.isnan(scene["disparity_px"]))
        assert (scene["disparity_px"][~sky] > 0).all()


def test_the_road_is_a_plane_at_kittis_distance(scenes):
    for scene in scenes:
        row, column = np.nonzero(scene["classes"] == CLASSES.index("road"))
        truth = scene["disparity_px"][row, column]
        system = np.stack((row, column, np.ones(len(row))), 1)
        plane = np.linalg.lstsq(system, truth, rcond=None)[0]
        assert np.abs(system @ plane - truth).max() < 1e-3
        bottom = plane @ (SIZE[0] - 1, SIZE[1] / 2, 1) / SIZE[1] * 1242
        assert 55 < bottom < 80  # 65 px with a level camera 1.65 m above the road


def test_every_class_and_mask_turns_up_and_lies_where_it_should(scenes):
    assert {*np.unique([scene["classes"] for scene in scenes])} == set(range(len(CLASSES)))
    for scene in scenes:
        assert (scene["classes"][scene["lane_paint"]] == CLASSES.index("road")).all()
        assert np.isin(scene["classes"][scene["shiny"]], [CLASSES.index(n) for n in ("road", "car", "building")]).all()
    assert np.mean([scene["lane_paint"].mean() for scene in scenes]) > 0.002
    assert np.mean([scene["shiny"].mean() for scene in scenes]) > 0.01


def test_shiny_surfaces_do_not_keep_their_brightness(scenes):
    def error(kind):
        road = [s["visible"] & (s["shiny"] == kind) & (s["classes"] == CLASSES.index("road")) for s in scenes]
        return np.nanmean(np.concatenate([warp_error(s)[mask] for s, mask in zip(scenes, road, strict=True)]))

    assert error(True) > 2 * error(False)  # puddles; car bodies mirror less


def test_a_seed_gives_one_scene_and_other_seeds_others(scenes):
    again = render_scene((1, 0), SIZE)
    for name, value in scenes[0].items():
        np.testing.assert_array_equal(value, again[name])
    for k, scene in enumerate(scenes):
        for other in scenes[:k]:
            assert np.abs(scene["left"].astype(int) - other["left"]).mean() > 10


def test_stripes_and_bands_are_means_over_the_footprint():
    x = np.linspace(-4, 4, 40001)
    for centre, foot in ((0.1, 0.5), (-1.3, 1.1), (2.0, 3.0)):
        seen = x[np.abs(x - centre) <= foot / 2]
        assert stripes(centre, 1.5, 0.4, foot) == pytest.approx(np.mean(np.mod(seen, 1.5) < 0.4), abs=1e-3)
        assert band(centre, -0.2, 0.7, foot) == pytest.approx(np.mean((seen > -0.2) & (seen < 0.7)), abs=1e-3)


def test_textures_fade_where_pixels_outgrow_their_detail():
    rng = np.random.default_rng(0)
    s, t = rng.uniform(-500, 500, (2, 4000))
    for tile in range(4):
        spread = [look_up(texture_bank(0), tile, s, t, np.float32(foot)).std() for foot in (1, 8, 64)]
        assert 0.5 < spread[0] < 1.3
        assert spread[2] < spread[1] < spread[0]


def read(path):
    return np.asarray(Image.open(path))


def test_files_hold_what_was_rendered(tmp_path):
    root = render_streets(tmp_path / "streets", 2, SIZE, seed=1, progress=False)
    scene, training = render_scene((1, 1), SIZE), root / "training"
    for folder, name in (("image_2", "left"), ("image_3", "right"), ("classes_2", "classes")):
        np.testing.assert_array_equal(read(training / folder / "000001_10.png"), scene[name])
    for folder, name in (("lane_paint_2", "lane_paint"), ("shiny_2", "shiny")):
        np.testing.assert_array_equal(read(training / folder / "000001_10.png"), 255 * scene[name])
    occ, noc = (read(training / folder / "000001_10.png") / 256 for folder in ("disp_occ_0", "disp_noc_0"))
    np.testing.assert_allclose(occ, np.nan_to_num(scene["disparity_px"]), atol=1 / 500)
    np.testing.assert_array_equal(noc, occ * scene["visible"])
    seen_from_right = read(training / "disp_occ_1r" / "000001_10.png") / 256
    np.testing.assert_allclose(seen_from_right, np.nan_to_num(scene["disparity_right_px"]), atol=1 / 500)
    assert (noc > 0).sum() < (occ > 0).sum()


def test_disparity_too_large_for_the_file_is_unknown_there(tmp_path, monkeypatch):
    scene = render_scene(0, (16, 16))
    near = np.full((16, 16), 300, np.float32)
    near[0] = 255.9
    monkeypatch.setattr(streets, "render_scene", lambda *_: scene | {"disparity_px": near, "disparity_right_px": near})
    training = render_streets(tmp_path / "streets", 1, (16, 16), progress=False) / "training"
    for folder in ("disp_occ_0", "disp_occ_1r"):
        stored = read(training / folder / "000000_10.png") / 256
        assert abs(stored[0] - 255.9).max() < 1 / 256 and not stored[1:].any()


def test_calibration_is_kittis_camera_at_this_size(tmp_path):
    root = render_streets(tmp_path / "streets", 1, SIZE, progress=False)
    lines = dict(line.split(": ") for line in (root / "training/calib_cam_to_cam/000000.txt").read_text().splitlines())
    left, right = (np.array(lines[f"P_rect_0{k}"].split(), float).reshape(3, 4) for k in (2, 3))
    assert left[0, 0] / SIZE[1] == pytest.approx(721.5377 / 1242)
    assert left[1, 1] / SIZE[0] == pytest.approx(721.5377 / 375)
    assert (left[0, 3] - right[0, 3]) / left[0, 0] == pytest.approx(0.54)
    assert left[1, 2] / SIZE[0] == pytest.approx(0.461, abs=1e-3)
    assert (FOCAL[1], CENTRE[0]) == pytest.approx((0.581, 0.461), abs=1e-3)


def test_a_second_call_renders_nothing_and_another_request_is_refused(tmp_path, monkeypatch):
    root = render_streets(tmp_path / "streets", 1, (32, 64), progress=False)
    monkeypatch.setattr(streets, "render_scene", lambda *_: pytest.fail("rendered again"))
    assert render_streets(root, 1, (32, 64), progress=False) == root
    for other in ({"count": 2}, {"size": (64, 64)}, {"seed": 3}):
        with pytest.raises(ValueError, match="name another folder"):
            render_streets(root, **({"count": 1, "size": (32, 64), "progress": False} | other))


def test_a_folder_with_other_things_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(ValueError, match="name another folder"):
        render_streets(tmp_path, 1, (32, 64), progress=False)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_an_interrupted_rendering_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(streets, "render_scene", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        render_streets(tmp_path / "streets", 2, (32, 64), progress=False)
    assert not list(tmp_path.iterdir())


def test_threads_render_the_same_scenes_in_order(tmp_path):
    root = render_streets(tmp_path / "streets", 8, (32, 64), seed=4, progress=False)
    names = sorted(p.name for p in (root / "training/image_2").iterdir())
    assert names == [f"{number:06d}_10.png" for number in range(8)]
    last = render_scene((4, 7), (32, 64))
    np.testing.assert_array_equal(read(root / "training/image_3/000007_10.png"), last["right"])
    assert json.loads((root / "streets.json").read_text())["count"] == 8


def test_sizes_that_cannot_be_rendered_are_refused():
    with pytest.raises(ValueError, match="size"):
        render_scene(0, (8, 64))
