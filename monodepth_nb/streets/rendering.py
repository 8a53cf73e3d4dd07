"""Rendered street scenes with exact ground truth, in KITTI's layout and through KITTI's camera.

A street is a `raycast.World` of boxes and ellipsoids, so that disparity_px = focal_px * BASELINE_M / depth is exact.
A pixel that holds the edge of a surface is the mean of its centre and its four corners; disparity, classes and masks
are always those of the centre alone, never blended.

Scene `i` of `render_streets(root, count, seed=s)` depends on the pair (s, i) only. Sets that must share no scene
(training and unseen ones) take different seeds; within one folder, different numbers are different scenes.
"""

import json
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from monodepth_nb.data.download import data_folder
from monodepth_nb.streets.paint import radiance, shadow_map
from monodepth_nb.streets.raycast import Camera, cast
from monodepth_nb.streets.scene import Street, add_horizon, add_side

BASELINE_M = 0.54
FOCAL = 721.5377 / 375, 721.5377 / 1242  # KITTI's focal length, in heights and widths of its pictures
CENTRE = 172.854 / 375, 609.5593 / 1242  # its principal point, likewise
VERSION = 3  # part of the cache note: raise it when the pictures of a seed change


def build_street(seed):
    """Draw a street, its light and where the camera is, from `seed` (an integer or a tuple of them)."""
    rng = np.random.default_rng(seed)
    street = Street(rng)
    for side in (-1, 1):
        add_side(street, side)
    add_horizon(street)
    yaw, pitch = rng.normal(0, 0.1 if rng.random() < 0.15 else 0.02), rng.normal(0, 0.008)
    lateral = (rng.integers(street.lanes) + 0.5) * street.lane_width + rng.normal(0, 0.25)
    street.pose = (np.sin(yaw), np.sin(pitch), np.cos(yaw)), (lateral, rng.normal(1.65, 0.05), 0.0)  # forward, origin
    street.finish()
    street.shadow = shadow_map(street)
    return street


# ---- Pictures ----


def _view(street, camera, size):
    """Linear image (3, H, W) and, of the pixel centres, inverse depth, class, lane paint and gloss (H, W)."""
    rows, columns = np.arange(size[0] + 1) + 0.5, np.arange(size[1] + 1) + 0.5  # one more than there are centres
    y, x = camera.slopes(np.stack((rows, rows - 0.5))[:, :, None], np.stack((columns, columns - 0.5))[:, None])
    inverse, face = cast(street, camera, y, x)
    centre, corner = zip(*np.broadcast_arrays(y, x, inverse, face), strict=True)
    inner = np.s_[:-1, :-1]
    around = inner, np.s_[:-1, 1:], np.s_[1:, :-1], np.s_[1:, 1:]  # the corners of each pixel
    image, maps = (a.reshape(3, *size) for a in radiance(street, camera, *(a[inner].ravel() for a in centre)))
    # Inside a surface texture and paint are already filtered; only pixels that hold an edge need their corners.
    edge = np.any([corner[3][c] != centre[3][inner] for c in around], axis=0)
    wanted = np.zeros(face.shape[1:], bool)
    for c in around:
        wanted[c] |= edge
    colours = np.zeros((3, *wanted.shape), np.float32)
    colours[:, wanted] = radiance(street, camera, *(a[wanted] for a in corner))[0]
    image[:, edge] = image[:, edge] / 2 + sum(colours[(slice(None), *c)][:, edge] for c in around) / 8
    return image, centre[2][inner], *maps


def _seen_from_right(street, camera, inverse):
    """True where the right camera sees the surface that the left pixel centre shows: a ray is cast back to it."""
    shift = camera.focal[1] * BASELINE_M
    rows, columns = np.arange(inverse.shape[0])[:, None] + 0.5, np.arange(inverse.shape[1])[None] + 0.5
    columns = columns - shift * inverse  # where the surface point is in the right view
    found, _ = cast(street, camera.moved_right(BASELINE_M), *camera.slopes(rows, columns), shift)
    return (inverse > 0) & (columns >= 0.5) & (found <= inverse * 1.001)


def _develop(image, gain, gamma, tone):
    """Linear radiance (3, H, W), gains per channel before and after the gamma curve -> 8-bit picture (H, W, 3)."""
    picture = np.clip(np.moveaxis(image, 0, -1) * np.float32(gain), 0, 1) ** np.float32(1 / gamma)
    return np.uint8(np.minimum(picture * np.float32(tone), 1) * 255 + 0.5)


