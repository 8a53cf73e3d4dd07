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

from monodepth_nb.raycast import (
    CLOUDS,
    END,
    GRAIN,
    LEAVES,
    STONES,
    TOP,
    UP,
    Camera,
    World,
    band,
    bilinear,
    cast,
    dot,
    look_up,
    stripes,
)

CLASSES = ("road", "sidewalk", "building", "car", "pole", "vegetation", "person", "sky")
ROAD, SIDEWALK, BUILDING, CAR, POLE, VEGETATION, PERSON, SKY = range(len(CLASSES))
BASELINE_M = 0.54
FOCAL = 721.5377 / 375, 721.5377 / 1242  # KITTI's focal length, in heights and widths of its pictures
CENTRE = 172.854 / 375, 609.5593 / 1242  # its principal point, likewise
VERSION = 3  # part of the cache note: raise it when the pictures of a seed change

# ---- What stands in a street ----

PLAIN, GROUND, FACADE, BODY, CABIN = range(5)  # how a surface is painted
LOOK = dict(kind=PLAIN, label=0, colour=(0.5, 0.5, 0.5), tile=GRAIN, contrast=0.25, gloss=0.0)
LOOK |= dict(scale=64.0, windows=(3.0, 1.2, 3.0, 1.6))  # texels per metre; metres: bay, its window, storey, its window

# Linear RGB to choose from.
GREYS = (0.02, 0.02, 0.02), (0.12, 0.12, 0.12), (0.35, 0.35, 0.35), (0.75, 0.75, 0.75)
PAINTS = *GREYS, *GREYS, (0.02, 0.05, 0.2), (0.35, 0.02, 0.02), (0.05, 0.12, 0.08), (0.5, 0.3, 0.02)
SKINS = (0.4, 0.25, 0.18), (0.1, 0.06, 0.04)
LEAF = (0.04, 0.07, 0.018), (0.06, 0.1, 0.025), (0.03, 0.05, 0.02), (0.11, 0.1, 0.025), (0.14, 0.07, 0.025)
GRASS = (0.07, 0.11, 0.03), (0.13, 0.13, 0.05), (0.05, 0.08, 0.025)
WALLS = (0.55, 0.5, 0.42), (0.6, 0.6, 0.58), (0.5, 0.36, 0.24), (0.3, 0.16, 0.11), (0.55, 0.45, 0.25), (0.3, 0.3, 0.3)
DARK = (0.2, 0.08, 0.05), (0.12, 0.09, 0.08), (0.1, 0.1, 0.11), (0.09, 0.07, 0.05)  # roofs, wood
ASPHALTS = (0.13, 0.13, 0.135), (0.19, 0.185, 0.18), (0.09, 0.09, 0.1)
PAVEMENTS = (0.26, 0.25, 0.24), (0.2, 0.2, 0.21), (0.3, 0.22, 0.18)

CARS = (  # chance; half width, half length, bonnet and cabin height; cabin: share of length, shift back, rake
    (0.43, 0.88, 2.15, 0.93, 0.52, 0.55, 0.10, 0.55),  # saloon
    (0.34, 0.87, 2.00, 0.95, 0.55, 0.70, 0.25, 0.45),  # estate
    (0.17, 0.97, 2.50, 1.15, 0.90, 0.82, 0.15, 0.25),  # van
    (0.06, 1.22, 4.50, 1.50, 1.50, 0.97, 0.00, 0.05),  # bus
)
STYLES = (  # chance; houses: share of the street, least and most metres from the pavement, height; trees; bushes
    (0.22, 1.00, 0, 5, 6, 17, 0.2, 0.1),  # town
    (0.23, 0.65, 3, 9, 4, 8, 1.5, 1.0),  # villas
    (0.35, 0.00, 0, 0, 0, 0, 2.5, 1.0),  # woods
    (0.20, 0.00, 0, 0, 0, 0, 0.7, 0.5),  # open land
)


def _both(a, b, c, k):
    """A cut and its mirror image, for `World.box`."""
    return [(a, b, c, k), (-a, b, -c, k)]


POST = _both(1, 0, 1, 1.41) + _both(1, 0, -1, 1.41)  # cuts that leave of a box an upright octagon,
WHEEL = _both(0, 1, 1, 1.41) + _both(0, -1, 1, 1.41)  # one along x,
DISC = _both(1, 1, 0, 1.41) + _both(1, -1, 0, 1.41)  # one along z


