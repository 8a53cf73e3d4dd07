"""What a data set yields: one rectified stereo pair and everything known about it."""

import math


class Sample(dict):
    """A stereo pair as a dictionary whose entries also read as attributes (`sample.left`).

    PyTorch's own `default_collate` batches it, because it is a dictionary. Entries:

    left, right   (3, H, W) float32, RGB in [0, 1]; the same scene from two cameras on one horizontal line
    name          str, for messages and tables
    disparity     (2, H, W) float32, left view first, in fractions of the image width; 0 or less = not to be learnt.
                  Only for training on known disparity: see matching.py

    Ground truth, where there is any, belongs to the full-size left view:

    disparity_px  (H_full, W_full) float32, in pixels of that size; NaN = unknown
    focal_px      float, focal length in pixels of that size
    baseline_m    float, distance between the cameras in metres
    doffs_px      float, of the motorcycle pair only: see `motorcycle`
    classes, lane_paint, shiny, disparity_right_px: (H_full, W_full) uint8, bool, bool and float32, of rendered streets
    """

    def __getattr__(self, key):
        try:
            return self[key]
        except KeyError:
            raise AttributeError(f"this sample has no {key!r}; it has {', '.join(self)}") from None


def check_camera(focal_px: float, baseline_m: float) -> None:
    """Raises ValueError unless both are positive and finite."""
    if not (math.isfinite(focal_px * baseline_m) and focal_px > 0 and baseline_m > 0):
        camera = f"focal length {focal_px} px, baseline {baseline_m} m"
        raise ValueError(f"impossible camera ({camera}): pass pixels and metres, both larger than 0")
