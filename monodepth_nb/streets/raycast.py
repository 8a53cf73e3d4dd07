"""A ray caster in NumPy: textured convex solids (boxes with planes cut off, ellipsoids) on a flat ground.

The frame is x right, y up, z forward, in metres; depth is measured along a camera's optical axis. Pictures, shadows
and the view of another camera are all casts of the same solids, so they agree exactly.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np

from monodepth_nb.streets.textures import LEAVES, TILE, bilinear, look_up, texture_bank

NEAR_M = 0.3  # nothing nearer than this is seen

# ---- Camera ----


def dot(a, b):
    """Dot product of two triples, of numbers or of arrays."""
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


class Camera(NamedTuple):
    """A pinhole camera without roll."""

    origin: np.ndarray  # (3,), metres
    axes: np.ndarray  # (3, 3), rows right, up, forward
    focal: tuple  # (vertical, horizontal), pixels
    centre: tuple  # likewise; pixel centres lie at .5

    @classmethod
    def towards(cls, forward, origin, focal, centre):
        forward = np.asarray(forward) / np.linalg.norm(forward)
        right = np.cross((0.0, 1.0, 0.0), forward)
        right /= np.linalg.norm(right)
        return cls(np.asarray(origin, float), np.stack((right, np.cross(forward, right), forward)), focal, centre)

    def moved_right(self, distance):
        return self._replace(origin=self.origin + distance * self.axes[0])

    def frame(self, point):
        """Metres right, up and ahead of the camera; `point` is three arrays."""
        offset = [p - o for p, o in zip(point, np.float32(self.origin), strict=True)]
        return [dot(axis, offset) for axis in np.float32(self.axes)]

    def pixel(self, right, up, ahead):
        """Row and column of points given as by `frame`."""
        return self.centre[0] - self.focal[0] * up / ahead, self.centre[1] + self.focal[1] * right / ahead

    def slopes(self, row, column):
        """Slopes (y, x) of the rays through pixel positions: direction = forward + y * up + x * right."""
        y, x = (self.centre[0] - row) / self.focal[0], (column - self.centre[1]) / self.focal[1]
        return np.float32(y), np.float32(x)

    def trace(self, y, x, depth):
        """Directions of rays, and the points on them `depth` metres along the optical axis, as three arrays each."""
        ray = [x * right + y * up + forward for right, up, forward in np.float32(self.axes.T)]
        return ray, [o + depth * r for o, r in zip(np.float32(self.origin), ray, strict=True)]


# ---- Solids ----

SIDE, END, TOP = range(3)  # which way a face looks, in the frame of its solid
UP = np.array((0.0, 1.0, 0.0))
SIGNS = np.array(np.meshgrid((-1, 1), (-1, 1), (-1, 1))).reshape(3, 8).T  # corners of a box
CUBE = np.array([*np.c_[np.eye(3), np.ones(3)], *np.c_[-np.eye(3), np.ones(3)]])  # as cuts of `World.box`
SOLID = -9.0  # leaf noise is never below this


class Solid(NamedTuple):
    corners: np.ndarray  # (8, 3) of a box around it
    enter: Callable  # (camera, y, x) -> inverse depth (1 / m) at which each ray enters (0 = never), and at which face
    face: int  # row of its first face in the world's tables
    holes: float = SOLID  # where the leaf noise is below this, light passes


# Everything is worked out in inverse depth, which on a plane is linear in the pixel's position: a half-space costs one
# addition and one comparison per ray.
def _enter_planes(normals, offsets, camera, y, x):
    """`Solid.enter` of the intersection of the half-spaces normals (K, 3) . point <= offsets (K,)."""
    along, distances = normals @ camera.axes.T, offsets - normals @ camera.origin
    enter, leave, plane = np.float32(1 / NEAR_M), np.float32(0), 0
    for k, (right, up, forward) in enumerate(np.float32(along / distances[:, None])):
        crossing = x * right + (y * up + forward)
        if distances[k] < 0:  # the camera is outside of this plane: rays can only come in through it
            plane = np.where(crossing < enter, np.int32(k), plane)
            enter = np.minimum(enter, crossing)
        else:
            leave = np.maximum(leave, crossing)
    return np.where(enter > leave, enter, np.float32(0)), plane


def _enter_ellipsoid(centre, radii, camera, y, x):
    offset = np.float32((camera.origin - centre) * (1 / radii))
    beyond = offset @ offset - 1  # > 0: the camera is outside
    ray = [x * right + (y * up + forward) for right, up, forward in np.float32(camera.axes * (1 / radii)).T]
    b = dot(ray, offset)
    root = b * b - dot(ray, ray) * beyond
    enter = (np.sqrt(np.maximum(root, 0)) - b) / np.maximum(beyond, np.float32(1e-6))
    return np.where((root > 0) & (enter < 1 / NEAR_M), enter, np.float32(0)), 0


class World:
    """Solids and, once `finish` has been called, their `corners` (solids, 8, 3) and the tables of their `faces`.

    look:  default of every keyword that `ground`, `box` and `ellipsoid` take besides their own
    faces: one array per quantity, (faces, ...); face 0 is the ground, the plane y = 0
    """

    def __init__(self, rng, look):
        self.rng, self.look, self.solids, self.rows, self.face_count = rng, look, [], [], 0
        self.bank = texture_bank(int(rng.integers(4)))

    def _add(self, look, origin, radii=(0.0, 0.0, 0.0), **face):
        """Add one solid to the tables: its look, which all its faces share, and `face` with one row per face.

        The texture starts at `origin`; `across` and `along` are its axes. Only ellipsoids have `radii`.
        """
        look = self.look | look | {"origin": origin, "radii": radii, "phase": self.rng.uniform(0, TILE, 2)}
        look["owner"], count = len(self.rows), len(face["normal"])
        self.rows.append(face | {name: [value] * count for name, value in look.items()})
        self.face_count += count

    def ground(self, **look):
        right, up, ahead = np.eye(3)[:, None]
        self._add(look, np.zeros(3), normal=up, across=right, along=ahead, half=[(1, 1)], facing=[TOP])

    def box(self, centre, half, yaw=0.0, cuts=(), **look):
        """A box of half sizes `half`, turned by `yaw`. A cut (a, b, c, k) keeps aX + bY + cZ <= k, in half sizes."""
        centre, half = np.asarray(centre, float), np.asarray(half, float)
        turn = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
        planes = np.array([*CUBE, *cuts])
        own = planes[:, :3] / half
        length = np.linalg.norm(own, axis=1)
        own, normals = own / length[:, None], own / length[:, None] @ turn.T
        enter = partial(_enter_planes, normals, planes[:, 3] / length + normals @ centre)
        self.solids.append(Solid(SIGNS * half @ turn.T + centre, enter, self.face_count))
        top = np.abs(own[:, 1:2]) > 0.95
        level = np.stack((normals[:, 2], 0 * normals[:, 0], -normals[:, 0]), 1)  # horizontal, within the face
        across = np.where(top, turn[:, 0], level / np.maximum(np.linalg.norm(level, axis=1), 1e-9)[:, None])
        along = np.where(top, turn[:, 2], UP)
        facing = np.where(top[:, 0], TOP, np.where(np.abs(own[:, 2]) > np.abs(own[:, 0]), END, SIDE))
        size = np.stack((np.abs(across @ turn) @ half, np.abs(along @ turn) @ half), 1)
        self._add(look, centre - half[1] * UP, normal=normals, across=across, along=along, half=size, facing=facing)

    def ellipsoid(self, centre, radii, holes=SOLID, **look):
        """An ellipsoid that light passes where its leaf noise is below `holes`."""
        centre, radii = np.asarray(centre, float), np.asarray(radii, float)
        holes = holes if centre[2] < 60 else SOLID  # farther away leaves are smaller than pixels
        enter = partial(_enter_ellipsoid, centre, radii)
        self.solids.append(Solid(centre + SIGNS * radii, enter, self.face_count, holes))
        nowhere = np.zeros((1, 3))
        self._add(look, centre, radii, normal=nowhere, across=nowhere, along=nowhere, half=[radii[:2]], facing=[SIDE])

    def finish(self):
        """Build the tables, after the last solid."""
        faces = {name: np.concatenate([row[name] for row in self.rows]) for name in self.rows[0]}
        self.faces = {k: v.astype(np.int32 if v.dtype.kind == "i" else np.float32) for k, v in faces.items()}
        self.corners = np.float32([solid.corners for solid in self.solids])

    def curved(self, face, point):
        """At points of ellipsoids: outward direction, of any length, and texture coordinates, along the two axes that
        the surface faces least."""
        centre, radii = self.faces["origin"][face].T, self.faces["radii"][face].T
        out = np.stack([(point[k] - centre[k]) / radii[k] ** 2 for k in range(3)])
        x, y, z = np.abs(out)
        s = np.where(x > np.maximum(y, z), point[2], point[0])
        return out, s, np.where(y > np.maximum(x, z), point[2], point[1])

    def surface(self, camera, ray, point, depth, face):
        """Normals (3, N), and on the surface: coordinates s, t and the size of a pixel along them, in metres."""
        table = {k: self.faces[k][face].T for k in ("normal", "across", "along", "origin", "radii")}
        normal, offset = table["normal"].copy(), point - table["origin"]
        s, t = dot(offset, table["across"]), dot(offset, table["along"])
        bent = np.flatnonzero(table["radii"][0] > 0)
        if bent.size:
            out, s[bent], t[bent] = self.curved(face[bent], [p[bent] for p in point])
            normal[:, bent] = out / np.sqrt(dot(out, out))
        slant = np.maximum(np.abs(dot(normal, ray)), 0.02)  # seen at a slant, more of a surface lies in a pixel
        level = self.faces["facing"][face] == TOP
        foot_s = depth / np.float32(camera.focal[1]) / np.where(level, 1, slant)
        foot_t = depth / np.float32(camera.focal[0]) / np.where(level, slant, 1)
        return normal, s, t, foot_s, foot_t


# ---- Casting ----


def cast(world, camera, y, x, shift=0.0):
    """First surface along every ray: inverse depth (1 / m, 0 = sky) and face, a row of `world.faces` (-1 = sky).

    y, x:  slopes as from `Camera.slopes`, broadcasting to (..., H, W); ray (i, j) near row i and column j
    shift: rays may stand left of column j, by up to `shift` pixels / depth of what they hit
    """
    right, up, forward = np.float32(camera.axes[:, 1] / -camera.origin[1])
    inverse = np.maximum(x * right + (y * up + forward), np.float32(0))  # the ground
    face = np.where(inverse > 0, np.int32(0), np.int32(-1))
    for solid, window, closest in _windows(world, camera, face.shape[-2:], shift):
        if inverse[window].min() > closest:  # all behind what is there already
            continue
        rows, columns = window[1:]
        here = y[..., rows, :], x[..., rows if x.shape[-2] > 1 else slice(None), columns]
        enter, plane = solid.enter(camera, *here)
        hit = enter > inverse[window]
        if solid.holes > SOLID and hit.any():
            hit[hit] = _leaf(world, camera, solid.face, enter, here, hit) > solid.holes
        np.copyto(inverse[window], enter, where=hit)
        np.copyto(face[window], solid.face + plane, where=hit)
    return inverse, face


def _windows(world, camera, shape, shift):
    """For every solid in view, nearest first: the slices of the pixel grid it may touch, its largest inverse depth."""
    right, up, ahead = camera.frame(np.moveaxis(world.corners, -1, 0))  # (solids, 8) each
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
        yield world.solids[k], (..., slice(*box[:2, k]), slice(*box[2:, k])), closest[k]


def _leaf(world, camera, face, inverse, slopes, hit):
    """Leaf noise where rays meet an ellipsoid."""
    depth, scale = 1 / inverse[hit], world.faces["scale"][face]
    _, point = camera.trace(*(np.broadcast_to(slope, hit.shape)[hit] for slope in slopes), depth)
    _, s, t = world.curved(face, point)
    return look_up(world.bank, LEAVES, s * scale, t * scale, depth * np.float32(scale / camera.focal[1]))


def shadow_map(world, sun, middle, size=288, reach=42.0):
    """Depth seen from the direction `sun`, (3,): a camera 1.5 km away that covers `reach` metres around `middle`."""
    camera = Camera.towards(-sun, middle + 1500 * sun, (1500 * size / 2 / reach,) * 2, (size / 2,) * 2)
    pixels = np.arange(size) + 0.5
    return camera, 1 / cast(world, camera, *camera.slopes(pixels[:, None], pixels[None]))[0]


def sunlit(shadow, point):
    """Share of the sun that reaches each point (three arrays), from a `shadow_map`, bilinearly smoothed."""
    camera, depths = shadow
    *aside, depth = camera.frame(point)
    row, column = (np.clip(p - np.float32(0.5), 0, len(depths) - 1.01) for p in camera.pixel(*aside, depth))
    reach = depth - np.float32(0.6)  # a margin against surfaces shading themselves
    return bilinear(lambda i, j: depths[i, j] > reach, row, column)
