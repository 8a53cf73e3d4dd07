"""What must hold of rendered streets: two views of one world, with ground truth that is exact."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from unittest.mock import Mock

import numpy as np
import pytest
from PIL import Image

from monodepth_nb.data.kitti import KittiStereo
from monodepth_nb.streets import rendering, scene
from monodepth_nb.streets.rendering import render_scene, render_streets
from monodepth_nb.streets.scene import CLASSES
from monodepth_nb.streets.textures import band, look_up, stripes, texture_bank


def sample_rows(images, x):
    """Linear interpolation of (N, H, W) or (N, H, W, C) along rows, at column indices x (N, H, W), clipped."""
    x = np.clip(x, 0, images.shape[2] - 1.001)
    column, (n, row) = x.astype(int), np.ogrid[: x.shape[0], : x.shape[1], :1][:2]
    share = (x - column).reshape(*x.shape, *[1] * (images.ndim - 3))
    return images[n, row, column] * (1 - share) + images[n, row, column + 1] * share


def column_in_right(scenes, factor=1):
    """Column of the right view that shows the surface of each left pixel (sky: none; read anywhere)."""
    disparity = np.nan_to_num(scenes["disparity_px"])
    return np.arange(disparity.shape[2]) - factor * disparity


def warp_error(scenes, mask, factor=1):
    """|left - right warped to it| in grey levels, NaN outside `mask`; the known tone difference is undone."""
    warped = sample_rows(scenes["right"].astype(float), column_in_right(scenes, factor))
    error = np.abs(warped / scenes["right_tone"][:, None, None] - scenes["left"]).mean(-1)
    clipped = scenes["left"].max(-1) > 245
    return np.where(mask & ~clipped, error, np.nan)


def is_class(scenes, *names):
    return np.isin(scenes["classes"], [CLASSES.index(name) for name in names])


def test_right_view_warped_by_the_truth_alone_is_the_left_view(scenes):
    error = warp_error(scenes, scenes["visible"] & ~scenes["shiny"])
    assert (np.nanmedian(error, axis=(1, 2)) < 2).all()  # of 255; 0.5 to 1 is usual: half of it is rounding to 8 bits
    assert (np.nanmean(error, axis=(1, 2)) < 8).all()  # interpolation across edges, where the views sample differently
    right, *wrong = (np.nanmean(warp_error(scenes, scenes["visible"], f), axis=(1, 2)).mean() for f in (1, 0, -1))
    assert min(wrong) > 3 * right  # not warped, or the other way


def test_right_disparity_agrees_with_the_left_where_both_views_see_the_point(scenes):
    gap = np.abs(sample_rows(scenes["disparity_right_px"], column_in_right(scenes)) - scenes["disparity_px"])
    for gaps, visible in zip(gap, scenes["visible"], strict=True):
        assert np.nanmedian(gaps[visible]) < 1e-3
        assert np.mean(gaps[visible] < 0.1) > 0.9  # the rest lies on edges, where interpolation mixes two surfaces


def test_something_nearer_hides_every_occluded_point(scenes):
    truth, x = scenes["disparity_px"], column_in_right(scenes)
    beside = np.nan_to_num([sample_rows(scenes["disparity_right_px"], np.floor(x) + k) for k in (0, 1)])
    occluded = np.isfinite(truth) & ~scenes["visible"] & (x >= 0)
    assert occluded.mean() > 0.003
    assert (beside.max(0) > 1.0005 * truth)[occluded].mean() > 0.97  # thin things hide between columns
    nearer = beside.min(0) > 1.05 * truth
    assert max(n[v].mean() for n, v in zip(nearer, scenes["visible"], strict=True)) < 0.01


def test_neither_the_sky_nor_points_beyond_the_left_edge_of_the_right_view_are_visible(scenes):
    sky = is_class(scenes, "sky")
    assert np.array_equal(sky, np.isnan(scenes["disparity_px"]))
    assert (scenes["disparity_px"][~sky] > 0).all()
    assert not scenes["visible"][sky | (column_in_right(scenes) < -1e-3)].any()
    assert (scenes["visible"].mean((1, 2)) > 0.4).all()


def test_the_road_is_a_plane_at_kittis_distance(scenes):
    height, width = scenes["classes"].shape[1:]
    for truth, road in zip(scenes["disparity_px"], is_class(scenes, "road"), strict=True):
        row, column = np.nonzero(road)
        system = np.stack((row, column, np.ones(len(row))), 1)
        plane = np.linalg.lstsq(system, truth[road], rcond=None)[0]
        assert np.abs(system @ plane - truth[road]).max() < 1e-3
        bottom = plane @ (height - 1, width / 2, 1) / width * 1242
        assert 55 < bottom < 80  # 65 px with a level camera 1.65 m above the road


def test_every_class_and_mask_occurs_where_it_should_and_shiny_surfaces_do_not_keep_their_brightness(scenes):
    assert {*np.unique(scenes["classes"])} == set(range(len(CLASSES)))
    assert is_class(scenes, "road")[scenes["lane_paint"]].all()
    assert is_class(scenes, "road", "car", "building")[scenes["shiny"]].all()
    assert scenes["lane_paint"].mean() > 0.002
    assert scenes["shiny"].mean() > 0.01
    road = scenes["visible"] & is_class(scenes, "road")
    puddles, dry = (np.nanmean(warp_error(scenes, road & (scenes["shiny"] == kind))) for kind in (True, False))
    assert puddles > 2 * dry  # car bodies mirror less


def test_a_seed_gives_one_scene_and_other_seeds_others(scenes):
    for name, value in render_scene((1, 0), scenes["classes"].shape[1:]).items():
        np.testing.assert_array_equal(scenes[name][0], value)
    left = scenes["left"].astype(int)
    for k in range(1, len(left)):
        assert (np.abs(left[k] - left[:k]).mean((1, 2, 3)) > 10).all()


@pytest.mark.parametrize(("centre", "foot"), [(0.1, 0.5), (-1.3, 1.1), (2.0, 3.0)])
def test_stripes_and_bands_are_means_over_the_footprint(centre, foot):
    x = centre + np.linspace(-foot / 2, foot / 2, 20001)
    assert stripes(centre, 1.5, 0.4, foot) == pytest.approx(np.mean(np.mod(x, 1.5) < 0.4), abs=1e-3)
    assert band(centre, -0.2, 0.7, foot) == pytest.approx(np.mean((x > -0.2) & (x < 0.7)), abs=1e-3)


def test_textures_fade_where_pixels_outgrow_their_detail():
    s, t = np.random.default_rng(0).uniform(-500, 500, (2, 4000))
    for tile in range(4):
        fine, middle, coarse = (look_up(texture_bank(0), tile, s, t, np.float32(foot)).std() for foot in (1, 8, 64))
        assert coarse < middle < fine and 0.5 < fine < 1.3


# ---- Files ----


def read(root, folder, number=3):
    return np.asarray(Image.open(root / "training" / folder / f"{number:06d}_10.png"))


def test_files_hold_what_was_rendered_in_the_order_of_their_numbers(folder):
    assert sorted(p.name for p in (folder / "training/image_2").iterdir()) == [f"{n:06d}_10.png" for n in range(4)]
    scene = render_scene((4, 3), (32, 64))
    exact = {"image_2": scene["left"], "image_3": scene["right"], "classes_2": scene["classes"]}
    for name, stored in (exact | {f"{mask}_2": 255 * scene[mask] for mask in ("lane_paint", "shiny")}).items():
        np.testing.assert_array_equal(read(folder, name), stored)
    for name, stored in {"disp_occ_0": "disparity_px", "disp_occ_1r": "disparity_right_px"}.items():
        np.testing.assert_allclose(read(folder, name) / 256, np.nan_to_num(scene[stored]), atol=1 / 500)
    np.testing.assert_array_equal(read(folder, "disp_noc_0"), read(folder, "disp_occ_0") * scene["visible"])
    assert (read(folder, "disp_noc_0") > 0).sum() < (read(folder, "disp_occ_0") > 0).sum()


def test_disparity_too_large_for_the_file_is_unknown_there(tmp_path, monkeypatch):
    near = np.full((16, 16), 300, np.float32)
    near[0] = 255.9
    scene = render_scene(0, (16, 16)) | {"disparity_px": near, "disparity_right_px": near}
    monkeypatch.setattr(rendering, "render_scene", lambda *_: scene)
    root = render_streets(tmp_path / "streets", 1, (16, 16))
    for folder in ("disp_occ_0", "disp_occ_1r"):
        stored = read(root, folder, 0) / 256
        assert abs(stored[0] - 255.9).max() < 1 / 256 and not stored[1:].any()


def test_calibration_is_kittis_camera_at_this_size(folder):
    sample = KittiStereo(folder, truth="occ")[0]
    assert (sample.focal_px, sample.baseline_m) == pytest.approx((64 / 1242 * 721.5377, 0.5327))
    left, _ = (folder / "training/calib_cam_to_cam/000000.txt").read_text().splitlines()
    projection = np.array(left.removeprefix("P_rect_02: ").split(), float).reshape(3, 4)
    assert projection[1, 1:3] / 32 == pytest.approx((721.5377 / 375, 172.854 / 375))


def pictures(root):
    return [path.read_bytes() for path in sorted(root.glob("training/image_2/*"))]


def test_a_folder_is_rendered_once_and_refused_for_other_streets_or_things(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(rendering, "thread_map", lambda *_, **__: pytest.fail("rendered again"))
    settings = {"count": 4, "size": (32, 64), "seed": 4}
    assert render_streets(folder, **settings) == folder
    for other in ({"count": 2}, {"size": (64, 64)}, {"seed": 3}):
        with pytest.raises(ValueError, match=str(folder)):
            render_streets(folder, **settings | other)
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(ValueError, match=str(tmp_path)):
        render_streets(tmp_path, **settings)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_streets_of_an_edited_renderer_are_rendered_anew_and_the_old_ones_kept_aside(tmp_path, monkeypatch, capsys):
    root = render_streets(tmp_path / "streets", 1, (16, 16))
    old = pictures(root)
    (root / "notes of mine.txt").write_text("keep")
    before = scene.Street.finish
    finish = {"finish": lambda street: setattr(street, "sun", -street.sun) or before(street)}
    edited = type("Street", (scene.Street,), finish)
    monkeypatch.setattr(scene, "Street", edited)
    monkeypatch.setattr(rendering, "Street", edited)
    assert render_streets(root, 1, (16, 16)) == root
    assert pictures(root) != old
    assert pictures(tmp_path / "streets_old1") == old and (tmp_path / "streets_old1/notes of mine.txt").exists()
    line = capsys.readouterr().out
    assert "streets.scene" in line and "streets.paint" not in line and "streets_old1" in line
    new = pictures(root)
    assert pictures(render_streets(root, 1, (16, 16))) == new
    assert sorted(p.name for p in tmp_path.iterdir()) == ["streets", "streets_old1"]


def test_the_slower_of_two_processes_waits_for_the_streets_of_the_faster(tmp_path, monkeypatch):
    root, begun, render, count = tmp_path / "streets", threading.Event(), rendering._write_scene, []

    def counted(*arguments):
        count.append(1)
        begun.set()
        time.sleep(0.2)  # for the other to come
        render(*arguments)

    monkeypatch.setattr(rendering, "_write_scene", counted)
    with ThreadPoolExecutor() as pool:
        first = pool.submit(render_streets, root, 1, (16, 16))
        begun.wait(60)
        second = pool.submit(render_streets, root, 1, (16, 16))
        assert first.result() == second.result() == root
    assert len(count) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["streets"]


def test_without_file_locks_the_slower_of_two_processes_finds_the_streets_of_the_faster(tmp_path, monkeypatch):
    root, render = tmp_path / "streets", rendering.thread_map

    def while_another_process_renders_them(*arguments, **options):
        monkeypatch.setattr(rendering, "thread_map", render)
        render_streets(root, 1, (16, 16))
        render(*arguments, **options)

    monkeypatch.setattr(rendering.FileLock, "acquire", Mock(side_effect=NotImplementedError("no flock here")))
    monkeypatch.setattr(rendering, "thread_map", while_another_process_renders_them)
    assert render_streets(root, 1, (16, 16)) == root and pictures(root)
    assert [p.name for p in tmp_path.iterdir()] == ["streets"]


def test_an_interrupted_rendering_and_one_of_impossible_size_or_count_leave_no_files(tmp_path, monkeypatch):
    for count, size, named in ((1, (8, 64), r"\(8, 64\)"), (0, (32, 64), "0")):
        with pytest.raises(ValueError, match=named):
            render_streets(tmp_path / "streets", count, size)
    monkeypatch.setattr(rendering, "render_scene", Mock(side_effect=KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        render_streets(tmp_path / "streets", 2, (32, 64))
    assert not list(tmp_path.iterdir())