class Street(World):
    """The solids, the road's course and measures in metres (pairs: left, right), its markings, and the light."""

    def __init__(self, rng):
        super().__init__(rng, LOOK)
        self.bend = rng.normal(0, 0.0012) * (rng.random() < 0.5)
        self.lanes, self.lane_width = 1 + (rng.random() < 0.35), rng.uniform(2.9, 3.7)
        self.parked, self.walk = rng.random(2) < 0.35, rng.uniform(1.5, 8, 2)
        self.kerb = self.lanes * self.lane_width + 2.1 * self.parked
        self.zebra = rng.choice((1e4, rng.uniform(8, 40)))
        self.centre_line, self.edge_line = rng.choice(3, p=(0.25, 0.5, 0.25)), rng.random() < 0.5  # none, dashed, solid
        self.line_width, self.dash, self.pitch = rng.uniform(0.1, 0.2), rng.uniform(3, 6), rng.uniform(8, 14)
        self.asphalt, self.pavement, self.grass = (self.pick(c) for c in (ASPHALTS, PAVEMENTS, GRASS))
        self.paving, self.lawn = rng.choice((GRAIN, STONES)), rng.random(2) < 0.6  # beyond the pavement: lawn or paved
        self.wet = rng.uniform(0.3, 1.3) if rng.random() < 0.35 else 9.0  # noise above this is a puddle or smooth tar
        self._draw_light(rng, overcast=rng.random() < 0.25)
        self.ground(label=SIDEWALK, kind=GROUND)

    def _draw_light(self, rng, overcast):
        """Sun (or, under clouds, a weak light overhead that leaves contact shadows), sky, and the cameras' response."""
        height, azimuth = (1.4 if overcast else rng.uniform(0.4, 1.1)), rng.uniform(0, 2 * np.pi)
        self.sun = np.array((np.cos(height) * np.sin(azimuth), np.sin(height), np.cos(height) * np.cos(azimuth)))
        self.sunlight = np.array((1.0, 0.93, 0.82)) * rng.uniform(1.8, 2.8) * (0.18 if overcast else 1)
        self.skylight = np.array((0.75, 0.78, 0.8) if overcast else (0.33, 0.4, 0.5)) * rng.uniform(0.6, 1)
        self.haze = np.array((0.95, 1.05, 1.15)) * rng.uniform(0.8, 1.2)
        self.zenith = self.haze if overcast else np.array((0.3, 0.55, 1.0)) * rng.uniform(0.7, 1.4)
        self.glare, self.clouds = 3 * (not overcast), rng.uniform(-0.5, 2.0)  # noise above `clouds` is cloud
        self.level, self.gamma = rng.normal(0.37, 0.025), rng.uniform(1.6, 2.0)  # mean of the picture, display gamma
        self.balance = rng.uniform(0.95, 1.05, 3)
        self.right_tone = rng.uniform(0.97, 1.03, 3)  # the right camera's gain per channel, relative to the left's

    def pick(self, choices):
        """One of the colours, varied a little."""
        tone = self.rng.uniform(0.75, 1.25) * self.rng.uniform(0.92, 1.08, 3)
        return np.array(choices[self.rng.integers(len(choices))]) * tone

    def foliage(self):
        return dict(colour=self.pick(LEAF), tile=LEAVES, scale=self.rng.uniform(40, 80), contrast=0.9, label=VEGETATION)

    def road_x(self, z):
        """Where the middle of the road is, z metres ahead: a parabola that runs on as a straight line."""
        near = np.minimum(z, 90)
        return self.bend * near * (2 * z - near)

    def place(self, lateral, z):
        """Road coordinates -> the point on the ground there, and the direction of the road."""
        return np.array((self.road_x(z) + lateral, 0.0, z)), np.arctan(2 * self.bend * min(z, 90))


