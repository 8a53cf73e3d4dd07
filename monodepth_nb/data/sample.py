"""What a data set yields: one rectified stereo pair and everything known about it."""


class Sample(dict):
    """A stereo pair as a dictionary whose entries also read as attributes (`sample.left`).

    PyTorch's own `default_collate` batches it, because it is a dictionary. Entries of every sample:

    left, right   (3, H, W) float32, RGB in [0, 1]; the same scene from two cameras on one horizontal line
    name          str, for messages and tables

    with ground truth:

    disparity_px  (H_full, W_full) float32, left view, in pixels of the full-size image; NaN = unknown
    focal_px      float, focal length in pixels of the full-size image
    baseline_m    float, distance between the cameras in metres
    doffs_px      float, of the motorcycle pair only: see `motorcycle`

    of rendered streets, all (H_full, W_full): `classes` (uint8 ids), `lane_paint` and `shiny` (bool), and
    `disparity_right_px` (float32, of the right view);

    for training on known disparity (see matching.py):

    disparity     (2, H, W) float32, left view first, in fractions of the image width; 0 or less = not to be learnt
    """

    def __getattr__(self, key):
        try:
            return self[key]
        except KeyError:
            raise AttributeError(f"this sample has no {key!r}; it has {', '.join(self)}") from None
