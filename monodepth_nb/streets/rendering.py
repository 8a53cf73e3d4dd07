"""Rendered stereo pairs of streets with exact ground truth, in KITTI's layout and through KITTI's camera.

The scene is a `raycast.World`, so disparity_px = focal_px * BASELINE_M / depth is exact. A pixel on the edge of a
surface is the mean of its centre and its four corners; disparity, classes and masks are always those of the centre.
Scene `i` of a set depends on its seed and `i` only, so sets that must share no scene need different seeds.
"""

import json
import tempfile
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
from filelock import FileLock
from PIL import Image
from tqdm.contrib.concurrent import thread_map

from monodepth_nb.data.download import data_folder
from monodepth_nb.identity import changed_code, code_of, move_aside
from monodepth_nb.streets.paint import radiance
from monodepth_nb.streets.raycast import Camera, cast, shadow_map
from monodepth_nb.streets.scene import Street, add_horizon, add_side

BASELINE_M = 0.5327  # as calibrated; a road of the unlabelled pairs then has the slope that matching finds in them
FOCAL = 721.5377 / 375, 721.5377 / 1242  # KITTI's focal length as a fraction of image (height, width)
CENTRE = 172.854 / 375, 609.5593 / 1242  # its principal point, likewise


def build_street(seed):
    """A random street with its light and the pose of the left camera; `seed` is an integer or a tuple of integers."""
    rng = np.random.default_rng(seed)
    street = Street(rng)
    for side in (-1, 1):
        add_side(street, side)
    add_horizon(street)
    yaw, pitch = rng.normal(0, 0.1 if rng.random() < 0.15 else 0.02), rng.normal(0, 0.008)
    lateral = (rng.integers(street.lanes) + 0.5) * street.lane_width + rng.normal(0, 0.25)
    street.pose = (np.sin(yaw), np.sin(pitch), np.cos(yaw)), (lateral, rng.normal(1.65, 0.03), 0.0)  # forward, origin
    complete(street)
    return street


def complete(street):
    """Build the tables and the shadows, after the last solid."""
    street.finish()
    street.shadow = shadow_map(street, street.sun, street.place(0.0, 30.0)[0])


# ---- Pictures ----


def _view(street, camera, size):
    """Linear image (3, H, W) and, at the pixel centres, inverse depth, class, lane paint and gloss, (H, W) each."""
    rows, columns = (np.arange(n + 1) + 0.5 for n in size)  # one more than there are centres
    y, x = camera.slopes(np.stack((rows, rows - 0.5))[:, :, None], np.stack((columns, columns - 0.5))[:, None])
    centre, corner = zip(*np.broadcast_arrays(y, x, *cast(street, camera, y, x)), strict=True)
    inner = np.s_[:-1, :-1]
    around = inner, np.s_[:-1, 1:], np.s_[1:, :-1], np.s_[1:, 1:]  # the corners of each pixel
    image, maps = (a.reshape(3, *size) for a in radiance(street, camera, *(a[inner].ravel() for a in centre)))
    # Inside a surface texture and paint are already filtered; only pixels on an edge need their corners.
    edge = np.any([corner[3][c] != centre[3][inner] for c in around], axis=0)
    wanted = np.zeros(corner[3].shape, bool)
    for c in around:
        wanted[c] |= edge
    colours = np.zeros((3, *wanted.shape), np.float32)
    colours[:, wanted] = radiance(street, camera, *(a[wanted] for a in corner))[0]
    image[:, edge] = image[:, edge] / 2 + sum(colours[(slice(None), *c)][:, edge] for c in around) / 8
    return image, centre[2][inner], *maps


def _seen_from_right(street, camera, inverse):
    """True where the right camera sees the surface at the left pixel centre, (H, W): casts a ray from it to there."""
    shift = camera.focal[1] * BASELINE_M
    rows, columns = np.ogrid[: inverse.shape[0], : inverse.shape[1]]
    columns = columns + 0.5 - shift * inverse  # where the surface point is in the right view
    found, _ = cast(street, camera.moved_right(BASELINE_M), *camera.slopes(rows + 0.5, columns), shift)
    return (inverse > 0) & (columns >= 0.5) & (found <= inverse * 1.001)