def add_car(street, lateral, z, oncoming):
    rng, (at, yaw) = street.rng, street.place(lateral, z)
    _, *sizes = CARS[rng.choice(len(CARS), p=[car[0] for car in CARS])]
    width, length, bonnet, cabin, share, back, rake = np.array(sizes) * rng.uniform(0.93, 1.07, 7)
    yaw += np.pi * oncoming + rng.normal(0, 0.03)
    ahead, half, rear = np.array((np.sin(yaw), 0, np.cos(yaw))), bonnet / 2 - 0.11, rake * rng.uniform(0.4, 1)
    look = dict(label=CAR, contrast=0.2, gloss=0.5, colour=street.pick(PAINTS))
    cuts = _both(0, 0.9, 1, 1.55) + _both(1, 0.35, 0, 1.22) + _both(0, -0.4, 1, 1.2)
    street.box(at + (0.22 + half) * UP, (width, half, length), yaw, cuts, kind=BODY, **look)
    cuts = [(0, rake, 1, 1.05), (0, rear, -1, 1.05), *_both(1, rake / 3, 0, 1.02)]
    middle = at + (bonnet + cabin / 2 - 0.03) * UP - back * length * ahead
    street.box(middle, (width - 0.05, cabin / 2 + 0.03, share * length), yaw, cuts, kind=CABIN, **look)
    for axle in (-0.63, 0.63):
        middle = at + 0.33 * UP + axle * length * ahead
        street.box(middle, (width + 0.02, 0.33, 0.33), yaw, WHEEL, label=CAR, colour=GREYS[0])


def add_tree(street, lateral, z, height):
    """A trunk and a crown of ellipsoids with holes between the leaves: the farther away, the fewer."""
    rng, (at, _) = street.rng, street.place(lateral, z)
    stem, girth, look = height * rng.uniform(0.22, 0.4), rng.uniform(0.1, 0.28), street.foliage()
    trunk = dict(label=VEGETATION, colour=street.pick(DARK), contrast=0.5)
    street.box(at + stem * 0.6 * UP, (girth, stem * 0.6, girth), 0, POST, **trunk)
    crown, count = height - stem, int(np.clip(150 / max(z, 4), 2, 8))
    for level in (np.arange(count) + 0.5) / count:
        wide = crown * rng.uniform(0.26, 0.4)
        high = max(wide * rng.uniform(0.6, 0.9), crown * 0.7 / count)
        aside = rng.normal(0, 0.16, 3) * (1, 0, 1) * crown
        middle = at + aside + (stem + crown * (0.15 + 0.7 * level)) * UP
        street.ellipsoid(middle, (wide, high, wide), holes=rng.uniform(-1.2, -0.5), **look)


def add_bushes(street, lateral, z, length, height):
    """A row of bushes along the road, half of the time grown through by a hedge."""
    rng, (at, yaw) = street.rng, street.place(lateral, z)
    look = street.foliage()
    if rng.random() < 0.5:
        street.box(at + height / 2 * UP, (rng.uniform(0.3, 0.6), height / 2, length / 2), yaw, **look)
    for _ in range(int(np.clip(length / height, 1, 5))):
        size = height * rng.uniform(0.5, 0.8)
        at, _ = street.place(lateral + rng.normal(0, 0.3), z + rng.uniform(-0.5, 0.5) * length)
        street.ellipsoid(at + size * 0.6 * UP, (size, size, size * rng.uniform(0.8, 1.6)), holes=-0.7, **look)


def add_house(street, lateral, z, length, depth, height):
    """A block of `length` along the road, whose middle is `lateral` from the road's, mostly with a gable roof."""
    rng, (at, yaw) = street.rng, street.place(lateral, z)
    bay, storey, rise = rng.uniform(1.6, 3.6), rng.uniform(2.7, 3.6), depth * rng.uniform(0.2, 0.45)
    windows = bay, bay * rng.uniform(0.3, 0.7), storey, storey * rng.uniform(0.4, 0.65)
    wall = dict(colour=street.pick(WALLS), tile=rng.choice((GRAIN, STONES)), scale=rng.uniform(40, 120), contrast=0.35)
    size = depth / 2, height / 2, length / 2
    street.box(at + height / 2 * UP, size, yaw, label=BUILDING, kind=FACADE, windows=windows, **wall)
    if rng.random() < 0.75:
        size, roof = (depth / 2 + 0.4, rise / 2, length / 2 + 0.2), dict(colour=street.pick(DARK), tile=STONES)
        street.box(at + (height + rise / 2) * UP, size, yaw, _both(1, 0.5, 0, 0.5), label=BUILDING, **roof)


