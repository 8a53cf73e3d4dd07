"""What stands in a rendered street, drawn at random: the road, houses, cars, trees, poles and people."""

import numpy as np

from monodepth_nb.streets.raycast import UP, World
from monodepth_nb.streets.textures import GRAIN, LEAVES, STONES

CLASSES = ("road", "sidewalk", "building", "car", "pole", "vegetation", "person", "sky")
ROAD, SIDEWALK, BUILDING, CAR, POLE, VEGETATION, PERSON, SKY = range(len(CLASSES))

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
    """A cut of `World.box` and the cut opposite to it."""
    return [(a, b, c, k), (-a, b, -c, k)]


POST = _both(1, 0, 1, 1.41) + _both(1, 0, -1, 1.41)  # cuts that leave of a box an upright octagon,
WHEEL = _both(0, 1, 1, 1.41) + _both(0, -1, 1, 1.41)  # one along x,
DISC = _both(1, 1, 0, 1.41) + _both(1, -1, 0, 1.41)  # one along z


class Street(World):
    """The solids, the course of the road, its sizes in metres (pairs: left, right) and markings, and the light."""

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
        """The point on the ground at road coordinates, (3,), and the yaw of the road there."""
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
    """A trunk and a crown of ellipsoids with holes between the leaves; fewer ellipsoids farther away."""
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
    """A row of bushes along the road, half of the time with a hedge among them."""
    rng, (at, yaw) = street.rng, street.place(lateral, z)
    look = street.foliage()
    if rng.random() < 0.5:
        street.box(at + height / 2 * UP, (rng.uniform(0.3, 0.6), height / 2, length / 2), yaw, **look)
    for _ in range(int(np.clip(length / height, 1, 5))):
        size = height * rng.uniform(0.5, 0.8)
        at, _ = street.place(lateral + rng.normal(0, 0.3), z + rng.uniform(-0.5, 0.5) * length)
        street.ellipsoid(at + size * 0.6 * UP, (size, size, size * rng.uniform(0.8, 1.6)), holes=-0.7, **look)


def add_house(street, lateral, z, length, depth, height):
    """A block of `length` along the road, its middle `lateral` from the road's; mostly with a gable roof."""
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


def add_side(street, side):
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


def add_horizon(street):
    """Woods and large blocks around everything, so that the flat ground does not run to infinity."""
    rng = street.rng
    for lateral in np.arange(-170, 171, 26.0):
        z, high = rng.uniform(125, 190) - abs(lateral) * 0.6, rng.uniform(4, 12)
        if rng.random() < 0.75:
            street.ellipsoid(street.place(lateral, z)[0], (22, high, 8), **street.foliage() | {"scale": 12.0})
        else:
            add_house(street, lateral, z, 12, 30, high * 1.3)
