"""How the surfaces of a street look: their paint and the light on them."""

import numpy as np

from monodepth_nb.streets.raycast import END, TOP, dot, sunlit
from monodepth_nb.streets.scene import BODY, CABIN, FACADE, GREYS, GROUND, ROAD, SIDEWALK, SKY, VEGETATION
from monodepth_nb.streets.textures import CLOUDS, GRAIN, LEAVES, band, look_up, stripes

# ---- Paint ----
# A painter takes the street, faces, coordinates on the surface and the size of a pixel along them, all (N,). It returns
# the parts of the look that differ from the solid's own.


def _mix(colour, other, share):
    """Blend (3, N) or (3,) colours by a share in [0, 1] per point."""
    colour, other = (np.float32(c).reshape(3, -1) for c in (colour, other))
    return colour + (other - colour) * share


def paint_ground(street, face, x, z, foot_x, foot_z):
    """Road with its markings, kerb, pavement and verge."""
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
    """Windows in bays and storeys, each with its own tone, on the upright faces."""
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
    """Lights at both ends, red on two of three cars, and a black sill."""
    (half, tall), end = street.faces["half"][face].T, street.faces["facing"][face] == END
    lamp = band(np.abs(s), 0.66 * half, 0.95 * half, foot_s) * band(t, 0.5 * tall, 0.9 * tall, foot_t) * end
    red = street.faces["owner"][face] % 3 > 0
    colour = _mix(street.faces["colour"][face].T, GREYS[0], band(t, -9, 0.12, foot_t))
    return dict(colour=_mix(colour, np.where(red, [[0.3], [0.01], [0.01]], 0.6), lamp), gloss=0.12 * (1 - lamp))


PAINTERS = {GROUND: paint_ground, FACADE: paint_facade, BODY: paint_body, CABIN: paint_cabin}


def _look(street, face, *place):
    """The look at every hit: that of its solid, then what the painter of its kind changes."""
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
    """Radiance (3, N) of the sky: gradient, clouds and the glare of the sun."""
    length = np.sqrt(dot(ray, ray))
    up = np.maximum(ray[1] / length, 0)
    spread = 50 / (up + 0.2) / length
    noise = look_up(street.bank, CLOUDS, ray[0] * spread, ray[2] * spread, np.float32(1))
    clouds = np.clip(0.5 * (noise - street.clouds), 0, 0.9)
    glare = street.glare * np.exp(60 * (dot(ray, np.float32(street.sun)) / length - 1))
    return _mix(_mix(street.haze, street.zenith, np.sqrt(up)), (1.25, 1.25, 1.25), clouds) + glare


def mirrored(street, ray, normal):
    """Reflection in a shiny surface, (3, N), and its share of the light: the sky above a dark, uneven skyline.

    It depends on direction alone and so moves over the surface with the viewpoint: brightness is not constant.
    """
    facing, length = dot(normal, ray), np.sqrt(dot(ray, ray))
    ray = [r - 2 * facing * n for r, n in zip(ray, normal, strict=True)]
    around = 200 * ray[0] / (np.abs(ray[0]) + np.abs(ray[2]) + 1e-6)
    noise = look_up(street.bank, CLOUDS, around, np.sign(ray[2]) * 40, np.float32(1))
    hidden = np.clip((0.22 + 0.1 * noise - ray[1] / length) * 20, 0, 1)
    fresnel = 0.06 + 0.94 * (1 - np.minimum(np.abs(facing) / length, 1)) ** 5  # after Schlick
    return _mix(sky_colour(street, ray), 0.12 * street.skylight, hidden), fresnel


def shade(street, camera, y, x, depth, face):
    """Radiance (3, N) of N rays that hit something, and the look there, with `label`, `paint` and `gloss`."""
    ray, point = camera.trace(y, x, depth)
    normal, s, t, foot_s, foot_t = street.surface(camera, ray, point, depth, face)
    look = _look(street, face, s, t, foot_s, foot_t)
    scale, phase = street.faces["scale"][face], street.faces["phase"][face].T
    # Along a row textures must be filtered in full, or the two views would differ; along a column both alias alike.
    foot = np.sqrt(foot_s * np.maximum(foot_s, foot_t))
    detail = look_up(street.bank, look["tile"], s * scale + phase[0], t * scale + phase[1], scale * foot)
    stain = look_up(street.bank, GRAIN, s * 16 + phase[1], t * 16 + phase[0], 16 * foot)
    colour = look["colour"] * np.maximum(1 + look["contrast"] * (detail + 0.3 * stain), 0.1)
    sun = np.maximum(dot(normal, np.float32(street.sun)), 0) * sunlit(street.shadow, point)
    low = np.where(face > 0, np.clip(0.55 + 0.45 * point[1], 0.55, 1), 1)  # less sky is seen from near the ground
    sky = (0.6 + 0.4 * normal[1]) * low
    radiance = colour * np.float32(np.outer(street.sunlight, sun) + np.outer(street.skylight, sky))
    shiny = np.flatnonzero(look["gloss"] > 0.01)
    image, share = mirrored(street, [r[shiny] for r in ray], normal[:, shiny])
    radiance[:, shiny] = _mix(radiance[:, shiny], image, look["gloss"][shiny] * share)
    return radiance, look


def radiance(street, camera, y, x, inverse, face):
    """Radiance of N rays, (3, N), and their (label, paint, gloss), (3, N); inverse and face as from `cast`."""
    image, maps = np.empty((3, len(face)), np.float32), np.zeros((3, len(face)), np.float32)
    hit, miss = np.flatnonzero(face >= 0), np.flatnonzero(face < 0)
    image[:, miss], maps[0, miss] = sky_colour(street, camera.trace(y[miss], x[miss], 0)[0]), SKY
    image[:, hit], look = shade(street, camera, y[hit], x[hit], 1 / inverse[hit], face[hit])
    maps[:, hit] = look["label"], look["paint"], look["gloss"]
    return image, maps
