"""Less tidy streets, for networks that are to see real ones: `--varied`.

In the plain streets every car stands along the road, only houses have plain walls, and all ground is level; a network
learns that. Varied streets also have rows of cars at an angle, turning cars, lorries, windows that mirror the sky,
walls, banks, fences, and solids of any shape and look. The last are domain randomisation (Tobin et al., IROS 2017): all
that they share with the things of real streets is that they stand on the ground.
"""

import numpy as np

from monodepth_nb.streets import scene
from monodepth_nb.streets.raycast import UP
from monodepth_nb.streets.scene import BUILDING, CABIN, CAR, FACADE, PLAIN, POLE, POST, VEGETATION, WHEEL
from monodepth_nb.streets.textures import CLOUDS, GRAIN, LEAVES, STONES

COLOURS = (*scene.PAINTS, *scene.LEAF, *scene.GRASS, *scene.WALLS, *scene.DARK, *scene.ASPHALTS, *scene.PAVEMENTS)


def vary(street):
    """Before anything stands there: room for rows of cars, a smoother road, and cars as `scene.add_car` varies them."""
    rng = street.rng
    street.varied, street.rough, street.stain = True, rng.uniform(0.1, 1), rng.uniform(0.02, 0.14)
    street.lots = rng.random(2) < 0.35
    street.walk = np.maximum(street.walk, 6.5 * street.lots)


def add_variety(street):
    """Everything that stands in a varied street besides what `scene.add_side` puts there."""
    rng = street.rng
    for side in (-1, 1):
        kerb, walk, row = (both[max(side, 0)] for both in (street.kerb, street.walk, street.lots))
        if row:
            add_row(street, side, kerb + rng.uniform(2.6, 4.5))
        if rng.random() < 0.5:
            add_boundary(street, side, kerb, walk)
        for _ in range(rng.poisson(3)):
            add_thing(street, side * (kerb + rng.uniform(0.3, 8)), rng.uniform(4, 60))
    for _ in range(rng.poisson(0.8)):
        turn = rng.choice((0, np.pi)) + rng.normal(0, 0.3)
        add_lorry(street, rng.uniform(-1, 1) * street.kerb[0], rng.uniform(10, 70), turn)
    for _ in range(rng.poisson(0.6)):
        add_car(street, rng.uniform(-1, 1) * street.kerb[0], rng.uniform(9, 50), rng.uniform(-np.pi, np.pi))


def add_car(street, lateral, z, turn):
    scene.add_car(street, lateral, z, oncoming=False, turn=turn)


def add_row(street, side, lateral):
    """A row of cars beyond the kerb that stand across the road or at an angle to it."""
    rng = street.rng
    turn, z = rng.choice((-1, 1)) * rng.uniform(0.8, 1.6), rng.uniform(3, 25)
    for _ in range(rng.integers(2, 14)):
        if rng.random() < 0.8:  # some places are free
            add_car(street, side * lateral + rng.normal(0, 0.2), z, turn + np.pi * (rng.random() < 0.3))
        z += rng.uniform(2.4, 3.0) / max(np.sin(abs(turn)), 0.7)


def add_lorry(street, lateral, z, turn):
    """A box on wheels, with or without a driver's cab: lorries, closed vans and trailers."""
    rng, (at, yaw) = street.rng, street.place(lateral, z)
    yaw += turn
    ahead, width, length, height = np.array((np.sin(yaw), 0, np.cos(yaw))), *rng.uniform((0.8, 1, 0.6), (1.28, 4, 1.6))
    look = dict(tile=rng.choice((GRAIN, CLOUDS, STONES)), contrast=rng.uniform(0.02, 0.3), gloss=rng.uniform(0, 0.3))
    street.box(at + (0.5 + height) * UP, (width, height, length), yaw, label=CAR, colour=street.pick(COLOURS), **look)
    if rng.random() < 0.6:
        middle, cab = at + (length + 0.9) * ahead, height * rng.uniform(0.6, 1)
        street.box(middle + (0.4 + cab) * UP, (width * 0.95, cab, 0.85), yaw, kind=CABIN, label=CAR)
    for axle in (-0.7, 0.7):
        middle = at + 0.42 * UP + axle * length * ahead
        street.box(middle, (width + 0.02, 0.42, 0.42), yaw, WHEEL, label=CAR, colour=scene.GREYS[0])


def add_boundary(street, side, kerb, walk):
    """A wall, a bank of grass, a fence or a guard rail along one side of the road, in straight pieces."""
    rng, kind = street.rng, street.rng.choice(("wall", "bank", "fence", "rail"))
    lateral = kerb + (rng.uniform(0.3, 1) if kind == "rail" else walk * rng.uniform(0.5, 1.2))
    high = rng.uniform(*{"wall": (0.4, 3), "bank": (0.6, 5), "fence": (0.8, 2), "rail": (0.7, 0.7)}[kind])
    wide, piece = high * rng.uniform(1, 3), rng.uniform(4, 8)
    grass = dict(label=VEGETATION, colour=street.pick(scene.GRASS), tile=LEAVES, contrast=0.8)
    stone = dict(label=BUILDING, colour=street.pick(scene.WALLS), tile=rng.choice((GRAIN, STONES)))
    metal = dict(label=POLE, colour=street.pick(scene.GREYS + scene.DARK))
    for z in np.arange(rng.uniform(1, 20), rng.uniform(30, 110), piece):
        at, yaw = street.place(side * lateral, z)
        middle, thick = at + high / 2 * UP, 0.15 if kind == "rail" else 0.04
        if kind == "bank":
            half, slope = (wide / 2, high / 2, piece / 2 + 0.05), (-side, 1, 0, 0.0)
            street.box(street.place(side * (lateral + wide / 2), z)[0] + high / 2 * UP, half, yaw, [slope], **grass)
        elif kind == "wall":
            street.box(middle, (0.15, high / 2, piece / 2), yaw, **stone)
        else:
            street.box(middle, (0.05, high / 2, 0.05), yaw, POST, **metal)
            for level in (high,) if kind == "rail" else (high, 0.45 * high):
                street.box(at + (level - thick) * UP, (0.03, thick, piece / 2), yaw, **metal)


def add_thing(street, lateral, z):
    """One to three solids on top of each other, of any shape, look and direction."""
    rng, (at, _) = street.rng, street.place(lateral, z)
    size = np.exp(rng.uniform(np.log(0.12), np.log(1.5), 3))
    for _ in range(rng.integers(1, 4)):
        look = dict(colour=street.pick(COLOURS), contrast=rng.uniform(0.05, 0.9), label=BUILDING)
        look |= dict(tile=rng.choice((GRAIN, CLOUDS, LEAVES, STONES)), scale=np.exp(rng.uniform(2, 4.8)))
        if rng.random() < 0.3:
            street.ellipsoid(at + size[1] * UP, size, **look)
        else:
            cuts = [(*rng.normal(0, 1, 3), rng.uniform(0.9, 1.8)) for _ in range(rng.integers(0, 3))]
            look |= dict(kind=rng.choice((PLAIN, FACADE), p=(0.8, 0.2)), gloss=rng.choice((0.0, 0.3)))
            street.box(at + size[1] * UP, size, rng.uniform(0, np.pi), cuts, **look)
        at, size = at + 2 * size[1] * UP, size * rng.uniform(0.4, 1, 3)
