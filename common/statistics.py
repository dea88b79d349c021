"""Intervals and tests over few values, one for each seed of a sweep."""

import numpy as np
from scipy import stats


def wilson(values):
    """Wilson's 95% interval of the fraction of values that are 1 or True, which suits small counts."""
    return tuple(stats.binomtest(int(values.sum()), len(values)).proportion_ci(method='wilson'))


def bootstrap_means(values, rng):
    """The means of 10,000 bootstrap samples of some values."""
    return rng.choice(values, (10_000, len(values))).mean(axis=1)


def difference(a, b):
    """The mean of a minus that of b: (value, low, high, p), with its 95% interval and a two-sided permutation test.

    a, b: values of independent seeds. The interval is the percentile interval of 10,000 bootstrap samples of both, from
    a fixed seed. The test is exact up to a million permutations, of which it otherwise draws a million.
    """
    def means(x, y, axis):
        return x.mean(axis=axis) - y.mean(axis=axis)
    a, b = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    rng = np.random.default_rng(0)
    low, high = np.percentile(bootstrap_means(a, rng) - bootstrap_means(b, rng), [2.5, 97.5])
    p = stats.permutation_test((a, b), means, vectorized=True, n_resamples=1_000_000, batch=100_000, rng=rng).pvalue
    return a.mean() - b.mean(), low, high, p


def seeds_interval(metric, values):
    """95% interval of the mean of a metric over seeds: (low, high), NaN for Student's t of a single seed.

    Fractions of the seeds (*_all_*) get Wilson's. Everything else gets Student's t, clipped to what is possible: 0 to 1
    for accuracies and probabilities, at least 0 for losses and iterations.
    """
    if metric.startswith(('final_all_', 'ever_all_')) and not metric.endswith('_acc'):  # 1 or 0 for each seed
        return wilson(values)
    mean, half = values.mean(), stats.t.ppf(0.975, len(values) - 1) * values.sem()  # sem is NaN for a single seed
    return tuple(np.clip([mean - half, mean + half], 0, 1 if metric.endswith(('_acc', '_prob')) else None))