def _develop(image, gain, gamma, tone):
    """Linear radiance (3, H, W) to an 8-bit picture (H, W, 3); `gain` acts before the gamma curve, `tone` after it."""
    picture = np.clip(np.moveaxis(image, 0, -1) * np.float32(gain), 0, 1) ** np.float32(1 / gamma)
    return np.uint8(np.minimum(picture * np.float32(tone), 1) * 255 + 0.5)


def look_ahead(street, size):
    """The left view of a street: its camera, exposure, picture (uint8, H, W, 3) and the maps of `_view`."""
    camera = Camera.towards(*street.pose, *np.multiply((FOCAL, CENTRE), size).tolist())
    image, *maps = _view(street, camera, size)
    # Automatic exposure; it ignores what is brighter than any wall.
    gain = street.balance * (street.level / np.mean(np.minimum(image, 2) ** (1 / street.gamma))) ** street.gamma
    return camera, gain, _develop(image, gain, street.gamma, 1), *maps


def render_scene(seed, size=(256, 512)):
    """One street seen by two cameras 0.5327 m apart, with exact ground truth.

    seed:    as of `build_street`; the same seed gives the same scene
    size:    (height, width) in pixels, at least 16 each; KITTI's field of view is kept
    returns: dict of arrays (H, W): `left`, `right` (uint8, H, W, 3); `disparity_px`, `disparity_right_px` (float32,
             NaN = sky); of the left view `visible` (bool: in the right view too), `classes` (uint8, index into
             CLASSES), `lane_paint` and `shiny` (bool); `focal_px` (horizontal), `baseline_m`, and `right_tone`, the
             right picture's gain per channel relative to the left's
    """
    if len(size) != 2 or min(size) < 16:
        raise ValueError(f"size is {size}; give (height, width), at least 16 pixels each")
    street = build_street(seed)
    camera, gain, left, inverse, classes, paint, gloss = look_ahead(street, size)
    right, inverse_right, *_ = _view(street, camera.moved_right(BASELINE_M), size)
    scale, none = np.float32(camera.focal[1] * BASELINE_M), np.float32(np.nan)
    return {
        "left": left,
        "right": _develop(right, gain, street.gamma, street.right_tone),
        "disparity_px": np.where(inverse > 0, scale * inverse, none),
        "disparity_right_px": np.where(inverse_right > 0, scale * inverse_right, none),
        "visible": _seen_from_right(street, camera, inverse),
        "classes": classes.astype(np.uint8),
        "lane_paint": paint > 0.5,
        "shiny": gloss > 0.1,
        "focal_px": camera.focal[1],
        "baseline_m": BASELINE_M,
        "right_tone": street.right_tone,
    }


# ---- Files ----


def calibration(size):
    """The lines of a KITTI calibration file with the projection matrices of the two colour cameras."""
    (fy, fx), (cy, cx) = np.multiply((FOCAL, CENTRE), size)
    left, right = ((fx, 0, cx, shift, 0, fy, cy, 0, 0, 0, 1, 0) for shift in (0.0, -fx * BASELINE_M))
    rows = (" ".join(f"{number:.9e}" for number in projection) for projection in (left, right))
    return "P_rect_02: {}\nP_rect_03: {}\n".format(*rows)


def _write_scene(training, size, seed, number):
    """Render scene `number` and write its files."""
    scene = render_scene((seed, number), size)
    stored = (np.nan_to_num(scene[name]) * 256 + 0.5 for name in ("disparity_px", "disparity_right_px"))
    truth, truth_right = (np.uint16(np.where(values < 2**16, values, 0)) for values in stored)
    images = {"image_2": scene["left"], "image_3": scene["right"], "classes_2": scene["classes"]}
    images |= {"disp_occ_0": truth, "disp_noc_0": truth * scene["visible"], "disp_occ_1r": truth_right}
    images |= {f"{name}_2": scene[name] * np.uint8(255) for name in ("lane_paint", "shiny")}
    for folder, image in images.items():
        (training / folder).mkdir(exist_ok=True)
        Image.fromarray(image).save(training / folder / f"{number:06d}_10.png", compress_level=1)
    (training / "calib_cam_to_cam" / f"{number:06d}.txt").write_text(calibration(size))