def add_person(street, lateral, z):
    rng, (at, _) = street.rng, street.place(lateral, z)
    tall, yaw = rng.uniform(1.5, 1.9), rng.uniform(0, 6.3)
    step, trousers = rng.uniform(0.05, 0.22) * np.array((np.sin(yaw), 0, np.cos(yaw))), street.pick(PAINTS)
    for leg in (at - step, at + step):
        street.box(leg + tall * 0.24 * UP, (0.09, tall * 0.25, 0.1), yaw, POST, label=PERSON, colour=trousers)
    street.ellipsoid(at + tall * 0.65 * UP, (0.24, 0.2 * tall, 0.2), label=PERSON, colour=street.pick(PAINTS))
    street.ellipsoid(at + tall * 0.92 * UP, (0.1, 0.075 * tall, 0.11), label=PERSON, colour=street.pick(SKINS))


def add_pole(street, lateral, z):
    """A bollard, a traffic sign or a street lamp."""
    rng, (at, yaw) = street.rng, street.place(lateral, z)
    height = rng.choice((1.0, rng.uniform(2.2, 3.2), rng.uniform(5, 9)), p=(0.2, 0.45, 0.35))
    thin, metal = rng.uniform(0.03, 0.09), dict(label=POLE, colour=street.pick(GREYS[1:3]))
    street.box(at + height / 2 * UP, (thin, height / 2, thin), yaw, POST, **metal)
    if height > 4:
        arm = rng.uniform(0.6, 1.5)
        street.box(at + height * UP - (np.sign(lateral) * arm, 0, 0), (arm, 0.07, 0.1), yaw, **metal)
    elif height > 2:
        size, shape = rng.uniform(0.2, 0.4), (DISC, ())[rng.integers(2)]
        middle = at + (height - size) * UP - (0, 0, thin + 0.03)
        street.box(middle, (size, size, 0.03), yaw, shape, label=POLE, colour=street.pick(PAINTS[8:]))


def _add_side(street, side):
    """Everything on one side of the road (-1 left, 1 right), from near to far."""
    rng, kerb, parked = street.rng, street.kerb[max(side, 0)], street.parked[max(side, 0)]

    def spots(start, stop, shortest, longest):
        z = start + np.cumsum(rng.uniform(shortest, longest, 60)) - shortest
        return z[z < stop]

    edge, length = kerb + street.walk[max(side, 0)], rng.uniform(8, 22)
    _, share, least, most, low, high, trees, bushes = STYLES[rng.choice(len(STYLES), p=[s[0] for s in STYLES])]
    for z in spots(2, 110, length, length):
        if share:
            depth, front = rng.uniform(8, 14), edge + rng.uniform(least, most)
            add_house(street, side * (front + depth / 2), z, share * length, depth, rng.uniform(low, high))
        for _ in range(rng.poisson(trees)):
            add_tree(street, side * (edge + rng.uniform(1, 7)), z + rng.uniform(-0.5, 0.5) * length, rng.uniform(5, 12))
        if rng.random() < bushes:
            add_bushes(street, side * (edge + rng.uniform(0.6, 7)), z, length * 0.8, rng.uniform(0.7, 2.5))
    for z in spots(rng.uniform(4, 15), 75, 8, 30):
        add_pole(street, side * (kerb + rng.uniform(0.3, 0.8)), z)
    for z in spots(rng.uniform(6, 20), 70 * (rng.random() < 0.3), 9, 16):
        add_tree(street, side * (kerb + 0.8), z, rng.uniform(5, 9))
    for z in spots(rng.uniform(3.5, 12), 80 * parked, 5.4, 10):
        add_car(street, side * (kerb - 1.0), z, side < 0)
    for lane in range(street.lanes):
        for z in spots(rng.uniform(9, 60), 90, 8, 60):
            add_car(street, side * (lane + 0.5) * street.lane_width + rng.normal(0, 0.15), z, side < 0)
    for _ in range(rng.poisson(1.2)):
        add_person(street, side * (rng.uniform(kerb, edge) + 0.4), rng.uniform(5, 40))


