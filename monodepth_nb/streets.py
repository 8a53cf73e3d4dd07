"""Rendered street scenes with exact ground truth, in KITTI's layout and through KITTI's camera.

Each scene is a list of convex solids (boxes with planes cut off, ellipsoids) on a flat ground. Both views, the
shadow map and the occlusion test are casts of the same solids from different places, so they agree exactly.
The frame is x right, y up, z forward, in metres; depth is measured along the optical axis, so that
disparity_px = focal_px * BASELINE_M / depth.

Textures do not shimmer: noise comes from mip-mapped tiles read at the pixel's footprint, and stripes (lane paint,
windows) are integrated over it in closed form. A pixel that holds the edge of a surface is the mean of its centre
and its four corners; disparity, classes and masks are always those of the centre alone, never blended.

Scene `i` of `render_streets(root, count, seed=s)` depends on the pair (s, i) only. Sets that must share no scene
(training and unseen ones) take different seeds; within one folder, different numbers are different scenes.
"""

import json
import multiprocessing
import tempfile
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from tqdm.auto import tqdm

CLASSES = ("road", "sidewalk", "building", "car", "pole", "vegetation", "person", "sky")
ROAD, SIDEWALK, BUILDING, CAR, POLE, VEGETATION, PERSON, SKY = range(len(CLASSES))
BASELINE_M = 0.54
NEAR_M = 0.3  # nothing is drawn nearer than this
FOCAL = 721.5377 / 375, 721.5377 / 1242  # KITTI's focal length, in heights and widths of its pictures
CENTRE = 172.854 / 375, 609.5593 / 1242  # its principal point, likewise
VERSION = 1  # part of the cache note: raise it when the pictures of a seed change


# ---- textures -------------------------------------------------------------------------------------------------

TILE = 256  # texels
GRAIN, CLOUDS, LEAVES, BRICKS, PAVING, BARK = range(6)
LEVELS = int(np.log2(TILE))  # mip levels: 256, 128, ... 2 texels wide
LEVEL_START = np.concatenate(([0], np.cumsum(4 ** np.arange(LEVELS, 0, -1)))).astype(np.int32)


def _smooth(tile, down, across):
    """Gaussian blur (deviations in texels) of a tile that repeats; the result has zero mean and unit deviation."""
    fy, fx = np.fft.fftfreq(TILE)[:, None] * down, np.fft.rfftfreq(TILE) * across
    tile = np.fft.irfft2(np.fft.rfft2(tile) * np.exp(-2 * np.pi**2 * (fy**2 + fx**2)))
    return (tile - tile.mean()) / tile.std()


