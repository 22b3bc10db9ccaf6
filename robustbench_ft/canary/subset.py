"""A fixed subset of a split: the same images on every machine, in proportion to the classes."""

import hashlib

import numpy as np

from robustbench_ft.data import Split


def choose(split: Split, n: int) -> Split:
    """`n` images of a split (all where it has fewer), in split order.

    Images are put in order of label and, within a label, of the sha256 of their id; every (N / n)-th is taken. So each
    class has its share to within one image, and neither the layout of the data nor a seed decides.
    """
    if n >= len(split):
        return split
    keys = [hashlib.sha256(example.encode()).hexdigest() for example in split.ids]
    order = np.array(sorted(range(len(split)), key=lambda k: (split.labels[k], keys[k])), np.int64)
    taken = order[((np.arange(n) + 0.5) * len(split) / n).astype(np.int64)]
    return split.take(np.sort(taken))