def _add_horizon(street):
    """Woods and large blocks around everything, so that the flat ground does not run to infinity."""
    rng = street.rng
    for lateral in np.arange(-170, 171, 26.0):
        z, high = rng.uniform(125, 190) - abs(lateral) * 0.6, rng.uniform(4, 12)
        if rng.random() < 0.75:
            street.ellipsoid(street.place(lateral, z)[0], (22, high, 8), **street.foliage() | {"scale": 12.0})
        else:
            add_house(street, lateral, z, 12, 30, high * 1.3)


def build_street(seed):
    """Draw a street, its light and where the camera is, from `seed` (an integer or a tuple of them)."""
    rng = np.random.default_rng(seed)
    street = Street(rng)
    for side in (-1, 1):
        _add_side(street, side)
    _add_horizon(street)
    yaw, pitch = rng.normal(0, 0.1 if rng.random() < 0.15 else 0.02), rng.normal(0, 0.008)
    lateral = (rng.integers(street.lanes) + 0.5) * street.lane_width + rng.normal(0, 0.25)
    street.pose = (np.sin(yaw), np.sin(pitch), np.cos(yaw)), (lateral, rng.normal(1.65, 0.05), 0.0)  # forward, origin
    street.finish()
    street.shadow = shadow_map(street)
    return street


# ---- Paint: (street, face, coordinates on the surface, size of a pixel along them; all (N,)) -> parts of the look ----


def _mix(colour, other, share):
    """Blend (3, N) or (3,) colours by a share in [0, 1] per point."""
    colour, other = (np.float32(c).reshape(3, -1) for c in (colour, other))
    return colour + (other - colour) * share


def paint_ground(street, face, x, z, foot_x, foot_z):
    """Road, kerb, pavement and verge with their markings."""
    lateral = x - np.float32(street.road_x(z))
    side, away = (lateral > 0).astype(int), np.abs(lateral)
    kerb, walk, lawn = np.float32(street.kerb)[side], np.float32(street.walk)[side], street.lawn[side]
    road, verge = band(away, -99, kerb, foot_x), band(away, kerb + walk, 9e3, foot_x)
    line, dashes = street.line_width, stripes(z, street.pitch, street.dash, foot_z)
    paint = band(away, -1, line / 2, foot_x) * (0, dashes, 1)[street.centre_line]
    for lane in range(1, street.lanes + 1):
        drawn = dashes if lane < street.lanes else street.edge_line
        paint = np.maximum(paint, band(away, lane * street.lane_width - line, lane * street.lane_width, foot_x) * drawn)
    zebra = band(z, street.zebra, street.zebra + 3.5, foot_z)
    paint = (paint * (1 - zebra) + zebra * stripes(lateral, 1.0, 0.5, foot_x)) * road
    stain = look_up(street.bank, CLOUDS, x * 14, z * 6, 14 * foot_x)
    plain = street.pavement[:, None]
    colour = _mix(plain, np.where(lawn, street.grass[:, None], 0.8 * plain), verge)
    colour = _mix(colour, 1.6 * plain, band(away, kerb, kerb + 0.17, foot_x))  # the kerb
    colour = _mix(colour, street.asphalt, road) * (1 + 0.12 * stain)
    colour = _mix(colour, (0.65, 0.65, 0.62), paint * np.clip(0.85 + 0.15 * stain, 0, 1))
    road, lawn = road > 0.5, (verge > 0.5) & lawn
    puddle = np.clip((stain - street.wet) * 3, 0, 1) * road
    look = dict(colour=colour * (1 - 0.5 * puddle), paint=paint, gloss=puddle, contrast=np.where(lawn, 0.8, 0.35))
    look["tile"] = np.where(road, GRAIN, np.where(lawn, LEAVES, street.paving))
    return look | dict(label=np.where(road, ROAD, np.where(lawn, VEGETATION, SIDEWALK)))


def paint_facade(street, face, s, t, foot_s, foot_t):
    """Windows in bays and storeys, each with a tone of its own, on the upright faces."""
    bay, wide, storey, high = street.faces["windows"][face].T
    sill = t - np.float32(0.9)
    glass = stripes(s, bay, wide, foot_s) * stripes(sill, storey, high, foot_t) * (street.faces["facing"][face] != TOP)
    number = np.floor(s / bay) * 57 + np.floor(sill / storey) * 131 + street.faces["owner"][face] * 17
    tone = 0.6 + 0.5 * np.sin(number * 12.9898)  # differs from window to window, not from view to view
    colour = _mix(street.faces["colour"][face].T, np.outer((0.1, 0.11, 0.13), tone**2), glass)
    return dict(colour=colour, gloss=0.3 * glass)


