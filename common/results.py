"""
Reads the results.csv of one run or of a whole sweep, and says what was found: means and 95 % intervals over the seeds.

A sweep is a folder of CONFIG/seed_N model folders, as sweep.py makes it, or a copy of its results in one table with the
columns config and seed, results.csv.gz, as summarize.py --output makes it.
"""

import csv
import re
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from common.errors import UserError, explained

COPY = 'results.csv.gz'
# the columns of the authors' own results.csv, which are all that a file needs
CLASSIC_COLUMNS = ('iter add_correct add_total sub_correct sub_total math_acc facts_correct facts_total facts_acc '
                   'train_loss val_loss').split()


def read_results(folder):
    """The rows of a model folder as a DataFrame of float: of temp.csv while the run goes on, else of results.csv.

    The eleven classic columns are enough. n_params is NaN if the file is too old to have it.
    """
    path = Path(folder, 'temp.csv' if Path(folder, 'temp.csv').exists() else 'results.csv')
    if not path.exists():
        raise UserError(f"no results.csv in {folder}: check its name, or train it with train_with_eval.py first")
    with explained(f"{path} cannot be read ({{}}): train again, or wait for the first evaluation"):
        lines = path.read_text(encoding='utf-8').splitlines() or ['']
        header, last = csv.reader([lines[0], lines[-1]])
        if len(last) < len(header):
            raise UserError(f"{path} is cut off in its last line: delete that line, or train again")
        return check_rows(pd.read_csv(path) if lines[0] else pd.DataFrame())


def check_rows(results):
    """A run's rows as float, with n_params; raises ValueError if train_with_eval.py did not write them."""
    if results.empty:
        raise ValueError("it has no rows" if len(results.columns) else "it is empty")
    missing = [column for column in CLASSIC_COLUMNS if column not in results]
    if missing:
        raise ValueError(f"it has no column {missing[0]}, so train_with_eval.py did not write it")
    results = results.assign(n_params=results.get('n_params', float('nan'))).astype(float)
    if not results.iter.abs().lt(2**53).all():
        raise ValueError("it has an iteration that is not a number")
    return results


def own_tasks(results):
    """The tasks of a results.csv that are not the paper's: list of str."""
    tasks = [column.removesuffix('_total') for column in results if column.endswith('_total')]
    return [task for task in tasks if task not in ('add', 'sub', 'facts', 'heldout', 'math')]


def seed_folders(folder):
    """The model folders seed_N of a config in a sweep, {N: path}, in the order of the seeds; {} for any other folder."""
    return dict(sorted((int(path.name[5:]), path) for path in Path(folder).glob('seed_*')
                       if path.name[5:].isdecimal() and path.is_dir()))


def read_seeds(folder):
    """The finished runs of a config: dict of seed to its read_results; {} if the folder does not belong to a config.

    Runs that are still going on, or have not reached the last iteration of the config's longest run, are left out.
    """
    runs = {seed: read_results(run) for seed, run in seed_folders(folder).items()
            if (run / 'results.csv').exists() and not (run / 'temp.csv').exists()}
    end = max((results.iter.iloc[-1] for results in runs.values()), default=0)
    return {seed: results for seed, results in runs.items() if results.iter.iloc[-1] == end}


def paper_order(config):
    """What to sort configs by, so that they are in the paper's order: by dataset, then by width, mlt last."""
    kinds = ['math', 'facts', 'both', kind := config.split('_')[0]]
    words = re.split(r'(\d+)', config)  # every second one is a number
    return kinds.index(kind), [int(word) if i % 2 else word for i, word in enumerate(words)]


def read_sweep(folder):
    """All finished runs of a sweep, {config: read_seeds}, in the order of paper_order."""
    if (Path(folder) / COPY).exists():
        return read_copy(Path(folder) / COPY)
    sweep = {}
    for path in sorted(Path(folder).glob('*'), key=lambda path: paper_order(path.name)):
        if runs := read_seeds(path):
            sweep[path.name] = runs
            for run in [run for seed, run in seed_folders(path).items() if seed not in runs]:
                print(f"left out: {run} has not reached the end of the others, or has diverged", file=sys.stderr)
    ends = {config: int(next(iter(runs.values())).iter.iloc[-1]) for config, runs in sweep.items()}
    for config in [config for config in ends if ends[config] < max(ends.values())]:
        print(f"{config} ends at iteration {ends[config]}, before others: have all its runs diverged?", file=sys.stderr)
    if not sweep:
        raise UserError(f"no runs in {folder}: it must hold CONFIG/seed_N/results.csv, as sweep.py makes them, or {COPY}")
    return sweep


