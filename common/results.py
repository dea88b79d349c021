"""
Reads the results.csv of one run or of a whole sweep, and says what was found: means and 95 % intervals over the seeds.

A sweep is a folder of CONFIG/seed_N model folders, as sweep.py makes it.
"""

import os
import sys
from pathlib import Path

import pandas as pd

from common.errors import UserError, one_line

CLASSIC_COLUMNS = ('iter add_correct add_total sub_correct sub_total math_acc facts_correct facts_total facts_acc '
                   'train_loss val_loss').split()


def read_results(folder):
    """The rows of a model folder as a DataFrame of float: of temp.csv while the run goes on, else of results.csv.

    The eleven classic columns are enough. n_params is NaN if the file is too old to have it.
    """
    folder = Path(folder)
    if not os.path.isdir(folder):
        raise UserError(f"model folder {folder} not found: check its name, or train it with train_with_eval.py first")
    path = next((folder / name for name in ('temp.csv', 'results.csv') if (folder / name).exists()), None)
    if path is None:
        raise UserError(f"no results.csv in {folder}: train it with train_with_eval.py first")
    try:
        lines = path.read_text().splitlines()
        if lines and len(lines[-1].split(',')) < len(lines[0].split(',')):
            raise UserError(f"{path} is cut off in its last line: delete that line, or train again")
        results = pd.read_csv(path)
        missing = [column for column in CLASSIC_COLUMNS if column not in results]
        if missing:
            raise UserError(f"{path} has no column {missing[0]}: it is not a results.csv of train_with_eval.py")
        results = results.astype(float).assign(n_params=results.get('n_params', float('nan')))
    except (ValueError, OSError) as e:  # pandas' parser errors are ValueErrors
        reason = 'it is empty' if isinstance(e, pd.errors.EmptyDataError) else one_line(e)
        raise UserError(f"{path} cannot be read ({reason}): train again, or wait for the first evaluation")
    if not results.iter.abs().lt(2**53).all():
        raise UserError(f"{path} has an iteration that is not a number: train again")
    if results.empty:
        raise UserError(f"{path} has no rows: train again, or wait for the first evaluation")
    return results


def own_tasks(results):
    """The tasks of a results.csv that are not the paper's: list of str."""
    tasks = [column.removesuffix('_total') for column in results if column.endswith('_total')]
    return [task for task in tasks if task not in ('add', 'sub', 'facts', 'heldout', 'math')]


def seed_folders(folder):
    """The model folders seed_N of a config in a sweep, in the order of the seeds; [] for any other folder."""
    folders = [path for path in Path(folder).glob('seed_*') if path.name[5:].isdecimal() and path.is_dir()]
    return sorted(folders, key=lambda path: int(path.name[5:]))


def read_seeds(folder):
    """The finished runs of a config: dict of model folder to its read_results; {} if the folder does not belong to a config.

    Runs that are still going on, or have not reached the last iteration of the config's longest run, are left out.
    """
    runs = {run: read_results(run) for run in seed_folders(folder)
            if (run / 'results.csv').exists() and not (run / 'temp.csv').exists()}
    end = max((results.iter.iloc[-1] for results in runs.values()), default=0)
    return {run: results for run, results in runs.items() if results.iter.iloc[-1] == end}


def read_sweep(folder):
    """All finished runs of a sweep, {config: read_seeds}, in the paper's order: by dataset, then by width, mlt last."""
    def order(path):
        kind, _, size = path.name.rpartition('_')
        datasets = ['math', 'facts', 'both', kind.split('_')[0]]
        return datasets.index(kind.split('_')[0]), kind, int(size) if size.isdecimal() else 10**9, size
    sweep = {}
    for path in sorted(Path(folder).glob('*'), key=order):
        runs = read_seeds(path)
        if runs:
            sweep[path.name] = runs
            for run in [run for run in seed_folders(path) if run not in runs]:
                print(f"left out: {run} has not reached the end of the others, or has diverged", file=sys.stderr)
    if not sweep:
        raise UserError(f"no runs in {folder}: it must hold CONFIG/seed_N/results.csv, as sweep.py makes them")
    return sweep