def paint_cabin(street, face, s, t, foot_s, foot_t):
    """Glass all around, within a frame."""
    half, tall = street.faces["half"][face].T
    glass = band(np.abs(s), -9, half - 0.12, foot_s) * band(t, 0.1, 2 * tall - 0.1, foot_t)
    glass *= street.faces["facing"][face] != TOP
    return dict(colour=_mix(street.faces["colour"][face].T, GREYS[0], glass), gloss=np.maximum(0.12, 0.5 * glass))


def paint_body(street, face, s, t, foot_s, foot_t):
    """Lights at both ends, red on two cars of three, and a black sill."""
    (half, tall), end = street.faces["half"][face].T, street.faces["facing"][face] == END
    lamp = band(np.abs(s), 0.66 * half, 0.95 * half, foot_s) * band(t, 0.5 * tall, 0.9 * tall, foot_t) * end
    red = street.faces["owner"][face] % 3 > 0
    colour = _mix(street.faces["colour"][face].T, GREYS[0], band(t, -9, 0.12, foot_t))
    return dict(colour=_mix(colour, np.where(red, [[0.3], [0.01], [0.01]], 0.6), lamp), gloss=0.12 * (1 - lamp))


PAINTERS = {GROUND: paint_ground, FACADE: paint_facade, BODY: paint_body, CABIN: paint_cabin}


def _look(street, face, *place):
    """What the surface is like at every hit: its solid's look, then what its kind paints over it."""
    look = {k: street.faces[k][face].T.copy() for k in ("colour", "tile", "contrast", "gloss", "label")}
    look["paint"] = np.zeros(len(face), np.float32)
    kinds = street.faces["kind"][face]
    for kind, painter in PAINTERS.items():
        here = np.flatnonzero(kinds == kind)
        for name, value in painter(street, face[here], *(p[here] for p in place)).items() if here.size else ():
            look[name][..., here] = value
    return look


# ---- Light ----


def sky_colour(street, ray):
    """Radiance (3, N) that comes from far away: gradient, clouds and the glare of the sun."""
    length = np.sqrt(dot(ray, ray))
    up = np.maximum(ray[1] / length, 0)
    spread = 50 / (up + 0.2) / length
    noise = look_up(street.bank, CLOUDS, ray[0] * spread, ray[2] * spread, np.float32(1))
    clouds = np.clip(0.5 * (noise - street.clouds), 0, 0.9)
    glare = street.glare * np.exp(60 * (dot(ray, np.float32(street.sun)) / length - 1))
    return _mix(_mix(street.haze, street.zenith, np.sqrt(up)), (1.25, 1.25, 1.25), clouds) + glare


def mirrored(street, ray, normal):
    """What a shiny surface shows, (3, N), and its share of the light: the sky above a dark, uneven skyline.

    It depends on direction alone, as things far away do, so its image moves over the surface with the viewpoint:
    brightness is not constant there.
    """
    facing, length = dot(normal, ray), np.sqrt(dot(ray, ray))
    ray = [r - 2 * facing * n for r, n in zip(ray, normal, strict=True)]
    around = 200 * ray[0] / (np.abs(ray[0]) + np.abs(ray[2]) + 1e-6)
    noise = look_up(street.bank, CLOUDS, around, np.sign(ray[2]) * 40, np.float32(1))
    hidden = np.clip((0.22 + 0.1 * noise - ray[1] / length) * 20, 0, 1)
    fresnel = 0.06 + 0.94 * (1 - np.minimum(np.abs(facing) / length, 1)) ** 5  # after Schlick
    return _mix(sky_colour(street, ray), 0.12 * street.skylight, hidden), fresnel


def shadow_map(street, size=288, reach=42.0):
    """Depth seen from the sun: a camera 1.5 km away that takes in what lies within `reach` of the street ahead."""
    middle = np.array((street.road_x(30.0), 0.0, 30.0))
    camera = Camera.towards(-street.sun, middle + 1500 * street.sun, (1500 * size / 2 / reach,) * 2, (size / 2,) * 2)
    pixels = np.arange(size) + 0.5
    return camera, 1 / cast(street, camera, *camera.slopes(pixels[:, None], pixels[None]))[0]


