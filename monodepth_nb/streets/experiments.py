"""Streets with a single car, moved as no real car moves, to find out what a network reads distance from.

After van Dijk and de Croon (ICCV 2019), who pasted cars into photographs. Here they are moved in three dimensions, so
that occlusion, shadow and the true distance follow.
"""

import copy
from functools import lru_cache
from types import SimpleNamespace

import numpy as np
import torch

from monodepth_nb.data.sample import Sample
from monodepth_nb.streets.raycast import UP
from monodepth_nb.streets.rendering import BASELINE_M, build_street, complete, look_ahead
from monodepth_nb.streets.scene import CAR, Street, add_car


def one_car_street(seed, distance_m=12.0, lift_m=0.0, scale=1.0, pitch=0.0, shadow=True, size=(128, 256)) -> Sample:
    """The left view of a street whose own cars are gone, with one car ahead in the camera's lane.

    seed:       as of `build_street`; it also decides what the car looks like
    distance_m: along the road, from the camera to the rear of the car
    lift_m:     height of its wheels above the road
    scale:      of the car, about the point on the road below its rear
    pitch:      upward turn of the camera in radians, added to the street's own
    shadow:     whether the car casts one
    returns:    Sample(left, name, disparity_px, focal_px, baseline_m, car, height_m); `car`: (H, W) bool, its pixels;
                `height_m`: of the camera above the road
    """
    empty = _without_cars(seed)
    street = copy.copy(empty)
    street.solids, street.rows, street.rng = street.solids[:], street.rows[:], np.random.default_rng(seed)
    _add_moved_car(street, seed, distance_m, lift_m, scale)
    complete(street)
    if not shadow:
        street.shadow = empty.shadow
    forward, origin = street.pose
    street.pose = forward + np.tan(pitch) * UP, origin
    camera, _, picture, inverse, classes, *_ = look_ahead(street, size)
    disparity_px = np.where(inverse > 0, camera.focal[1] * BASELINE_M * inverse, np.nan)
    return Sample(
        left=torch.from_numpy(picture).permute(2, 0, 1) / 255, name=f"street {seed}",
        disparity_px=torch.from_numpy(disparity_px), focal_px=camera.focal[1], baseline_m=BASELINE_M,
        car=classes == CAR, height_m=origin[1],
    )  # fmt: skip


@lru_cache(maxsize=1)  # one street is looked at many times
def _without_cars(seed):
    street = build_street(seed)
    street.solids = [solid for solid in street.solids if street.faces["label"][solid.face] != CAR]
    complete(street)
    return street


def _add_moved_car(street, seed, distance_m, lift_m, scale):
    """`add_car` with its boxes scaled and moved."""
    boxes = []
    maker = SimpleNamespace(rng=np.random.default_rng(seed), place=street.place)
    maker.pick = lambda colours: Street.pick(maker, colours)
    maker.box = lambda centre, half, *shape, **look: boxes.append((np.array(centre), np.array(half), shape, look))
    add_car(maker, street.pose[1][0], distance_m, oncoming=False)
    (x, _, z), half, *_ = boxes[0]  # the body, the longest
    rear, target = np.array((x, 0, z - half[2])), np.array((x, lift_m, distance_m))
    for centre, half, shape, look in boxes:
        street.box(target + scale * (centre - rear), scale * half, *shape, **look)
