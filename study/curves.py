"""
Two widths that describe a curve of accuracies over the widths of models, as study/why.md defines them: that of the
fall and that of memory.

Curves are an array whose last axis is over the widths, so that many bootstrap samples go through the same rules at
once.
"""

import numpy as np

LEAST_MAXIMUM, MEMORY = 0.2, 0.8


def between(widths, curves, i, level):
    """The width between the one with index i and the one before, at which each curve is at the level: an array.

    Interpolated linearly in the logarithm of the width. i: an array of indices, one for each curve.
    """
    x, i = np.log(widths), np.maximum(i, 1)
    before, there = (np.take_along_axis(curves, k[..., None], axis=-1)[..., 0] for k in (i - 1, i))
    with np.errstate(divide='ignore', invalid='ignore'):  # where a curve never comes there
        return np.exp(x[i - 1] + (x[i] - x[i - 1]) * (level - before) / (there - before))


def width_of_fall(widths, curves, least_maximum=LEAST_MAXIMUM, fraction=0.5):
    """Where held-out accuracy comes down to a fraction of its maximum over the widths: the first place beyond that.

    NaN, which means undefined, if the maximum is too low or the widest model is above that. fraction: a number, or an
    array with one for each curve.
    """
    curves = np.asarray(curves, dtype=float)
    maximum, level = curves.max(axis=-1), curves.max(axis=-1) * fraction
    beyond = np.arange(len(widths)) > curves.argmax(axis=-1)[..., None]
    i = (beyond & (curves <= level[..., None])).argmax(axis=-1)  # the first of them
    defined = (maximum >= least_maximum) & (maximum > 0) & (curves[..., -1] <= level)
    return np.where(defined, between(widths, curves, i, level), np.nan)


def width_of_memory(widths, curves, level=MEMORY):
    """Where the accuracy on shuffled answers reaches a level; NaN, undefined, if never or from the start."""
    curves = np.asarray(curves, dtype=float)
    reached = curves >= level
    defined = reached.any(axis=-1) & ~reached[..., 0]
    return np.where(defined, between(widths, curves, reached.argmax(axis=-1), level), np.nan)


def accuracy_at(width, widths, curve):
    """The accuracy of one curve at a width, interpolated in the logarithm of the width."""
    return float(np.interp(np.log(width), np.log(widths), curve))


def resampled_means(table, rng, samples=10_000):
    """The mean curves of bootstrap samples of splits or seeds: an array (samples, widths). table: (splits, widths).

    NaN for a single split: all samples would be the same, and their interval would have no width.
    """
    means = table[rng.integers(len(table), size=(samples, len(table)))].mean(axis=1)
    return means if len(table) > 1 else np.full_like(means, np.nan)
