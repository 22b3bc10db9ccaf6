"""Pixels of a split: training crops, kept evaluation pixels, batches decoded ahead."""
