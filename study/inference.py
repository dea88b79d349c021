"""
Intervals and tests over few values, one for each split, as both studies use them.
"""

import numpy as np
from scipy import stats

from common.statistics import bootstrap_means, wilson


def interval(values):
    """95 % interval of the mean of a Series: Wilson's if it holds True and False, else the percentile interval of a bootstrap.

    The bootstrap draws 10,000 samples of the values, the same whenever it is asked. NaN for a single number.
    """
    if values.dtype == bool:
        return wilson(values)
    if len(values) < 2:
        return np.nan, np.nan
    return tuple(np.percentile(bootstrap_means(values.to_numpy(float), np.random.default_rng(0)), [2.5, 97.5]))


def errors_by_chance(said, right):
    """The errors if each answer had been given to all the other questions: said[i] - right[j] for all i != j, a vector.

    said, right: arrays (n,) of numbers, NaN where none was said.
    """
    return (said[:, None] - right)[~np.eye(len(said), dtype=bool)]


def chance_within(answers, by):
    """errors_by_chance of each group of a table of answers that has their `error`, one after another. by: columns."""
    groups = answers.assign(number=answers.answer.astype(float)).groupby(by)
    return np.concatenate([errors_by_chance((group.number + group.error).to_numpy(), group.number.to_numpy())
                           for _, group in groups])


def page(blocks):
    """Page's test that values grow from the first column to the last: (mean rank correlation, p-value), one-sided.

    blocks: array (n_blocks, n_columns). The correlation is -1 to 1, and positive if they grow. Ties make the p-value too
    large. Both are NaN if there are less than two blocks or three columns.
    """
    n, k = blocks.shape
    if n < 2 or k < 3:
        return np.nan, np.nan
    result = stats.page_trend_test(blocks, method='exact')
    return 12 * result.statistic / (n * k * (k * k - 1)) - 3 * (k + 1) / (k - 1), result.pvalue


def sign_flips(differences):
    """Two-sided p-value of the mean of paired differences among all ways to flip their signs; NaN for less than two."""
    if len(differences) < 2:
        return np.nan
    return stats.permutation_test((differences,), np.mean, permutation_type='samples', n_resamples=np.inf).pvalue


def sign_test(differences):
    """Two-sided p-value of the sign test, without differences of zero; NaN if there are no others."""
    up, down = int((differences > 0).sum()), int((differences < 0).sum())
    return stats.binomtest(up, up + down).pvalue if up + down else np.nan


def holm(p_values):
    """Holm's adjusted p-values of a family of tests: an array. A test that could not be made, NaN, still counts as one."""
    p = np.asarray(p_values, dtype=float)
    order = p.argsort()  # NaN comes last
    adjusted = np.maximum.accumulate(np.minimum(p[order] * np.arange(len(p), 0, -1), 1))
    return adjusted[order.argsort()]
