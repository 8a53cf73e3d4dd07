"""Rendered streets with exact ground truth, and a segmenter that is trained on them."""