def measure(results):
    """What one run found: dict of metric to value. Accuracies and probabilities are fractions of 1; NaN means never.

    best is the first row with the highest accuracy, or mean accuracy if a dataset has both sums and facts. It is picked
    by the very score that is reported, so the score looks better than the model is, but the paper does the same.
    """
    final, best = results.iloc[-1], results.loc[(results.math_acc + results.facts_acc).idxmax()]
    metrics = {}
    for when, row in (('final', final), ('best', best)):
        for task in ('add', 'sub', 'facts', 'heldout', *own_tasks(results)):
            if row.get(f'{task}_total', 0) > 0:
                metrics[f'{when}_{task}_acc'] = row[f'{task}_correct'] / row[f'{task}_total']
        asked = row.add_total + row.sub_total - row.get('heldout_total', 0)
        if asked > 0 and not own_tasks(results):  # then all that is held out is sums
            correct = row.add_correct + row.sub_correct - row.get('heldout_correct', 0)
            metrics[f'{when}_seen_sums_acc'] = correct / asked
        for column in ('seen_acc', 'seen_prob', 'heldout_prob', 'train_loss'):
            if column in row and (column != 'heldout_prob' or row.heldout_total > 0):
                metrics[f'{when}_{column}'] = row[column]
    for group in ('seen', 'heldout'):
        if f'{group}_acc' in results and (group != 'heldout' or final.heldout_total > 0):
            reached = results.iter[results[f'{group}_acc'] == 1.0]
            metrics[f'first_iter_all_{group}'] = reached.min()  # NaN if it never did
            metrics[f'final_all_{group}'] = float(final[f'{group}_acc'] == 1.0)
            metrics[f'ever_all_{group}'] = float(len(reached) > 0)
    return metrics


def interval(metric, values):
    """95 % interval of the mean of a metric over seeds: (low, high), NaN if there is only one seed, which cannot tell.

    Shares of seeds (*_all_*) get Wilson's, which suits small counts. Everything else gets Student's t, clipped to the
    possible range: 0 to 1 for accuracies and probabilities, and at least 0 for losses and iterations.
    """
    from scipy import stats  # takes a second to import, and single runs are plotted without it
    n, mean = len(values), values.mean()
    if metric.startswith(('final_all_', 'ever_all_')):  # 1 or 0 for each seed
        wilson = stats.binomtest(int(values.sum()), n).proportion_ci(method='wilson')
        return wilson.low, wilson.high
    if n < 2:
        return float('nan'), float('nan')
    half = stats.t.ppf(0.975, n - 1) * values.std() / n ** 0.5
    low, high = max(mean - half, 0.0), mean + half  # no metric is negative
    return low, min(high, 1.0) if metric.endswith(('_acc', '_prob')) else high


def summarize(sweep):
    """The summary of read_sweep's runs as a DataFrame, a row for each config and metric.

    Columns: config, n_params, iters (the iteration at which its runs end), metric, seeds (how many have it, because
    iterations that were never reached are left out), mean, std, low, high (95 % interval of the mean).
    """
    rows = []
    for config, runs in sweep.items():
        n_params, iters = pd.concat(runs.values()).n_params.max(), int(next(iter(runs.values())).iter.iloc[-1])
        table = pd.DataFrame(map(measure, runs.values()))
        for metric in table:
            values = table[metric].dropna()
            if len(values):
                low, high = interval(metric, values)
                rows.append(dict(config=config, n_params=n_params, iters=iters, metric=metric, seeds=len(values),
                                 mean=values.mean(), std=values.std(), low=low, high=high))
    return pd.DataFrame(rows).astype({'n_params': 'Int64'})
