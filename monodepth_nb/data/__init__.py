"""Stereo pairs: from files to batches."""