def render_scene(seed, size=(256, 512)):
    """One street seen by two cameras 0.54 m apart, with exact truth.

    seed:    integer or tuple of integers; the same seed gives the same scene
    size:    (height, width) in pixels; the focal length is KITTI's in heights (y) and widths (x)
    returns: dict of arrays (H, W): `left`, `right` (uint8, H, W, 3); `disparity_px`, `disparity_right_px` (float32,
             NaN = sky); `visible` (bool: the right view shows the same surface point); `classes` (uint8, index into
             CLASSES), `lane_paint`, `shiny` (bool), all of the left view unless named right; `focal_px` (horizontal),
             `baseline_m`, and `right_tone`, the right picture's gain per channel relative to the left's
    """
    if len(size) != 2 or min(size) < 16:
        raise ValueError(f"size is {size}; give (height, width), at least 16 pixels each")
    street = build_street(seed)
    camera = Camera.towards(*street.pose, np.multiply(FOCAL, size).tolist(), np.multiply(CENTRE, size).tolist())
    left, inverse, classes, paint, gloss = _view(street, camera, size)
    right, inverse_right, *_ = _view(street, camera.moved_right(BASELINE_M), size)
    # As automatic exposure would, up to what is brighter than any wall.
    gain = street.balance * (street.level / np.mean(np.minimum(left, 2) ** (1 / street.gamma))) ** street.gamma
    scene = dict(focal_px=camera.focal[1], baseline_m=BASELINE_M, right_tone=street.right_tone)
    scene |= dict(left=_develop(left, gain, street.gamma, 1), visible=_seen_from_right(street, camera, inverse))
    scene |= dict(right=_develop(right, gain, street.gamma, street.right_tone))
    for name, seen in (("disparity_px", inverse), ("disparity_right_px", inverse_right)):
        scene[name] = np.where(seen > 0, np.float32(camera.focal[1] * BASELINE_M) * seen, np.float32(np.nan))
    return scene | dict(classes=classes.astype(np.uint8), lane_paint=paint > 0.5, shiny=gloss > 0.1)


# ---- Files ----


def calibration(size):
    """The lines of a KITTI calibration file that say how the two colour cameras project."""
    (fy, fx), (cy, cx) = np.multiply(FOCAL, size), np.multiply(CENTRE, size)
    lines = []
    for camera, shift in (("02", 0.0), ("03", -fx * BASELINE_M)):
        projection = fx, 0, cx, shift, 0, fy, cy, 0, 0, 0, 1, 0
        lines.append(f"P_rect_{camera}: " + " ".join(f"{number:.9e}" for number in projection))
    return "\n".join(lines) + "\n"


def _write_scene(training, number, size, seed):
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


def render_streets(root, count, size=(256, 512), seed=0, progress=True):
    """Write `count` rendered pairs below `root` in KITTI's layout; do nothing if they are there already.

    root/training/image_2, image_3   left and right view, PNG
    .../disp_occ_0, disp_noc_0       disparity of the left view in px, uint16 PNG of 256 x px, 0 = none (the sky, or
                                     256 px and more, which the format cannot hold);
                                     noc holds only what the right view sees too
    .../disp_occ_1r                  the same of the right view (not a folder of KITTI's)
    .../classes_2                    uint8 PNG, index into CLASSES; lane_paint_2, shiny_2: masks, 0 or 255
    .../calib_cam_to_cam             NNNNNN.txt; all the others hold NNNNNN_10.png
    root/streets.json                what was asked for

    Rendered in a temporary folder beside `root` that takes its name at the end, so `root` is never half full. Raises
    ValueError where `root` already holds something else.
    """
    root, size = Path(root), tuple(int(n) for n in size)
    note = {"renderer": VERSION, "count": int(count), "size": list(size), "seed": int(seed)}
    if count < 1:
        raise ValueError(f"count is {count}; give the number of pairs to render, at least 1")
    if (root / "streets.json").is_file():
        found = json.loads((root / "streets.json").read_text())
        if found == note:
            return root
        raise ValueError(f"{root} holds streets of {found}, not {note}: name another folder or delete that one")
    if root.exists() and any(root.iterdir()):
        raise ValueError(f"{root} exists and holds no rendered streets: name another folder")
    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{root.name}-", dir=root.parent) as temporary:
        finished = Path(temporary) / root.name
        (finished / "training" / "calib_cam_to_cam").mkdir(parents=True)
        with ThreadPoolExecutor(2) as pool:  # NumPy lets go of the interpreter in its loops
            jobs = pool.map(lambda number: _write_scene(finished / "training", number, size, int(seed)), range(count))
            list(tqdm(jobs, total=count, desc="rendering streets", unit="pair", disable=not progress))
        (finished / "streets.json").write_text(json.dumps(note))
        if root.exists():
            root.rmdir()  # empty, else refused above
        finished.replace(root)
    return root


def street_root(size: tuple[int, int], count: int, seed: int, folder: Path | None = None) -> Path:
    """The folder, within `folder` or `data_folder`, of `count` streets, rendered first if need be.

    Other seeds are other streets. The settings are in its name, so that several may lie side by side.
    """
    folder = (folder or data_folder()) / f"streets_{size[0]}x{size[1]}_{count}_seed{seed}"
    return render_streets(folder, count, size, seed)