def _stones(rng, rows, columns):
    """Stones of random tone in staggered rows, with dark joints."""
    y, x = np.mgrid[:TILE, :TILE]
    row = y * rows // TILE
    along = (x + (row % 2) * TILE // columns // 2) % TILE
    tone = rng.normal(0, 0.6, (rows, columns))[row, along * columns // TILE]
    return tone - 1.5 * ((y % (TILE // rows) < 1) | (along % (TILE // columns) < 1))


@lru_cache(maxsize=4)
def texture_bank(seed):
    """Six repeating tiles and all their mip levels in one flat float32 array; unit deviation at the finest level."""
    rng = np.random.default_rng((99, seed))
    noise = [rng.normal(size=(TILE, TILE)) for _ in range(9)]
    octaves = [_smooth(noise[k], 2**k, 2**k) for k in range(6)]
    grain, clouds = sum(octaves[:4]), sum(2**k * octave for k, octave in enumerate(octaves))
    leaves = sum(np.maximum(octaves[k], _smooth(noise[5 + k], 2**k, 2**k)) for k in (1, 2, 3))
    bark = _smooth(noise[8], 12, 1) + _smooth(noise[7], 24, 4)
    levels = []
    for tile in (grain, clouds, leaves, _stones(rng, 32, 16) + 0.2 * grain, _stones(rng, 8, 8) + 0.2 * grain, bark):
        tile = (tile - tile.mean()) / tile.std()
        while len(tile) > 1:
            levels.append(tile.ravel())
            tile = tile.reshape(len(tile) // 2, 2, -1, 2).mean((1, 3))
    return np.concatenate(levels).astype(np.float32)


def look_up(bank, tile, s, t, footprint):
    """Bilinear texture value at texels (s, t), from the mip level just finer than `footprint` texels."""
    level = np.clip(np.log2(np.maximum(footprint, 1e-6)), 0, LEVELS - 1).astype(np.int32)
    shrink = np.ldexp(np.float32(1), -level)
    s, t = s * shrink - 0.5, t * shrink - 0.5
    column, row = np.floor(s), np.floor(t)
    s, t = s - column, t - row
    column, row = column.astype(np.int32), row.astype(np.int32)
    bits = LEVELS - level
    mask, start = (1 << bits) - 1, LEVEL_START[level] + tile * LEVEL_START[-1]
    left, right = column & mask, (column + 1) & mask
    upper, lower = start + ((row & mask) << bits), start + (((row + 1) & mask) << bits)
    top = bank[upper + left] * (1 - s) + bank[upper + right] * s
    return top * (1 - t) + (bank[lower + left] * (1 - s) + bank[lower + right] * s) * t


def stripes(x, period, width, footprint):
    """Share of [x - footprint / 2, x + footprint / 2] within stripes [0, width) that repeat every `period`."""
    def painted(x):
        whole = np.floor(x / period)
        return whole * width + np.minimum(x - whole * period, width)
    return (painted(x + footprint / 2) - painted(x - footprint / 2)) / footprint


def band(x, low, high, footprint):
    """Share of [x - footprint / 2, x + footprint / 2] within [low, high]."""
    return np.clip((np.minimum(x + footprint / 2, high) - np.maximum(x - footprint / 2, low)) / footprint, 0, 1)


# ---- camera and rays ------------------------------------------------------------------------------------------

def _dot(a, b):
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


class Camera(NamedTuple):
    """A pinhole. `axes` has rows right, up, forward; `focal` and `centre` are (vertical, horizontal) in pixels."""

    origin: np.ndarray
    axes: np.ndarray
    focal: tuple
    centre: tuple

    @classmethod
    def towards(cls, forward, origin, focal, centre, roll=0.0):
        forward = np.asarray(forward) / np.linalg.norm(forward)
        right = np.cross((np.sin(roll), np.cos(roll), 0.0), forward)
        right /= np.linalg.norm(right)
        return cls(np.asarray(origin, float), np.stack((right, np.cross(forward, right), forward)), focal, centre)

    def frame(self, point):
        """Three arrays in metres -> how far right, up and ahead of the camera."""
        offset = [point[k] - np.float32(self.origin[k]) for k in range(3)]
        return [_dot(np.float32(axis), offset) for axis in self.axes]

    def pixel(self, right, up, ahead):
        """Row and column (pixel centres at .5) of points given as by `frame`."""
        return self.centre[0] - self.focal[0] * up / ahead, self.centre[1] + self.focal[1] * right / ahead

    def slopes(self, row, column):
        """How steeply rays through pixel positions rise and go right: direction = forward + y * up + x * right."""
        y, x = (self.centre[0] - row) / self.focal[0], (column - self.centre[1]) / self.focal[1]
        return np.float32(y), np.float32(x)

    def trace(self, y, x, depth):
        """Rays as three arrays each: directions, and the points that lie `depth` metres along the optical axis."""
        ray = [x * np.float32(r) + y * np.float32(u) + np.float32(f) for r, u, f in self.axes.T]
        return ray, [np.float32(self.origin[k]) + depth * ray[k] for k in range(3)]

    def moved_right(self, distance):
        return self._replace(origin=self.origin + distance * self.axes[0])


class Solid(NamedTuple):
    corners: np.ndarray  # (8, 3) of a box around it
    normals: np.ndarray  # (K, 3), half-spaces normal . point <= offset; for an ellipsoid diag(1 / radius)
    offsets: np.ndarray  # (K,); for an ellipsoid its centre
    face: int            # row of its first face in the scene's tables
    round: bool = False
    holes: float = -9.0  # where the leaf noise is below this, light passes

    # Everything is worked out in inverse depth: on a plane it is linear in the pixel's position, so a half-space
    # costs one addition and one comparison per ray.
    def enter(self, camera, y, x):
        """Inverse depth (1 / m) at which each ray enters the half-spaces (0 = never), and through which of them."""
        along, distances = self.normals @ camera.axes.T, self.offsets - self.normals @ camera.origin
        enter, leave, plane = np.float32(1 / NEAR_M), np.float32(0), 0
        for k, (right, up, forward) in enumerate(np.float32(along / distances[:, None])):
            crossing = x * right + (y * up + forward)
            if distances[k] < 0:  # the camera is outside of this plane: rays can only come in through it
                plane = np.where(crossing < enter, np.int32(k), plane)
                enter = np.minimum(enter, crossing)
            else:
                leave = np.maximum(leave, crossing)
        return np.where(enter > leave, enter, np.float32(0)), plane

    def enter_round(self, camera, y, x):
        """The same for an ellipsoid, which has one face."""
        offset = np.float32(self.normals @ (camera.origin - self.offsets))
        beyond = offset @ offset - 1  # > 0: the camera is outside
        ray = [x * right + (y * up + forward) for right, up, forward in np.float32(self.normals @ camera.axes.T)]
        b = _dot(ray, offset)
        root = b * b - _dot(ray, ray) * beyond
        enter = (np.sqrt(np.maximum(root, 0)) - b) / np.maximum(beyond, np.float32(1e-6))
        return np.where((root > 0) & (enter < 1 / NEAR_M), enter, np.float32(0)), 0


def _windows(scene, camera, shape, shift):
    """For every solid in view, nearest first: the slices of the pixel grid it may touch, its largest inverse depth."""
    right, up, ahead = camera.frame(np.moveaxis(scene.corners, -1, 0))  # (solids, 8) each
    nearest, farthest = ahead.min(1, keepdims=True), ahead.max(1, keepdims=True)
    # A solid that reaches past the camera lies within the box of its corners' (right, up) from NEAR_M to its far end.
    beside = nearest < NEAR_M
    bounds = [camera.pixel(right, up, np.maximum(np.where(beside, end, ahead), NEAR_M)) for end in (NEAR_M, farthest)]
    rows, columns = np.concatenate(bounds, axis=2)  # (solids, 16) each
    closest = 1 / np.maximum(nearest[:, 0], NEAR_M)
    box = np.stack((rows.min(1) - 1, rows.max(1) + 2, columns.min(1) - 1, columns.max(1) + 2 + shift * closest))
    box = np.clip(box, 0, np.repeat(shape, 2)[:, None]).astype(int)
    seen = np.flatnonzero((farthest[:, 0] > NEAR_M) & (box[0] < box[1]) & (box[2] < box[3]))
    for k in seen[np.argsort(-closest[seen], kind="stable")]:
        yield scene.solids[k], (..., slice(*box[:2, k]), slice(*box[2:, k])), closest[k]


def cast(scene, camera, y, x, shift=0.0):
    """First surface along every ray.

    y, x:    slopes as from `Camera.slopes`, broadcasting to (..., H, W); ray (i, j) near row i and column j
    shift:   rays may stand left of column j, by up to `shift` pixels / depth of what they hit
    returns: inverse depth (1 / m, 0 = sky) and face, a row of `scene.faces` (-1 = sky), both (..., H, W)
    """
    right, up, forward = np.float32(camera.axes[:, 1] / -camera.origin[1])
    inverse = np.maximum(x * right + (y * up + forward), np.float32(0))  # the ground
    face = np.where(inverse > 0, np.int32(0), np.int32(-1))
    for solid, window, closest in _windows(scene, camera, face.shape[-2:], shift):
        if inverse[window].min() > closest:  # all behind what is there already
            continue
        rows, columns = window[1:]
        here = y[..., rows, :], x[..., rows if x.shape[-2] > 1 else slice(None), columns]
        enter, plane = (solid.enter_round if solid.round else solid.enter)(camera, *here)
        hit = enter > inverse[window]
        if solid.holes > -9 and hit.any():
            hit[hit] = _leaf(scene, camera, solid.face, enter, here, hit) > solid.holes
        np.copyto(inverse[window], enter, where=hit)
        np.copyto(face[window], solid.face + plane, where=hit)
    return inverse, face


def _outward(faces, face, point):
    """Direction in which the surface of an ellipsoid looks, of any length."""
    centre, radii = faces["centre"][face].T, faces["radii"][face].T
    return [(point[k] - centre[k]) / radii[k] ** 2 for k in range(3)]


def _unroll(point, normal):
    """Texture coordinates on a round body: the two axes that its surface faces least. Same from every viewpoint."""
    x, y, z = np.abs(normal)
    return np.where(x > np.maximum(y, z), point[2], point[0]), np.where(y > np.maximum(x, z), point[2], point[1])


def _leaf(scene, camera, face, inverse, slopes, hit):
    """Leaf noise where rays meet an ellipsoid."""
    depth = 1 / inverse[hit]
    _, point = camera.trace(*(np.broadcast_to(slope, hit.shape)[hit] for slope in slopes), depth)
    scale = scene.faces["scale"][face]
    s, t = _unroll(point, _outward(scene.faces, face, point))
    return look_up(scene.bank, LEAVES, s * scale, t * scale, depth * np.float32(scale / camera.focal[1]))


# ---- scene ----------------------------------------------------------------------------------------------------

PLAIN, GROUND, FACADE, BODY, CABIN, SIGN = range(6)  # how a surface is painted
SIDE, END, TOP = range(3)  # which way a face looks, in the frame of its solid
LOOK = {"kind": PLAIN, "colour": (0.5, 0.5, 0.5), "accent": (0.1, 0.1, 0.1), "tile": GRAIN, "contrast": 0.25,
        "scale": 64.0,                               # texels per metre
        "bay": (3.0, 1.2), "storey": (3.0, 1.6),     # distance and size of windows, metres
        "gloss": 0.0}
UP = np.array((0.0, 1.0, 0.0))
SIGNS = np.array(np.meshgrid((-1, 1), (-1, 1), (-1, 1))).reshape(3, 8).T  # corners of a box

# Linear RGB to choose from.
GREYS = (0.02, 0.02, 0.02), (0.12, 0.12, 0.12), (0.35, 0.35, 0.35), (0.75, 0.75, 0.75)
PAINTS = *GREYS, *GREYS, (0.02, 0.05, 0.2), (0.35, 0.02, 0.02), (0.05, 0.12, 0.08), (0.5, 0.3, 0.02)
CLOTHES = *GREYS, (0.03, 0.04, 0.08), (0.4, 0.05, 0.04), (0.05, 0.1, 0.3), (0.3, 0.25, 0.1)
SKINS = (0.4, 0.25, 0.18), (0.1, 0.06, 0.04)
LEAF = (0.04, 0.07, 0.018), (0.06, 0.1, 0.025), (0.03, 0.05, 0.02), (0.11, 0.1, 0.025), (0.14, 0.07, 0.025)
GRASS = (0.07, 0.11, 0.03), (0.13, 0.13, 0.05), (0.05, 0.08, 0.025)
WOOD = ((0.09, 0.07, 0.05),)
METAL = (0.25, 0.25, 0.25), (0.1, 0.1, 0.1), (0.15, 0.17, 0.15)
WALLS = (0.55, 0.5, 0.42), (0.6, 0.6, 0.58), (0.5, 0.36, 0.24), (0.3, 0.16, 0.11), (0.55, 0.45, 0.25), (0.3, 0.3, 0.3)
FRAMES = (0.6, 0.6, 0.6), (0.1, 0.12, 0.1), (0.25, 0.15, 0.1)
ROOFS = (0.2, 0.08, 0.05), (0.12, 0.09, 0.08), (0.1, 0.1, 0.11)
BOARDS = (0.5, 0.02, 0.02), (0.02, 0.08, 0.4), (0.7, 0.7, 0.7), (0.7, 0.5, 0.02)
ASPHALTS = (0.13, 0.13, 0.135), (0.19, 0.185, 0.18), (0.09, 0.09, 0.1)
PAVEMENTS = (0.26, 0.25, 0.24), (0.2, 0.2, 0.21), (0.3, 0.22, 0.18)


def _both(a, b, c, k):
    """A cut and its mirror image, for `Scene.box`."""
    return [(a, b, c, k), (-a, b, -c, k)]


POST = _both(1, 0, 1, 1.41) + _both(1, 0, -1, 1.41)  # cuts that leave of a box an upright octagon,
WHEELS = _both(0, 1, 1, 1.41) + _both(0, -1, 1, 1.41)  # one along x,
DISC = _both(1, 1, 0, 1.41) + _both(1, -1, 0, 1.41)  # one along z


class Scene:
    """Solids, tables of their looks and faces (row 0 is the ground), the course of the road, and the light."""

    def __init__(self, rng):
        self.rng, self.solids, self.looks, self.rows, self.face_count = rng, [], [], [], 0
        up, right, ahead = np.eye(3)[[[1], [0], [2]]]
        self._add(SIDEWALK, {"kind": GROUND}, np.zeros(3), up, right, ahead, [TOP], [(1, 1)])

    def _add(self, label, look, base, normals, across, along, facing, half, centre=(0, 0, 0), radii=(0, 0, 0)):
        """Rows for the faces of one solid: where they look, their two axes for texture, which start at `base`."""
        phase = self.rng.uniform(0, TILE, 2)
        start, owner = -np.stack((across @ base, along @ base), 1), [len(self.looks)] * len(normals)
        self.rows.append({"normal": normals, "across": across, "along": along, "start": start, "half": half,
                          "facing": facing, "owner": owner})
        self.looks.append(LOOK | look | {"label": label, "centre": centre, "radii": radii, "phase": phase})
        self.face_count += len(normals)

    def box(self, label, centre, half, yaw=0.0, cuts=(), **look):
        """A box turned by `yaw`, less what lies beyond the `cuts`: (a, b, c, k) keeps a X + b Y + c Z <= k, where
        X, Y, Z in [-1, 1] are the coordinates within the box."""
        centre, half = np.asarray(centre, float), np.asarray(half, float)
        turn = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
        planes = np.array([*np.c_[np.eye(3), np.ones(3)], *np.c_[-np.eye(3), np.ones(3)], *cuts])
        own = planes[:, :3] / half
        length = np.linalg.norm(own, axis=1)
        own /= length[:, None]
        normals = own @ turn.T
        offsets = planes[:, 3] / length + normals @ centre
        self.solids.append(Solid(SIGNS * half @ turn.T + centre, normals, offsets, self.face_count))
        top = np.abs(own[:, 1:2]) > 0.9
        level = np.stack((normals[:, 2], 0 * normals[:, 0], -normals[:, 0]), 1)  # horizontal, within the face
        across = np.where(top, turn[:, 0], level / np.maximum(np.linalg.norm(level, axis=1), 1e-9)[:, None])
        along = np.where(top, turn[:, 2], (0.0, 1.0, 0.0))
        facing = np.where(top[:, 0], TOP, np.where(np.abs(own[:, 2]) > np.abs(own[:, 0]), END, SIDE))
        size = np.stack((np.abs(across @ turn) @ half, np.abs(along @ turn) @ half), 1)
        self._add(label, look, centre - half[1] * UP, normals, across, along, facing, size)

    def ellipsoid(self, label, centre, radii, holes=-9.0, **look):
        centre, radii = np.asarray(centre, float), np.asarray(radii, float)
        holes = holes if centre[2] < 60 else -9.0  # farther away leaves are smaller than pixels
        self.solids.append(Solid(centre + SIGNS * radii, np.diag(1 / radii), centre, self.face_count, True, holes))
        self._add(label, look, centre, *np.zeros((3, 1, 3)), [SIDE], [radii[:2]], centre, radii)

    def finish(self):
        """Turn the rows into one array per quantity, over all faces."""
        faces = {k: np.concatenate([row[k] for row in self.rows]) for k in self.rows[0]}
        faces |= {k: np.array([look[k] for look in self.looks])[faces["owner"]] for k in self.looks[0]}
        self.faces = {k: v.astype(np.int32 if v.dtype.kind == "i" else np.float32) for k, v in faces.items()}
        self.corners = np.float32([solid.corners for solid in self.solids])
        self.bank = texture_bank(int(self.rng.integers(4)))
        return self

    def road_x(self, z):
        """Where the middle of the road is, z metres ahead: a parabola that runs on as a straight line."""
        near = np.minimum(z, 90)
        return self.bend * near * (2 * z - near)

    def place(self, lateral, z):
        """Road coordinates -> the point on the ground there, and the direction of the road."""
        return np.array((self.road_x(z) + lateral, 0.0, z)), np.arctan(2 * self.bend * min(z, 90))


def _colour(rng, choices, spread=0.25):
    """One of the colours, varied a little."""
    colour = np.array(choices[rng.integers(len(choices))])
    return colour * rng.uniform(1 - spread, 1 + spread) * rng.uniform(0.92, 1.08, 3)


CARS = (  # chance, half width, half length, bonnet and cabin height; cabin: share of length, shift back, rake
    (0.43, 0.88, 2.15, 0.93, 0.52, 0.55, 0.10, 0.55),  # saloon
    (0.34, 0.87, 2.00, 0.95, 0.55, 0.70, 0.25, 0.45),  # estate
    (0.17, 0.97, 2.50, 1.15, 0.90, 0.82, 0.15, 0.25),  # van
    (0.06, 1.22, 4.50, 1.50, 1.50, 0.97, 0.00, 0.05),  # bus
)


def add_car(scene, lateral, z, oncoming=False):
    rng, (at, yaw) = scene.rng, scene.place(lateral, z)
    _, *sizes = CARS[rng.choice(len(CARS), p=[car[0] for car in CARS])]
    width, length, bonnet, cabin, share, back, rake = np.array(sizes) * rng.uniform(0.93, 1.07, 7)
    yaw += np.pi * oncoming + rng.normal(0, 0.03)
    ahead, half, rear = np.array((np.sin(yaw), 0, np.cos(yaw))), bonnet / 2 - 0.11, rake * rng.uniform(0.4, 1)
    look = {"contrast": 0.05, "gloss": 0.5, "colour": _colour(rng, PAINTS)}
    scene.box(CAR, at + (0.22 + half) * UP, (width, half, length), yaw,
              _both(0, 0.9, 1, 1.55) + _both(1, 0.35, 0, 1.22) + _both(0, -0.4, 1, 1.2), kind=BODY, **look)
    scene.box(CAR, at + (bonnet + cabin / 2 - 0.03) * UP - back * length * ahead,
              (width - 0.05, cabin / 2 + 0.03, share * length), yaw,
              [(0, rake, 1, 1.05), (0, rear, -1, 1.05), *_both(1, rake / 3, 0, 1.02)], kind=CABIN, **look)
    for end in (-0.63, 0.63):
        scene.box(CAR, at + 0.31 * UP + end * length * ahead, (width - 0.02, 0.31, 0.31), yaw, WHEELS,
                  colour=GREYS[0])


def _foliage(rng):
    return {"colour": _colour(rng, LEAF), "tile": LEAVES, "scale": rng.uniform(40, 80), "contrast": 0.9}


def add_tree(scene, lateral, z, height, **look):
    """A trunk and a crown of ellipsoids with holes between the leaves: the farther away, the fewer."""
    rng, (at, _) = scene.rng, scene.place(lateral, z)
    stem, girth, conifer = height * rng.uniform(0.22, 0.4), rng.uniform(0.1, 0.28), rng.random() < 0.15
    scene.box(VEGETATION, at + stem * 0.6 * UP, (girth, stem * 0.6, girth), rng.uniform(0, 3), POST,
              colour=_colour(rng, WOOD), tile=BARK, scale=100.0, contrast=0.5)
    look, crown, count = _foliage(rng) | look, height - stem, int(np.clip(220 / max(z, 4), 2, 9))
    for level in (np.arange(count) + 0.5) / count:
        wide = crown * (0.42 * (1.15 - level) if conifer else rng.uniform(0.26, 0.4))
        high = max(wide * rng.uniform(0.6, 0.9), crown * 0.7 / count)
        aside = rng.normal(0, 0.02 if conifer else 0.16, 3) * (1, 0, 1) * crown
        middle = at + aside + (stem + crown * (0.15 + 0.7 * level)) * UP
        scene.ellipsoid(VEGETATION, middle, (wide, high, wide), holes=rng.uniform(-1.2, -0.5), **look)


def add_bushes(scene, lateral, z, length, height):
    """A hedge or wall along the road, if any, and bushes in front of and behind it."""
    rng, (at, yaw) = scene.rng, scene.place(lateral, z)
    look, kind = _foliage(rng), rng.choice(3, p=(0.4, 0.25, 0.35))
    if kind < 2:
        wall = {"colour": _colour(rng, WALLS), "tile": rng.choice((GRAIN, BRICKS)), "contrast": 0.35}
        thick, label = (rng.uniform(0.3, 0.6), VEGETATION) if kind == 0 else (0.12, BUILDING)
        scene.box(label, at + height / 2 * UP, (thick, height / 2, length / 2), yaw, **(look, wall)[kind])
    for _ in range(int(np.clip(length / height, 1, 5))):
        size = height * rng.uniform(0.5, 0.8)
        at, _ = scene.place(lateral + rng.normal(0, 0.3), z + rng.uniform(-0.5, 0.5) * length)
        radii = size, size, size * rng.uniform(0.8, 1.6)
        scene.ellipsoid(VEGETATION, at + size * 0.6 * UP, radii, holes=-0.7, **look)


def add_house(scene, lateral, z, length, depth, height, roof):
    """A block of `length` along the road, whose middle is `lateral` from the road's."""
    rng, (at, yaw) = scene.rng, scene.place(lateral, z)
    bay, storey, rise = rng.uniform(1.6, 3.6), rng.uniform(2.7, 3.6), depth * rng.uniform(0.2, 0.45)
    scene.box(BUILDING, at + height / 2 * UP, (depth / 2, height / 2, length / 2), yaw, kind=FACADE,
              colour=_colour(rng, WALLS), accent=_colour(rng, FRAMES), tile=rng.choice((GRAIN, BRICKS), p=(0.7, 0.3)),
              scale=rng.uniform(40, 120), contrast=rng.uniform(0.2, 0.5),
              bay=(bay, bay * rng.uniform(0.3, 0.7)), storey=(storey, storey * rng.uniform(0.4, 0.65)))
    if roof:
        scene.box(BUILDING, at + (height + rise / 2) * UP, (depth / 2 + 0.4, rise / 2, length / 2 + 0.2), yaw,
                  _both(1, 0.5, 0, 0.5), tile=BRICKS, contrast=0.3, colour=_colour(rng, ROOFS))


def add_person(scene, lateral, z):
    rng, (at, _) = scene.rng, scene.place(lateral, z)
    tall, yaw, step = rng.uniform(1.5, 1.9), rng.uniform(0, 6.3), rng.uniform(0.05, 0.22)
    ahead, beside = np.array((np.sin(yaw), 0, np.cos(yaw))), np.array((np.cos(yaw), 0, -np.sin(yaw)))
    trousers, shirt = {"colour": _colour(rng, CLOTHES)}, {"colour": _colour(rng, CLOTHES)}
    for s in (-1, 1):
        leg, arm = at + s * step * ahead, at - s * step * ahead + s * 0.2 * beside
        scene.box(PERSON, leg + tall * 0.24 * UP, (0.09, tall * 0.25, 0.1), yaw, POST, **trousers)
        scene.ellipsoid(PERSON, arm + tall * 0.64 * UP, (0.07, tall * 0.18, 0.07), **shirt)
    scene.ellipsoid(PERSON, at + tall * 0.65 * UP, (0.21, tall * 0.2, 0.17), **shirt)
    scene.ellipsoid(PERSON, at + tall * 0.92 * UP, (0.1, tall * 0.075, 0.11), colour=_colour(rng, SKINS))


def add_pole(scene, lateral, z):
    """A bollard, a traffic sign or a street lamp."""
    rng, (at, yaw) = scene.rng, scene.place(lateral, z)
    height = rng.choice((1.0, rng.uniform(2.2, 3.2), rng.uniform(5, 9)), p=(0.2, 0.45, 0.35))
    thin, metal = rng.uniform(0.03, 0.09), _colour(rng, METAL)
    scene.box(POLE, at + height / 2 * UP, (thin, height / 2, thin), yaw, POST, colour=metal)
    if height > 4:
        arm = rng.uniform(0.3, 1.2)
        over_road = np.array((-np.sign(lateral) * arm, height, 0))
        scene.box(POLE, at + over_road, (arm + 0.3, 0.07, 0.1), yaw, colour=metal)
    elif height > 2:
        size, colours = rng.uniform(0.2, 0.4), {"colour": _colour(rng, BOARDS), "accent": _colour(rng, BOARDS)}
        in_front = np.array((0, height - size, -thin - 0.03))
        scene.box(POLE, at + in_front, (size, size * rng.uniform(0.6, 1), 0.03), yaw,
                  DISC if rng.random() < 0.5 else (), kind=SIGN, **colours)


def _add_block(scene, style, side, edge, z, length):
    """`length` metres of one side of the road (-1 left, 1 right) beyond the pavement, which ends at `edge`."""
    rng = scene.rng
    if style == "town":
        depth, front = rng.uniform(9, 14), edge + rng.uniform(0, 5)
        add_house(scene, side * (front + depth / 2), z, length, depth, rng.uniform(6, 17), rng.random() < 0.6)
    elif style == "villas":
        depth, front = rng.uniform(8, 12), edge + rng.uniform(3, 9)
        add_house(scene, side * (front + depth / 2), z, 0.65 * length, depth, rng.uniform(3.5, 8), rng.random() < 0.9)
        add_bushes(scene, side * (edge + rng.uniform(0.6, 1.2)), z, length * 0.8, rng.uniform(0.8, 2))
        add_tree(scene, side * (edge + rng.uniform(1.5, 4)), z + length * 0.45, rng.uniform(4, 10))
    elif style == "trees":
        leaves = _colour(rng, LEAF)
        for at in np.arange(z - length / 2, z + length / 2, rng.uniform(5, 9)):
            add_tree(scene, side * (edge + rng.uniform(1, 7)), at, rng.uniform(6, 12), colour=leaves)
        add_bushes(scene, side * (edge + rng.uniform(4, 10)), z, length, rng.uniform(1, 3.5))
    elif rng.random() < 0.5:  # open land
        add_tree(scene, side * (edge + rng.uniform(3, 25)), z, rng.uniform(5, 12))
        add_bushes(scene, side * (edge + rng.uniform(2, 25)), z, length, rng.uniform(0.6, 2.5))


def _add_side(scene, side, style):
    """Everything on one side of the road (-1 left, 1 right), from near to far, leaving the crossing free."""
    rng, kerb, walk = scene.rng, scene.kerb[max(side, 0)], scene.walk[max(side, 0)]

    def spots(start, stop, shortest, longest, margin=0.0):
        z = start
        while z < stop:
            if abs(z - scene.crossing[0]) > scene.crossing[1] + margin:
                yield z
            z += rng.uniform(shortest, longest)

    length = rng.uniform(8, 22)
    for z in spots(2, 110, length, length + 0.1, length / 2 + 1):
        _add_block(scene, style, side, kerb + walk, z, length)
    for z in spots(rng.uniform(4, 15), 75, 8, 30):
        add_pole(scene, side * (kerb + rng.uniform(0.3, 0.8)), z)
    if rng.random() < 0.3 and style != "trees":
        for z in spots(rng.uniform(6, 20), 70, 9, 16, 3):
            add_tree(scene, side * (kerb + 0.8), z, rng.uniform(5, 9))
    if scene.parked[max(side, 0)]:
        for z in spots(rng.uniform(3.5, 12), 80, 5.4, 10, 3):
            add_car(scene, side * (kerb - 1.0), z, side < 0)
    for lane in range(scene.lanes):
        for z in spots(rng.uniform(9, 60), 90, 8, 60):
            add_car(scene, side * (lane + 0.5) * scene.lane_width + rng.normal(0, 0.15), z, side < 0)
    for _ in range(rng.poisson(1.2)):
        add_person(scene, side * (kerb + rng.uniform(0.4, walk)), rng.uniform(5, 40))


def _add_horizon(scene):
    """Woods and large blocks around everything, so that the flat ground does not run to infinity."""
    rng = scene.rng
    for lateral in np.arange(-170, 171, 26.0):
        z, high = rng.uniform(125, 190) - abs(lateral) * 0.6, rng.uniform(4, 12)
        if rng.random() < 0.75:
            look = _foliage(rng) | {"scale": 12.0}
            scene.ellipsoid(VEGETATION, scene.place(lateral, z)[0], (22, high, 8), **look)
        else:
            add_house(scene, lateral, z, 12, 30, high * 1.3, True)


def _draw_ground(scene):
    """The road's course and measures in metres (pairs: left, right), its surfaces and its markings."""
    rng = scene.rng
    scene.bend = rng.normal(0, 0.0012) * (rng.random() < 0.5)
    scene.lanes, scene.lane_width = 1 + (rng.random() < 0.35), rng.uniform(2.9, 3.7)
    scene.parked, scene.walk = rng.random(2) < 0.3, rng.uniform(1.5, 8, 2)
    scene.kerb = scene.lanes * scene.lane_width + 2.1 * scene.parked
    scene.crossing = (rng.uniform(12, 45), rng.uniform(4, 8)) if rng.random() < 0.4 else (1e4, 1.0)  # middle, reach
    scene.zebra = (1e4, rng.uniform(8, 40), scene.crossing[0] - scene.crossing[1] - 5)[rng.integers(3)]
    scene.centre_line, scene.edge_line = rng.choice(3, p=(0.25, 0.5, 0.25)), rng.random() < 0.5  # none, dashed, solid
    scene.line_width, scene.dash, scene.pitch = rng.uniform(0.1, 0.2), rng.uniform(3, 6), rng.uniform(8, 14)
    scene.asphalt = _colour(rng, ASPHALTS), rng.choice((GRAIN, PAVING), p=(0.88, 0.12))
    scene.pavement = _colour(rng, PAVEMENTS), rng.choice((GRAIN, PAVING, BRICKS))
    scene.lawn, scene.grass = rng.random(2) < 0.6, _colour(rng, GRASS)  # beyond the pavement: lawn, else paved
    scene.wet = rng.uniform(0.3, 1.3) if rng.random() < 0.35 else 9.0  # noise above this is a puddle or smooth tar


def _draw_light(scene):
    """Sun (or, under clouds, a weak light overhead that leaves contact shadows), sky, and the cameras' response."""
    rng = scene.rng
    scene.overcast = rng.random() < 0.25
    height, azimuth = (1.4 if scene.overcast else rng.uniform(0.4, 1.1)), rng.uniform(0, 2 * np.pi)
    scene.sun = np.array((np.cos(height) * np.sin(azimuth), np.sin(height), np.cos(height) * np.cos(azimuth)))
    scene.sunlight = np.array((1.0, 0.93, 0.82)) * rng.uniform(1.8, 2.8) * (0.18 if scene.overcast else 1)
    scene.skylight = np.array((0.75, 0.78, 0.8) if scene.overcast else (0.33, 0.4, 0.5)) * rng.uniform(0.6, 1)
    scene.haze = np.array((0.95, 1.05, 1.15)) * rng.uniform(0.8, 1.2)
    scene.zenith = scene.haze if scene.overcast else np.array((0.3, 0.55, 1.0)) * rng.uniform(0.7, 1.4)
    scene.clouds = rng.uniform(-0.5, 2.0)  # noise above this is cloud
    scene.level, scene.gamma = rng.normal(0.37, 0.025), rng.uniform(1.6, 2.0)  # mean of the picture, display gamma
    scene.balance = rng.uniform(0.95, 1.05, 3)
    scene.right_tone = rng.uniform(0.97, 1.03, 3)  # the right camera's gain per channel, relative to the left's


def build_scene(seed):
    """Draw a street, its light and its camera from `seed` (an integer or a tuple of them)."""
    rng = np.random.default_rng(seed)
    scene = Scene(rng)
    _draw_ground(scene)
    _draw_light(scene)
    for side in (-1, 1):
        _add_side(scene, side, rng.choice(("town", "villas", "trees", "open"), p=(0.22, 0.23, 0.35, 0.2)))
    _add_horizon(scene)
    yaw, pitch, roll = rng.normal(0, 0.1 if rng.random() < 0.15 else 0.02), rng.normal(0, 0.008), rng.normal(0, 0.006)
    lateral = (rng.integers(scene.lanes) + 0.5) * scene.lane_width + rng.normal(0, 0.25)
    scene.pose = (np.sin(yaw), np.sin(pitch), np.cos(yaw)), (lateral, rng.normal(1.65, 0.05)), roll
    return scene.finish()


# ---- paint and light ------------------------------------------------------------------------------------------

def _mix(colour, other, share):
    """Blend (3, N) or (3,) colours by a share in [0, 1] per point."""
    colour, other = (np.float32(c).reshape(3, -1) for c in (colour, other))
    return colour + (other - colour) * share


def paint_ground(scene, face, x, z, foot_x, foot_z):
    """Road, kerb, pavement and verge with their markings."""
    lateral = x - np.float32(scene.road_x(z))
    right, away = (lateral > 0).astype(int), np.abs(lateral)
    kerb, walk, lawn = np.float32(scene.kerb)[right], np.float32(scene.walk)[right], scene.lawn[right]
    middle, reach = scene.crossing
    cross = band(z, middle - reach, middle + reach, foot_z)
    road = np.maximum(band(away, -99, kerb, foot_x), cross)
    verge = band(away, kerb + walk, 999, foot_x) * (1 - cross)
    line, lane, dashes = scene.line_width, scene.lane_width, stripes(z, scene.pitch, scene.dash, foot_z)
    paint = band(away, -1, line / 2, foot_x) * (0, dashes, 1)[scene.centre_line]
    paint = np.maximum(paint, band(away, lane, lane + line, foot_x) * dashes * (scene.lanes > 1))
    paint = np.maximum(paint, band(away, scene.lanes * lane - line, scene.lanes * lane, foot_x) * scene.edge_line)
    zebra = band(z, scene.zebra, scene.zebra + 3.5, foot_z)
    paint = (paint * (1 - zebra) + zebra * stripes(lateral, 1.0, 0.5, foot_x)) * road * (1 - cross)
    stain = look_up(scene.bank, CLOUDS, x * 14, z * 6, 14 * foot_x)
    plain = scene.pavement[0][:, None]
    colour = _mix(plain, np.where(lawn, scene.grass[:, None], 0.8 * plain), verge)
    colour = _mix(colour, (0.36, 0.35, 0.33), band(away, kerb, kerb + 0.17, foot_x) * (1 - cross))
    colour = _mix(colour, scene.asphalt[0], road) * (1 + 0.12 * stain)
    colour = _mix(colour, (0.65, 0.65, 0.62), paint * np.clip(0.85 + 0.15 * stain, 0, 1))
    road, lawn = road > 0.5, (verge > 0.5) & lawn
    puddle = np.clip((stain - scene.wet) * 3, 0, 1) * road
    return {"colour": colour * (1 - 0.5 * puddle), "paint": paint, "gloss": puddle,
            "label": np.where(road, ROAD, np.where(lawn, VEGETATION, SIDEWALK)),
            "tile": np.where(road, scene.asphalt[1], np.where(lawn, LEAVES, scene.pavement[1])),
            "contrast": np.where(lawn, 0.8, np.where(road, 0.35, 0.4))}


def paint_facade(scene, face, s, t, foot_s, foot_t):
    """Windows in bays and storeys, each with a tone of its own, on the upright faces."""
    colour, accent, facing, owner = (scene.faces[k][face].T for k in ("colour", "accent", "facing", "owner"))
    (bay, wide), (storey, high) = scene.faces["bay"][face].T, scene.faces["storey"][face].T
    upright, sill = facing != TOP, t - 0.9

    def windows(frame):
        columns = stripes(s + frame, bay, wide + 2 * frame, foot_s)
        return upright * columns * stripes(sill + frame, storey, high + 2 * frame, foot_t)

    glass, framed = windows(0.0), windows(0.13)
    number = np.floor(s / bay) * 57 + np.floor(sill / storey) * 131 + owner * 17
    tone = 0.6 + 0.5 * np.sin(number * 12.9898)  # differs from window to window, not from view to view
    colour = _mix(colour * (1 - 0.3 * (t < 0.7) * upright), accent, np.clip(framed - glass, 0, 1))
    return {"colour": _mix(colour, np.outer((0.1, 0.11, 0.13), tone**2), glass), "gloss": 0.4 * glass}


def paint_car(scene, face, s, t, foot_s, foot_t):
    """Wheels, bumper, lights, number plate and the glass of the cabin, by the place on the face."""
    colour, kind, facing, owner = (scene.faces[k][face].T for k in ("colour", "kind", "facing", "owner"))
    (half, tall), s = scene.faces["half"][face].T, np.abs(s)
    cabin, body_end, body_side = kind == CABIN, (kind == BODY) & (facing == END), (kind == BODY) & (facing == SIDE)
    pillar = 0.9 * band(s, half * 0.12, half * 0.12 + 0.07, foot_s) * (facing == SIDE)  # between the doors
    glass = band(s, -9, half - 0.12, foot_s) * band(t, 0.1, 2 * tall - 0.1, foot_t) * (1 - pillar)
    glass *= cabin & (facing != TOP)
    lamp = band(s, 0.66 * half, 0.95 * half, foot_s) * body_end
    lamp *= band(t, 0.38 * tall + 0.15, 0.38 * tall + 0.32, foot_t)
    plate = band(s, -9, 0.26, foot_s) * band(t, 0.2, 0.31, foot_t) * body_end
    axle = np.hypot(s - 0.63 * half, t - 0.1)
    tyre, hub = (band(axle, -1, radius, foot_s) * body_side for radius in (0.36, 0.2))
    black = np.maximum(tyre, band(t, -9, 0.12, foot_t) * ~cabin)
    colour = _mix(_mix(colour, (0.012, 0.014, 0.016), glass), GREYS[0], black)
    colour = _mix(_mix(colour, (0.2, 0.2, 0.2), hub), (0.6, 0.6, 0.58), plate)
    colour = _mix(colour, np.where(owner % 3 > 0, [[0.3], [0.01], [0.01]], 0.6), lamp)
    return {"colour": colour, "gloss": np.maximum(0.25, glass) * (1 - black) * (1 - plate)}


def paint_sign(scene, face, s, t, foot_s, foot_t):
    colour, accent, (half, tall) = (scene.faces[k][face].T for k in ("colour", "accent", "half"))
    inner = band(s / half, -0.68, 0.68, foot_s / half) * band(t / tall - 1, -0.68, 0.68, foot_t / tall)
    return {"colour": _mix(colour, accent, inner)}


PAINTERS = {GROUND: paint_ground, FACADE: paint_facade, BODY: paint_car, CABIN: paint_car, SIGN: paint_sign}


def sky_colour(scene, ray):
    """Radiance (3, N) that comes from far away: gradient, clouds and the glare of the sun."""
    length = np.sqrt(_dot(ray, ray))
    up = np.maximum(ray[1] / length, 0)
    spread = 50 / (up + 0.2) / length
    noise = look_up(scene.bank, CLOUDS, ray[0] * spread, ray[2] * spread, np.float32(1))
    clouds = np.clip(0.5 * (noise - scene.clouds), 0, 0.9)
    glare = 0 if scene.overcast else 3 * np.exp(60 * (_dot(ray, np.float32(scene.sun)) / length - 1))
    return _mix(_mix(scene.haze, scene.zenith, np.sqrt(up)), (1.25, 1.25, 1.25), clouds) + glare


def surroundings(scene, ray):
    """What a shiny surface mirrors: the sky above a dark, uneven skyline. It depends on direction alone, as things
    far away do, so its image moves over the surface with the viewpoint: brightness is not constant there."""
    around = 200 * ray[0] / (np.abs(ray[0]) + np.abs(ray[2]) + 1e-6)
    noise = look_up(scene.bank, CLOUDS, around, np.sign(ray[2]) * 40, np.float32(1))
    hidden = np.clip((0.22 + 0.1 * noise - ray[1] / np.sqrt(_dot(ray, ray))) * 20, 0, 1)
    return _mix(sky_colour(scene, ray), 0.12 * scene.skylight, hidden)


def shadow_map(scene, size=288, reach=42.0):
    """Depth seen from the sun: a camera 1.5 km away that takes in what lies within `reach` of the street ahead."""
    middle = np.array((scene.road_x(30.0), 0.0, 30.0))
    camera = Camera.towards(-scene.sun, middle + 1500 * scene.sun, (1500 * size / 2 / reach,) * 2, (size / 2,) * 2)
    pixels = np.arange(size) + 0.5
    return camera, 1 / cast(scene, camera, *camera.slopes(pixels[:, None], pixels[None]))[0]


def sunlit(scene, point):
    """Share of the sun that reaches each point (three arrays), from the shadow map, bilinearly smoothed."""
    camera, depths = scene.shadow
    right, up, depth = camera.frame(point)
    pixel = camera.pixel(right, up, depth)
    row, column = (np.clip(p - np.float32(0.5), 0, len(depths) - np.float32(1.01)) for p in pixel)
    i, j = row.astype(np.int32), column.astype(np.int32)
    row, column, open_above, k = row - i, column - j, depths.ravel(), i * len(depths) + j
    reach = depth - np.float32(0.6)  # a margin against surfaces shading themselves
    upper = (open_above[k] > reach) * (1 - column) + (open_above[k + 1] > reach) * column
    k += len(depths)
    return upper * (1 - row) + ((open_above[k] > reach) * (1 - column) + (open_above[k + 1] > reach) * column) * row


def _surface(scene, camera, ray, point, depth, face):
    """Normals (3, N), and on the surface: coordinates s, t and the size of a pixel along them, in metres."""
    table = scene.faces
    normal = table["normal"][face].T.copy()
    start = table["start"][face].T
    s, t = _dot(point, table["across"][face].T) + start[0], _dot(point, table["along"][face].T) + start[1]
    curved = np.flatnonzero(table["radii"][face, 0] > 0)
    if curved.size:
        at, own = [p[curved] for p in point], face[curved]
        out = _outward(table, own, at)
        normal[:, curved] = out / np.sqrt(_dot(out, out))
        s[curved], t[curved] = _unroll(at, out)
    slant = np.maximum(np.abs(_dot(normal, ray)), 0.02)  # a surface seen at a slant puts more of itself in a pixel
    level = table["facing"][face] == TOP
    foot_s = depth / np.float32(camera.focal[1]) / np.where(level, 1, slant)
    foot_t = depth / np.float32(camera.focal[0]) / np.where(level, slant, 1)
    return normal, s, t, foot_s, foot_t


def _paint(scene, face, *place):
    """What the surface is like at every hit: its solid's look, then what its kind paints over it."""
    look = {k: scene.faces[k][face].T.copy() for k in ("colour", "tile", "contrast", "gloss", "label")}
    look["paint"] = np.zeros(len(face), np.float32)
    kinds = scene.faces["kind"][face]
    for kind, painter in PAINTERS.items():
        here = np.flatnonzero(kinds == kind)
        if here.size:
            for name, value in painter(scene, face[here], *(p[here] for p in place)).items():
                look[name][..., here] = value
    return look


def shade(scene, camera, y, x, depth, face):
    """Radiance (3, N) of N rays that hit something, and what they hit: dict of `label`, `paint`, `gloss`."""
    ray, point = camera.trace(y, x, depth)
    normal, s, t, foot_s, foot_t = _surface(scene, camera, ray, point, depth, face)
    look = _paint(scene, face, s, t, foot_s, foot_t)
    scale, phase = scene.faces["scale"][face], scene.faces["phase"][face].T
    # Along a row the footprint must be met in full, or the two views would differ; a column is cut alike in both.
    foot = np.sqrt(foot_s * np.maximum(foot_s, foot_t))
    detail = look_up(scene.bank, look["tile"], s * scale + phase[0], t * scale + phase[1], scale * foot)
    stain = look_up(scene.bank, GRAIN, s * 16 + phase[1], t * 16 + phase[0], 16 * foot)
    colour = look["colour"] * np.maximum(1 + look["contrast"] * (detail + 0.3 * stain), 0.1)
    sun = np.maximum(_dot(normal, np.float32(scene.sun)), 0) * sunlit(scene, point)
    low = np.where(face > 0, np.clip(0.55 + 0.45 * point[1], 0.55, 1), 1)  # less sky is seen from near the ground
    sky = (0.6 + 0.4 * normal[1]) * low
    radiance = colour * (np.float32(scene.sunlight)[:, None] * sun + np.float32(scene.skylight)[:, None] * sky)
    shine = np.flatnonzero(look["gloss"] > 0.01)
    if shine.size:
        ray, normal = [r[shine] for r in ray], normal[:, shine]
        facing = _dot(normal, ray)
        mirrored = [ray[k] - 2 * facing * normal[k] for k in range(3)]
        cosine = np.minimum(np.abs(facing) / np.sqrt(_dot(ray, ray)), 1)
        share = 0.06 + 0.94 * (1 - cosine) ** 5  # Fresnel's law, after Schlick
        radiance[:, shine] = _mix(radiance[:, shine], surroundings(scene, mirrored), look["gloss"][shine] * share)
    return radiance, look


def _radiance(scene, camera, y, x, inverse, face):
    """`shade` for rays of any outcome: (3, N) and (label, paint, gloss), each over N."""
    image, maps = np.empty((3, len(face)), np.float32), np.zeros((3, len(face)), np.float32)
    hit, miss = np.flatnonzero(face >= 0), np.flatnonzero(face < 0)
    image[:, miss], maps[0, miss] = sky_colour(scene, camera.trace(y[miss], x[miss], 0)[0]), SKY
    image[:, hit], look = shade(scene, camera, y[hit], x[hit], 1 / inverse[hit], face[hit])
    maps[:, hit] = look["label"], look["paint"], look["gloss"]
    return image, maps


# ---- pictures and files ---------------------------------------------------------------------------------------

def scaled(shares, size):
    return tuple(float(share * pixels) for share, pixels in zip(shares, size, strict=True))


def street_camera(scene, size):
    """KITTI's left colour camera for pictures of `size`: each axis is scaled by itself, as resizing KITTI's would."""
    forward, (lateral, height), roll = scene.pose
    origin = scene.place(lateral, 0.0)[0] + height * UP
    return Camera.towards(forward, origin, scaled(FOCAL, size), scaled(CENTRE, size), roll)


def _view(scene, camera, size):
    """Linear image (3, H, W) and, of the pixel centres, inverse depth, class, lane paint and gloss (H, W)."""
    rows, columns = np.arange(size[0] + 1) + 0.5, np.arange(size[1] + 1) + 0.5  # one more than there are centres
    y, x = camera.slopes(np.stack((rows, rows - 0.5))[:, :, None], np.stack((columns, columns - 0.5))[:, None])
    inverse, face = cast(scene, camera, y, x)
    y, x = (np.broadcast_to(slope, face.shape) for slope in (y, x))
    centre, corner = ([a[k] for a in (y, x, inverse, face)] for k in (0, 1))
    inner = np.s_[:-1, :-1]
    around = inner, np.s_[:-1, 1:], np.s_[1:, :-1], np.s_[1:, 1:]  # the corners of each pixel
    image, maps = _radiance(scene, camera, *(a[inner].ravel() for a in centre))
    image, maps = image.reshape(3, *size), maps.reshape(3, *size)
    # Inside a surface texture and paint are already filtered; only pixels that hold an edge need their corners.
    edge = np.any([corner[3][c] != centre[3][inner] for c in around], axis=0)
    wanted = np.zeros(face.shape[1:], bool)
    for c in around:
        wanted[c] |= edge
    colours = np.zeros((3, *wanted.shape), np.float32)
    colours[:, wanted] = _radiance(scene, camera, *(a[wanted] for a in corner))[0]
    image[:, edge] = image[:, edge] / 2 + sum(colours[(slice(None), *c)][:, edge] for c in around) / 8
    return image, centre[2][inner], *maps


def _seen_from_right(scene, camera, inverse):
    """True where the right camera sees the surface that the left pixel centre shows: a ray is cast back to it."""
    shift = camera.focal[1] * BASELINE_M
    rows, columns = np.arange(inverse.shape[0])[:, None] + 0.5, np.arange(inverse.shape[1])[None] + 0.5
    columns = columns - shift * inverse  # where the surface point is in the right view
    found, _ = cast(scene, camera.moved_right(BASELINE_M), *camera.slopes(rows, columns), shift)
    return (inverse > 0) & (columns >= 0.5) & (found <= inverse * 1.001)


def _exposure(image, level, gamma):
    """The gain that brings the mean of the picture to `level`, as a camera's automatic exposure does."""
    gain = 1.0
    for _ in range(8):
        gain *= (level / np.mean(np.minimum(image * gain, 1) ** (1 / gamma))) ** gamma
    return gain


def _develop(image, gain, gamma, tone):
    """Linear radiance (3, H, W) -> 8-bit picture (H, W, 3)."""
    gain, tone = (np.float32(v)[:, None, None] for v in (gain, tone))
    picture = np.clip(image * gain, 0, 1) ** np.float32(1 / gamma) * tone
    return np.moveaxis(np.uint8(np.minimum(picture, 1) * 255 + 0.5), 0, -1)


def render_scene(seed, size=(256, 512)):
    """One street seen by two cameras 0.54 m apart, with exact truth.

    seed:    integer or tuple of integers; the same seed gives the same scene
    size:    (height, width) in pixels; the focal length is KITTI's in heights (y) and widths (x)
    returns: dict of arrays (H, W): `left`, `right` (uint8, H, W, 3); `disparity_px`, `disparity_right_px` (float32,
             NaN = sky); `visible` (bool: the right view shows the same surface point); `classes` (uint8, index into
             CLASSES), `lane_paint`, `shiny` (bool), all of the left view unless named right; `focal_px` (horizontal),
             `baseline_m`, and `right_tone`, the right camera's gain per channel relative to the left's
    """
    if len(size) != 2 or min(size) < 16:
        raise ValueError(f"size is {size}; give (height, width), at least 16 pixels each")
    scene = build_scene(seed)
    scene.shadow = shadow_map(scene)
    camera = street_camera(scene, size)
    left, inverse, classes, paint, gloss = _view(scene, camera, size)
    right, inverse_right, *_ = _view(scene, camera.moved_right(BASELINE_M), size)
    gain = _exposure(left[:, ::4, ::4], scene.level, scene.gamma) * scene.balance
    scale = np.float32(camera.focal[1] * BASELINE_M)
    disparity, disparity_right = (np.where(i > 0, scale * i, np.float32(np.nan)) for i in (inverse, inverse_right))
    return {
        "left": _develop(left, gain, scene.gamma, np.ones(3)),
        "right": _develop(right, gain, scene.gamma, scene.right_tone),
        "disparity_px": disparity, "disparity_right_px": disparity_right,
        "visible": _seen_from_right(scene, camera, inverse),
        "classes": classes.astype(np.uint8), "lane_paint": paint > 0.5, "shiny": gloss > 0.1,
        "focal_px": camera.focal[1], "baseline_m": BASELINE_M, "right_tone": scene.right_tone,
    }


def calibration(size):
    """The lines of a KITTI scene-flow calibration file that say where the two colour cameras are."""
    (fy, fx), (cy, cx), lines = scaled(FOCAL, size), scaled(CENTRE, size), []
    for camera, shift in (("02", 0.0), ("03", -fx * BASELINE_M)):
        projection = fx, 0, cx, shift, 0, fy, cy, 0, 0, 0, 1, 0
        for name, row in (("S_rect", size[::-1]), ("R_rect", np.eye(3).flat), ("P_rect", projection)):
            lines.append(f"{name}_{camera}: " + " ".join(f"{number:.9e}" for number in row))
    return "\n".join(lines) + "\n"


FOLDERS = ("image_2", "image_3", "disp_occ_0", "disp_noc_0", "disp_occ_1r", "classes_2", "lane_paint_2", "shiny_2",
           "calib_cam_to_cam")


def _write_scene(number, training, size, seed):
    """Render scene `number` and write its files."""
    scene, stem = render_scene((seed, number), size), f"{number:06d}"
    left, right = (np.nan_to_num(scene[k]) * 256 + 0.5 for k in ("disparity_px", "disparity_right_px"))
    truth = (np.uint16(px) for px in (left, left * scene["visible"], right))
    masks = (scene[k] * np.uint8(255) for k in ("lane_paint", "shiny"))
    images = scene["left"], scene["right"], *truth, scene["classes"], *masks
    for folder, image in zip(FOLDERS[:-1], images, strict=True):
        Image.fromarray(image).save(training / folder / f"{stem}_10.png", compress_level=1)
    (training / FOLDERS[-1] / f"{stem}.txt").write_text(calibration(size))


def render_streets(root, count, size=(256, 512), seed=0, progress=True):
    """Write `count` rendered pairs below `root` in KITTI's layout; do nothing if they are there already.

    root/training/image_2, image_3   left and right view, PNG
    .../disp_occ_0, disp_noc_0       disparity of the left view in px, uint16 PNG of 256 x px, 0 = none (the sky);
                                     noc holds only what the right view sees too
    .../disp_occ_1r                  disparity of the right view (KITTI has no such folder)
    .../classes_2                    uint8 PNG, index into CLASSES; lane_paint_2, shiny_2: masks, 0 or 255
    .../calib_cam_to_cam             NNNNNN.txt; all the others hold NNNNNN_10.png
    root/streets.json                what was asked for

    Two processes render into a temporary folder beside `root` that takes its name at the end, so `root` is never half
    full. Raises ValueError where `root` already holds something else.
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
        training = Path(temporary) / root.name / "training"
        for name in FOLDERS:
            (training / name).mkdir(parents=True)
        write = partial(_write_scene, training=training, size=size, seed=int(seed))
        bar = partial(tqdm, total=count, desc="rendering streets", unit="pair", disable=not progress)
        if count < 8:  # not worth starting processes
            for number in bar(range(count)):
                write(number)
        else:
            # Fresh processes rather than forks: a fork of a process with PyTorch's threads may hang.
            with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
                for _ in bar(pool.map(write, range(count))):
                    pass
        (training.parent / "streets.json").write_text(json.dumps(note))
        if root.exists():
            root.rmdir()  # empty, else refused above
        training.parent.replace(root)
    return root