def render_streets(root, count, size=(256, 512), seed=0):
    """Write `count` rendered pairs below `root` in KITTI's layout, unless they are there already; returns `root`.

    root/streets.json                the settings
    root/training/image_2, image_3   left and right view; all files are PNGs named NNNNNN_10.png
    .../disp_occ_0, disp_noc_0       disparity of the left view, uint16, 256 x px; 0 = none (the sky, or 256 px and
                                     more, which the format cannot hold); noc: only what the right view sees too
    .../disp_occ_1r                  the same of the right view (not a folder of KITTI's)
    .../classes_2                    uint8, index into CLASSES; lane_paint_2, shiny_2: masks, 0 or 255
    .../calib_cam_to_cam             NNNNNN.txt

    `root` is never incomplete: a temporary folder beside it is renamed at the end. Of two processes that want the same
    streets, one waits for the other, where the file system has locks. Streets that other code has rendered are moved
    aside and rendered anew. Raises ValueError if `root` holds something else.
    """
    root, size = Path(root), tuple(int(n) for n in size)
    note = {"count": int(count), "size": list(size), "seed": int(seed), "code": code_of("streets.rendering")}
    if count < 1:
        raise ValueError(f"count is {count}; give the number of pairs to render, at least 1")
    if _holds(root, note):
        return root
    root.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(root.with_name(f".{root.name}.lock"))
    with suppress(NotImplementedError, OSError):  # network folders, such as Colab's Drive, may have no locks
        lock.acquire()
    try:
        if not _holds(root, note):  # another process may have rendered them while this one waited
            _render(root, note)
    finally:
        with suppress(OSError):  # Windows keeps it while it is held
            Path(lock.lock_file).unlink()
        lock.release()
    return root


def _render(root, note):
    with tempfile.TemporaryDirectory(prefix=f".{root.name}-", dir=root.parent) as temporary:
        finished = Path(temporary) / root.name
        (finished / "training" / "calib_cam_to_cam").mkdir(parents=True)
        write = partial(_write_scene, finished / "training", tuple(note["size"]), note["seed"])
        # NumPy releases the interpreter lock in its loops.
        thread_map(write, range(note["count"]), max_workers=2, desc="rendering streets", unit="pair")
        (finished / "streets.json").write_text(json.dumps(note))
        if _holds(root, note):
            return  # without a lock, another process may have been faster
        if root.exists():
            _make_room(root, note)
        finished.replace(root)


def _make_room(root, note):
    """Remove an empty folder, and move the streets aside that other code has rendered."""
    if not any(root.iterdir()):
        root.rmdir()
        return
    changed = changed_code(json.loads((root / "streets.json").read_text()).get("code", {}), note["code"])
    print(f"{root}: {changed}: rendered anew; the old streets are kept in {move_aside(root)}")


def _holds(root, note):
    """Whether the streets of this note are in `root`; ValueError if it holds anything but streets of other code."""
    if not root.exists() or not any(root.iterdir()):
        return False
    note_file = root / "streets.json"
    found = json.loads(note_file.read_text()) if note_file.is_file() else "no rendered streets"
    if found == note:
        return True
    if not note_file.is_file() or any(found.get(key) != note[key] for key in ("count", "size", "seed")):
        wanted = {key: note[key] for key in ("count", "size", "seed")}
        raise ValueError(f"{root} holds {found}, not {wanted}: name another folder, or empty this one")
    return False


def street_root(size: tuple[int, int], count: int, seed: int, folder: Path | None = None) -> Path:
    """The folder, within `folder` or `data_folder`, of `count` streets, rendered if need be; named by the settings."""
    name = f"streets_{size[0]}x{size[1]}_{count}_seed{seed}"
    return render_streets((folder or data_folder()) / name, count, size, seed)
