"""Textures free of aliasing: mip-mapped noise read at the pixel's footprint, and stripes averaged over it exactly."""

from functools import lru_cache

import numpy as np

TILE = 256  # texels
GRAIN, CLOUDS, LEAVES, STONES = range(4)
LEVELS = int(np.log2(TILE))  # mip levels: 256, 128, ... 2 texels wide
LEVEL_START = np.concatenate(([0], np.cumsum(4 ** np.arange(LEVELS, 0, -1)))).astype(np.int32)


def _octave(rng, blur):
    """Noise blurred by `blur` texels that tiles without a seam, with zero mean and unit deviation."""
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
    """The tiles and all their mip levels in one flat float32 array; unit deviation at the finest level."""
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
    """Interpolate `value(i, j)`, defined at integers, at (row, column)."""
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
