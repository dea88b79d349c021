"""
Intervals and tests over few values, one for each split, as both studies use them.
"""

import numpy as np
from scipy import stats

from common.statistics import bootstrap_means, wilson


def interval(values):
    """95% interval of the mean of a Series: Wilson's if it holds True and False, else that of a bootstrap.

    It is a percentile interval; the bootstrap draws 10,000 samples of the values, the same whenever it is asked. NaN
    for a single number.
    """
    if values.dtype == bool:
        return wilson(values)
    if len(values) < 2:
        return np.nan, np.nan
    return tuple(np.percentile(bootstrap_means(values.to_numpy(float), np.random.default_rng(0)), [2.5, 97.5]))


def mean_row(name, values, **columns):
    """A row of numbers.csv: the mean of a Series, with its interval and how many values there are."""
    low, high = interval(values) if len(values) else (np.nan, np.nan)
    return dict(name=name, value=values.mean(), low=low, high=high, n=len(values)) | columns


def errors_dealt_anew(predicted, right):
    """The errors if each prediction had been given to all the other questions: predicted[i] - right[j] for all i != j.

    predicted, right: arrays (n,) of numbers, NaN where none was predicted. Returns a vector.
    """
    return (predicted[:, None] - right)[~np.eye(len(predicted), dtype=bool)]


def dealt_anew_within(answers, by):
    """errors_dealt_anew of each group of answers (their columns right_number and error), as one vector. by: columns."""
    answers = answers.assign(predicted=answers.right_number + answers.error)
    return np.concatenate([errors_dealt_anew(*group[['predicted', 'right_number']].to_numpy().T)
                           for _, group in answers.groupby(by)])


def page(blocks):
    """Page's test that values grow from the first column to the last: (mean rank correlation, p-value), one-sided.

    blocks: array (n_blocks, n_columns). The correlation is -1 to 1, and positive if they grow. Ties make the p-value
    too large. Both are NaN if there are less than two blocks or three columns.
    """
    n, k = blocks.shape
    if n < 2 or k < 3:
        return np.nan, np.nan
    result = stats.page_trend_test(blocks, method='exact')
    return 12 * result.statistic / (n * k * (k * k - 1)) - 3 * (k + 1) / (k - 1), result.pvalue


def sign_flips(differences, alternative='two-sided'):
    """p-value of the mean of paired differences among all ways to flip their signs; NaN for less than two.

    alternative: 'greater' asks how many ways have a mean as large; 'two-sided' counts the smaller side twice.
    """
    if len(differences) < 2:
        return np.nan
    return stats.permutation_test((differences,), np.mean, permutation_type='samples', n_resamples=np.inf,
                                  alternative=alternative).pvalue


def sign_test(differences):
    """Two-sided p-value of the sign test, without differences of zero; NaN if there are no others."""
    up, down = int((differences > 0).sum()), int((differences < 0).sum())
    return stats.binomtest(up, up + down).pvalue if up + down else np.nan


def holm(p_values):
    """Holm's adjusted p-values of a family of tests: an array. A test that could not be made, NaN, still counts."""
    p = np.asarray(p_values, dtype=float)
    order = p.argsort()  # NaN comes last
    adjusted = np.maximum.accumulate(np.minimum(p[order] * np.arange(len(p), 0, -1), 1))
    return adjusted[order.argsort()]


def family(tests):
    """The rows of a family of tests, with Holm's p_holm."""
    return [test | {'p_holm': p} for test, p in zip(tests, holm([test['p'] for test in tests]))]
