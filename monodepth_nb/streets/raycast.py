"""A ray caster in NumPy: textured convex solids (boxes with planes cut off, ellipsoids) on a flat ground.

The frame is x right, y up, z forward, in metres; depth is measured along a camera's optical axis. Pictures, shadows
and what another camera sees are all casts of the same solids, so they agree exactly.

Textures do not shimmer: noise comes from mip-mapped tiles read at the pixel's footprint, and stripes are integrated
over it in closed form.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np

NEAR_M = 0.3  # nothing is seen nearer than this

# ---- Textures ----

TILE = 256  # texels
GRAIN, CLOUDS, LEAVES, STONES = range(4)
LEVELS = int(np.log2(TILE))  # mip levels: 256, 128, ... 2 texels wide
LEVEL_START = np.concatenate(([0], np.cumsum(4 ** np.arange(LEVELS, 0, -1)))).astype(np.int32)


def _octave(rng, blur):
    """Noise blurred by `blur` texels that repeats, with zero mean and unit deviation."""
    fy, fx = np.fft.fftfreq(TILE)[:, None], np.fft.rfftfreq(TILE)
    low_pass = np.exp(-2 * (np.pi * blur) ** 2 * (fy**2 + fx**2))
    tile = np.fft.irfft2(np.fft.rfft2(rng.normal(size=(TILE, TILE))) * low_pass)
    return (tile - tile.mean()) / tile.std()


def _stones(rng, rows=16, columns=8):
    """Stones of random tone in staggered rows, with dark joints."""
    y, x = np.mgrid[:TILE, :TILE]
    row = y * rows // TILE
    along = (x + (row % 2) * TILE // columns // 2) % TILE
    tone = rng.normal(0, 0.6, (rows, columns))[row, along * columns // TILE]
    return tone - 1.5 * ((y % (TILE // rows) < 1) | (along % (TILE // columns) < 1))


@lru_cache(maxsize=4)
def texture_bank(seed):
    """The repeating tiles and all their mip levels in one flat float32 array; unit deviation at the finest level."""
    rng = np.random.default_rng((99, seed))
    octaves = [_octave(rng, 2**k) for k in range(6)]
    grain, clouds = sum(octaves[:4]), sum(2**k * octave for k, octave in enumerate(octaves))
    leaves = sum(np.maximum(octaves[k], _octave(rng, 2**k)) for k in (1, 2, 3))
    levels = []
    for tile in (grain, clouds, leaves, _stones(rng) + 0.2 * grain):
        tile = (tile - tile.mean()) / tile.std()
        while len(tile) > 1:
            levels.append(tile.ravel())
            tile = tile.reshape(len(tile) // 2, 2, -1, 2).mean((1, 3))
    return np.concatenate(levels).astype(np.float32)


def bilinear(value, row, column):
    """What `value(i, j)` gives at the four whole numbers around (row, column), weighted by nearness."""
    i, j = np.floor(row), np.floor(column)
    down, across = row - i, column - j
    i, j = i.astype(np.int32), j.astype(np.int32)
    upper = value(i, j) * (1 - across) + value(i, j + 1) * across
    return upper * (1 - down) + (value(i + 1, j) * (1 - across) + value(i + 1, j + 1) * across) * down


def look_up(bank, tile, s, t, footprint):
    """Texture value at texels (s, t), from the mip level just finer than `footprint` texels."""
    level = np.clip(np.log2(np.maximum(footprint, 1e-6)), 0, LEVELS - 1).astype(np.int32)
    shrink, bits = np.ldexp(np.float32(1), -level), LEVELS - level
    mask, start = (1 << bits) - 1, LEVEL_START[level] + tile * LEVEL_START[-1]

    def texel(row, column):
        return bank[start + ((row & mask) << bits) + (column & mask)]

    return bilinear(texel, t * shrink - np.float32(0.5), s * shrink - np.float32(0.5))


def stripes(x, period, width, footprint):
    """Share of [x - footprint / 2, x + footprint / 2] within stripes [0, width) that repeat every `period`."""

    def painted(x):
        whole = np.floor(x / period)
        return whole * width + np.minimum(x - whole * period, width)

    return (painted(x + footprint / 2) - painted(x - footprint / 2)) / footprint


def band(x, low, high, footprint):
    """Share of [x - footprint / 2, x + footprint / 2] within [low, high]."""
    return np.clip((np.minimum(x + footprint / 2, high) - np.maximum(x - footprint / 2, low)) / footprint, 0, 1)


# ---- Camera ----


def dot(a, b):
    """Dot product of two triples, of numbers or of arrays."""
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


class Camera(NamedTuple):
    """A pinhole without roll."""

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
        """Three arrays in metres -> how far right, up and ahead of the camera."""
        offset = [p - o for p, o in zip(point, np.float32(self.origin), strict=True)]
        return [dot(axis, offset) for axis in np.float32(self.axes)]

    def pixel(self, right, up, ahead):
        """Row and column of points given as by `frame`."""
        return self.centre[0] - self.focal[0] * up / ahead, self.centre[1] + self.focal[1] * right / ahead

    def slopes(self, row, column):
        """How steeply rays through pixel positions rise and go right: direction = forward + y * up + x * right."""
        y, x = (self.centre[0] - row) / self.focal[0], (column - self.centre[1]) / self.focal[1]
        return np.float32(y), np.float32(x)

    def trace(self, y, x, depth):
        """Rays as three arrays each: directions, and the points that lie `depth` metres along the optical axis."""
        ray = [x * right + y * up + forward for right, up, forward in np.float32(self.axes.T)]
        return ray, [o + depth * r for o, r in zip(np.float32(self.origin), ray, strict=True)]


# ---- Solids ----

SIDE, END, TOP = range(3)  # which way a face looks, in the frame of its solid
UP = np.array((0.0, 1.0, 0.0))
SIGNS = np.array(np.meshgrid((-1, 1), (-1, 1), (-1, 1))).reshape(3, 8).T  # corners of a box
SOLID = -9.0  # no leaf noise is below this


class Solid(NamedTuple):
    """An intersection of half-spaces, or an ellipsoid, along whose axes the frame lies."""

    corners: np.ndarray  # (8, 3) of a box around it
    normals: np.ndarray  # (K, 3), half-spaces normal . point <= offset; for an ellipsoid diag(1 / radius)
    offsets: np.ndarray  # (K,); for an ellipsoid its centre
    face: int  # row of its first face in the world's tables
    round: bool = False
    holes: float = SOLID  # where the leaf noise is below this, light passes

    def enter(self, camera, y, x):
        """Inverse depth (1 / m) at which each ray enters (0 = never), and through which of the faces."""
        return (self._enter_round if self.round else self._enter_flat)(camera, y, x)

    # Everything is worked out in inverse depth: on a plane it is linear in the pixel's position, so a half-space
    # costs one addition and one comparison per ray.
    def _enter_flat(self, camera, y, x):
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

    def _enter_round(self, camera, y, x):
        offset = np.float32(self.normals @ (camera.origin - self.offsets))
        beyond = offset @ offset - 1  # > 0: the camera is outside
        ray = [x * right + (y * up + forward) for right, up, forward in np.float32(self.normals @ camera.axes.T)]
        b = dot(ray, offset)
        root = b * b - dot(ray, ray) * beyond
        enter = (np.sqrt(np.maximum(root, 0)) - b) / np.maximum(beyond, np.float32(1e-6))
        return np.where((root > 0) & (enter < 1 / NEAR_M), enter, np.float32(0)), 0


class World:
    """Solids and, once `finish` has been called, tables of their looks.

    corners: (solids, 8, 3)
    faces:   one array per quantity, (faces, ...); face 0 is the ground, the plane y = 0
    """

    def __init__(self, rng, look):
        """look: default for every quantity that `box` and `ellipsoid` may be given by name."""
        self.rng, self.look, self.solids, self.looks, self.rows = rng, look, [], [], []
        self.bank, self.face_count = texture_bank(int(rng.integers(4))), 0

    def _add(self, look, origin, radii=(0, 0, 0), **face):
        """Tables of one solid: its look, and `face` with a row for each face: where it looks, the axes of its texture,
        which starts at `origin`."""
        look = look | {"origin": origin, "radii": radii, "phase": self.rng.uniform(0, TILE, 2)}
        self.rows.append(face | {"owner": [len(self.looks)] * len(face["normal"])})
        self.looks.append(self.look | look)
        self.face_count += len(face["normal"])

    def ground(self, **look):
        right, up, ahead = np.eye(3)[:, None]
        self._add(look, np.zeros(3), normal=up, across=right, along=ahead, half=[(1, 1)], facing=[TOP])

    def box(self, centre, half, yaw=0.0, cuts=(), **look):
        """A box of half sizes `half` turned by `yaw`, less what lies beyond the `cuts`: (a, b, c, k) keeps
        a X + b Y + c Z <= k, where X, Y, Z in [-1, 1] are the coordinates within the box."""
        centre, half = np.asarray(centre, float), np.asarray(half, float)
        turn = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
        planes = np.array([*np.c_[np.eye(3), np.ones(3)], *np.c_[-np.eye(3), np.ones(3)], *cuts])
        own = planes[:, :3] / half
        length = np.linalg.norm(own, axis=1)
        own, normals = own / length[:, None], own / length[:, None] @ turn.T
        offsets = planes[:, 3] / length + normals @ centre
        self.solids.append(Solid(SIGNS * half @ turn.T + centre, normals, offsets, self.face_count))
        top = np.abs(own[:, 1:2]) > 0.95
        level = np.stack((normals[:, 2], 0 * normals[:, 0], -normals[:, 0]), 1)  # horizontal, within the face
        across = np.where(top, turn[:, 0], level / np.maximum(np.linalg.norm(level, axis=1), 1e-9)[:, None])
        along = np.where(top, turn[:, 2], UP)
        facing = np.where(top[:, 0], TOP, np.where(np.abs(own[:, 2]) > np.abs(own[:, 0]), END, SIDE))
        size = np.stack((np.abs(across @ turn) @ half, np.abs(along @ turn) @ half), 1)
        self._add(look, centre - half[1] * UP, normal=normals, across=across, along=along, half=size, facing=facing)

    def ellipsoid(self, centre, radii, holes=SOLID, **look):
        """An ellipsoid; `holes`: where its leaf noise is below this, light passes."""
        centre, radii = np.asarray(centre, float), np.asarray(radii, float)
        holes = holes if centre[2] < 60 else SOLID  # farther away leaves are smaller than pixels
        self.solids.append(Solid(centre + SIGNS * radii, np.diag(1 / radii), centre, self.face_count, True, holes))
        nowhere = np.zeros((1, 3))
        self._add(look, centre, radii, normal=nowhere, across=nowhere, along=nowhere, half=[radii[:2]], facing=[SIDE])

    def finish(self):
        """Turn the rows into one array per quantity, over all faces."""
        faces = {k: np.concatenate([row[k] for row in self.rows]) for k in self.rows[0]}
        faces |= {k: np.array([look[k] for look in self.looks])[faces["owner"]] for k in self.looks[0]}
        self.faces = {k: v.astype(np.int32 if v.dtype.kind == "i" else np.float32) for k, v in faces.items()}
        self.corners = np.float32([solid.corners for solid in self.solids])

    def outward(self, face, point):
        """Direction, of any length, in which ellipsoids look."""
        centre, radii = self.faces["origin"][face].T, self.faces["radii"][face].T
        return [(point[k] - centre[k]) / radii[k] ** 2 for k in range(3)]

    def surface(self, camera, ray, point, depth, face):
        """Normals (3, N), and on the surface: coordinates s, t and the size of a pixel along them, in metres."""
        table = {k: self.faces[k][face].T for k in ("normal", "across", "along", "origin", "radii")}
        normal, offset = table["normal"].copy(), point - table["origin"]
        s, t = dot(offset, table["across"]), dot(offset, table["along"])
        curved = np.flatnonzero(table["radii"][0] > 0)
        if curved.size:
            at = [p[curved] for p in point]
            out = self.outward(face[curved], at)
            normal[:, curved] = out / np.sqrt(dot(out, out))
            s[curved], t[curved] = _unroll(at, out)
        slant = np.maximum(np.abs(dot(normal, ray)), 0.02)  # seen at a slant, more of a surface lies in a pixel
        level = self.faces["facing"][face] == TOP
        foot_s = depth / np.float32(camera.focal[1]) / np.where(level, 1, slant)
        foot_t = depth / np.float32(camera.focal[0]) / np.where(level, slant, 1)
        return normal, s, t, foot_s, foot_t


def _unroll(point, normal):
    """Texture coordinates on a round body: the two axes that its surface faces least. Same from every viewpoint."""
    x, y, z = np.abs(normal)
    return np.where(x > np.maximum(y, z), point[2], point[0]), np.where(y > np.maximum(x, z), point[2], point[1])


# ---- Casting ----


def cast(world, camera, y, x, shift=0.0):
    """First surface along every ray.

    y, x:    slopes as from `Camera.slopes`, broadcasting to (..., H, W); ray (i, j) near row i and column j
    shift:   rays may stand left of column j, by up to `shift` pixels / depth of what they hit
    returns: inverse depth (1 / m, 0 = sky) and face, a row of `world.faces` (-1 = sky), both (..., H, W)
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
    depth = 1 / inverse[hit]
    _, point = camera.trace(*(np.broadcast_to(slope, hit.shape)[hit] for slope in slopes), depth)
    scale = world.faces["scale"][face]
    s, t = _unroll(point, world.outward(face, point))
    return look_up(world.bank, LEAVES, s * scale, t * scale, depth * np.float32(scale / camera.focal[1]))