def read_copy(path):
    """The runs of a results.csv.gz, like read_sweep's; a column that is empty for a run was not in its results.csv."""
    sweep = {}
    with explained(f"{path} cannot be read ({{}}): delete it, and write it again with summarize.py --output"):
        table = pd.read_csv(path, dtype={'config': str}).set_index(['config', 'seed'])
        if table.empty:
            raise ValueError("it has no rows")
        if table.index.to_frame().isna().any(axis=None):
            raise ValueError("it has rows without a config or a seed")
        iters = table.groupby(['config', 'seed'], sort=False)['iter']
        if not (iters.diff().dropna() > 0).all() or iters.max().groupby('config').nunique().max() > 1:
            raise ValueError("the iterations of a run do not grow, or the runs of a config end differently")
        for (config, seed), rows in table.groupby(['config', 'seed'], sort=False):
            there = rows.columns[rows.notna().any() | rows.columns.isin(CLASSIC_COLUMNS)]
            sweep.setdefault(config, {})[seed] = check_rows(rows[there].reset_index(drop=True))
    return sweep


def math_total(row):
    """How many samples of arithmetic were drawn in an evaluation. row: a row of results.csv, or a table of them."""
    return row['math_total'] if 'math_total' in row else row['add_total'] + row['sub_total']


def samples_drawn(row):
    """How many samples were drawn in an evaluation, of arithmetic and facts together; 0 if only the losses were estimated."""
    return math_total(row) + row['facts_total']


def samples_right(row):
    """How many of them were right."""
    return np.round(row['math_acc'] * math_total(row)) + row['facts_correct']


def measure(results):
    """What one run found: dict of metric to value. Accuracies and probabilities are fractions of 1; NaN means never.

    best is the first row with the most samples right, where those of sums and facts count alike. It is picked by the very
    score that is reported, so the score looks better than the model is, but the paper does the same.
    """
    final, best = results.iloc[-1], results.loc[samples_right(results).idxmax()]
    held_out, metrics = final.get('heldout_total', 0), {}
    asked = {'seen': samples_drawn(final) > held_out, 'heldout': held_out > 0, 'train': True}
    for when, row in (('final', final), ('best', best)):
        for task in ('add', 'sub', 'facts', 'heldout', *own_tasks(results)):
            if row.get(f'{task}_total', 0) > 0:
                metrics[f'{when}_{task}_acc'] = row[f'{task}_correct'] / row[f'{task}_total']
        seen_sums = row.add_total + row.sub_total - row.get('heldout_total', 0)
        if seen_sums > 0 and not own_tasks(results):  # then all that is held out is sums
            correct = row.add_correct + row.sub_correct - row.get('heldout_correct', 0)
            metrics[f'{when}_seen_sums_acc'] = correct / seen_sums
        for column in ('seen_acc', 'seen_prob', 'heldout_prob', 'train_loss'):
            if column in row and asked[column.split('_')[0]]:
                metrics[f'{when}_{column}'] = row[column]
    for group in ('seen', 'heldout'):
        if f'{group}_acc' in results and asked[group]:
            reached = results.iter[results[f'{group}_acc'] == 1.0]
            metrics[f'first_iter_all_{group}'] = reached.min()  # NaN if it never did
            metrics[f'final_all_{group}'] = float(final[f'{group}_acc'] == 1.0)
            metrics[f'ever_all_{group}'] = float(len(reached) > 0)
    return metrics


def summarize(sweep):
    """The summary of read_sweep's runs as a DataFrame, a row for each config and metric.

    Columns: config, n_params, iters (the iteration at which its runs end), metric, seeds (how many have it, because
    iterations that were never reached are left out), mean, std, low, high (95 % interval of the mean).
    """
    from common.statistics import seeds_interval  # scipy takes a second to import, and single runs are plotted without it
    rows = []
    for config, runs in sweep.items():
        everything, table = pd.concat(runs.values()), pd.DataFrame(map(measure, runs.values()))
        for metric, values in table.dropna(axis='columns', how='all').items():
            low, high = seeds_interval(metric, values.dropna())
            rows.append(dict(config=config, n_params=everything.n_params.max(), iters=int(everything.iter.max()), metric=metric,
                             seeds=values.count(), mean=values.mean(), std=values.std(), low=low, high=high))
    return pd.DataFrame(rows).astype({'n_params': 'Int64'})