def sunlit(street, point):
    """Share of the sun that reaches each point (three arrays), from the shadow map, bilinearly smoothed."""
    camera, depths = street.shadow
    *aside, depth = camera.frame(point)
    row, column = (np.clip(p - np.float32(0.5), 0, len(depths) - 1.01) for p in camera.pixel(*aside, depth))
    reach = depth - np.float32(0.6)  # a margin against surfaces shading themselves
    return bilinear(lambda i, j: depths[i, j] > reach, row, column)


def shade(street, camera, y, x, depth, face):
    """Radiance (3, N) of N rays that hit something, and what they hit: dict of `label`, `paint`, `gloss`."""
    ray, point = camera.trace(y, x, depth)
    normal, s, t, foot_s, foot_t = street.surface(camera, ray, point, depth, face)
    look = _look(street, face, s, t, foot_s, foot_t)
    scale, phase = street.faces["scale"][face], street.faces["phase"][face].T
    # Along a row the footprint must be met in full, or the two views would differ; a column is cut alike in both.
    foot = np.sqrt(foot_s * np.maximum(foot_s, foot_t))
    detail = look_up(street.bank, look["tile"], s * scale + phase[0], t * scale + phase[1], scale * foot)
    stain = look_up(street.bank, GRAIN, s * 16 + phase[1], t * 16 + phase[0], 16 * foot)
    colour = look["colour"] * np.maximum(1 + look["contrast"] * (detail + 0.3 * stain), 0.1)
    sun = np.maximum(dot(normal, np.float32(street.sun)), 0) * sunlit(street, point)
    low = np.where(face > 0, np.clip(0.55 + 0.45 * point[1], 0.55, 1), 1)  # less sky is seen from near the ground
    sky = (0.6 + 0.4 * normal[1]) * low
    radiance = colour * np.float32(np.outer(street.sunlight, sun) + np.outer(street.skylight, sky))
    shiny = np.flatnonzero(look["gloss"] > 0.01)
    image, share = mirrored(street, [r[shiny] for r in ray], normal[:, shiny])
    radiance[:, shiny] = _mix(radiance[:, shiny], image, look["gloss"][shiny] * share)
    return radiance, look


def _radiance(street, camera, y, x, inverse, face):
    """`shade` for rays of any outcome: (3, N) and (label, paint, gloss), each over N."""
    image, maps = np.empty((3, len(face)), np.float32), np.zeros((3, len(face)), np.float32)
    hit, miss = np.flatnonzero(face >= 0), np.flatnonzero(face < 0)
    image[:, miss], maps[0, miss] = sky_colour(street, camera.trace(y[miss], x[miss], 0)[0]), SKY
    image[:, hit], look = shade(street, camera, y[hit], x[hit], 1 / inverse[hit], face[hit])
    maps[:, hit] = look["label"], look["paint"], look["gloss"]
    return image, maps


# ---- Pictures ----


def _view(street, camera, size):
    """Linear image (3, H, W) and, of the pixel centres, inverse depth, class, lane paint and gloss (H, W)."""
    rows, columns = np.arange(size[0] + 1) + 0.5, np.arange(size[1] + 1) + 0.5  # one more than there are centres
    y, x = camera.slopes(np.stack((rows, rows - 0.5))[:, :, None], np.stack((columns, columns - 0.5))[:, None])
    inverse, face = cast(street, camera, y, x)
    centre, corner = zip(*np.broadcast_arrays(y, x, inverse, face), strict=True)
    inner = np.s_[:-1, :-1]
    around = inner, np.s_[:-1, 1:], np.s_[1:, :-1], np.s_[1:, 1:]  # the corners of each pixel
    image, maps = (a.reshape(3, *size) for a in _radiance(street, camera, *(a[inner].ravel() for a in centre)))
    # Inside a surface texture and paint are already filtered; only pixels that hold an edge need their corners.
    edge = np.any([corner[3][c] != centre[3][inner] for c in around], axis=0)
    wanted = np.zeros(face.shape[1:], bool)
    for c in around:
        wanted[c] |= edge
    colours = np.zeros((3, *wanted.shape), np.float32)
    colours[:, wanted] = _radiance(street, camera, *(a[wanted] for a in corner))[0]
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
