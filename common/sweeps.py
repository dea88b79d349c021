"""Reads the runs of a sweep, and computes means and 95% intervals over the seeds.

A sweep is a folder of CONFIG/seed_N model folders, as sweep.py makes it, or a copy of its results in one table with the
columns config and seed, results.csv.gz, as summarize.py --output makes it.
"""

import os
import re
import sys
from pathlib import Path

import pandas as pd

from common.errors import UserError, explained
from common.results import (CLASSIC_COLUMNS, COPIED_RESULTS, accuracy, check_rows, other_tasks, read_results,
                            samples_drawn, samples_right)


def seed_folders(folder):
    """The model folders seed_N of a config in a sweep, {N: path}, by seed; {} for any other folder."""
    return dict(sorted((int(path.name[5:]), path) for path in Path(folder).glob('seed_*')
                       if path.name[5:].isdecimal() and path.is_dir()))


def read_seeds(folder):
    """The runs of a config that have reached the end of its longest, {seed: read_results}; {} for any other folder."""
    runs = {seed: read_results(run) for seed, run in seed_folders(folder).items()
            if (run / 'results.csv').exists() and not (run / 'temp.csv').exists()}
    end = max((results.iter.iloc[-1] for results in runs.values()), default=0)
    return {seed: results for seed, results in runs.items() if results.iter.iloc[-1] == end}


def tell_apart(folders):
    """Names of model folders: as many of the last parts of each path as tell them apart, CONFIG/seed_N in a sweep."""
    paths = [Path(os.path.abspath(folder)) for folder in folders]  # a link keeps its name
    n = 2 if any(path in seed_folders(path.parent).values() for path in paths) else 1
    while len({path.parts[-n:] for path in paths}) < len({*paths}):
        n += 1
    return ['/'.join(path.parts[-n:]) for path in paths]


def paper_order(config):
    """What to sort configs by, so that they are in the paper's order: by dataset, then by width, mlt last."""
    words = re.split(r'(\d+)', config)  # every second one is a number
    return ({'math': 0, 'facts': 1, 'both': 2}.get(config.split('_')[0], 3),
            [int(word) if i % 2 else word for i, word in enumerate(words)])


def read_sweep(folder):
    """All finished runs of a sweep, {config: read_seeds}, in the order of paper_order."""
    if (Path(folder) / COPIED_RESULTS).exists():
        return read_copy(Path(folder) / COPIED_RESULTS)
    sweep, ends = {}, {}
    for path in sorted(Path(folder).glob('*'), key=lambda path: paper_order(path.name)):
        if runs := read_seeds(path):
            sweep[path.name] = runs
            end = ends[path.name] = int(next(iter(runs.values())).iter.iloc[-1])
            for run in [run for seed, run in seed_folders(path).items() if seed not in runs]:
                print(f"left out {run}: it stops before iteration {end:,}; resume it, or see {run}.log",
                      file=sys.stderr)
        elif seed_folders(path):
            print(f"left out {path}: none of its runs has finished; resume them, or see {path}/seed_*.log",
                  file=sys.stderr)
    for config, end in ends.items():
        if end < max(ends.values()):
            print(f"{config} ends at iteration {end:,}, others at {max(ends.values()):,}", file=sys.stderr)
    if not sweep:
        is_run = any(Path(folder, name).exists() for name in ('results.csv', 'temp.csv'))
        raise UserError(f"{folder} is a model folder, which plot_results.py --model_folder draws" if is_run else
                        f"no runs in {folder}: it must hold CONFIG/seed_N/results.csv, as sweep.py makes them, or "
                        f"{COPIED_RESULTS}")
    return sweep


def read_copy(path):
    """The runs of a results.csv.gz, like read_sweep's; a column that is empty for a run was not in its results.csv."""
    sweep = {}
    with explained(f"{path} cannot be read ({{}}): delete it, and write it again with summarize.py --output"):
        table = pd.read_csv(path, dtype={'config': str})
        if table.empty:
            raise ValueError("it has no rows")
        if table[['config', 'seed']].isna().any(axis=None):
            raise ValueError("it has rows without a config or a seed")
        if table.groupby(['config', 'seed'])['iter'].max().groupby('config').nunique().max() > 1:
            raise ValueError("the runs of a config end differently")
        for (config, seed), rows in table.groupby(['config', 'seed'], sort=False):
            there = rows.columns[rows.notna().any() | rows.columns.isin(CLASSIC_COLUMNS)].drop(['config', 'seed'])
            sweep.setdefault(config, {})[seed] = check_rows(rows[there].reset_index(drop=True))
    return sweep


def measure(results):
    """What one run found: dict of metric to value. Accuracies and probabilities are fractions of 1; NaN means never.

    best is the first row with the most samples right, where those of arithmetic and facts count alike. It is picked by
    the very score that is reported, so the score looks better than the model is, but the paper does the same.
    """
    final, best = results.iloc[-1], results.loc[samples_right(results).idxmax()]
    held_out, metrics = final.get('heldout_total', 0), {}
    evaluated = {'seen': samples_drawn(final) > held_out, 'heldout': held_out > 0, 'train': True}
    for when, row in (('final', final), ('best', best)):
        for task in ('add', 'sub', 'facts', 'heldout', *other_tasks(results)):
            if row.get(f'{task}_total', 0) > 0:
                metrics[f'{when}_{task}_acc'] = accuracy(row, task)
        seen_sums = row.add_total + row.sub_total - row.get('heldout_total', 0)
        if seen_sums > 0 and not other_tasks(results):  # then all that is held out is arithmetic
            correct = row.add_correct + row.sub_correct - row.get('heldout_correct', 0)
            metrics[f'{when}_seen_sums_acc'] = correct / seen_sums
        for column in ('seen_acc', 'seen_prob', 'heldout_prob', 'train_loss'):
            if column in row and evaluated[column.split('_')[0]]:
                metrics[f'{when}_{column}'] = row[column]
    for group in ('seen', 'heldout'):
        if f'{group}_acc' in results and evaluated[group]:
            reached = results.iter[results[f'{group}_acc'] == 1.0]
            metrics[f'first_iter_all_{group}'] = reached.min()  # NaN if it never did
            metrics[f'final_all_{group}'] = float(final[f'{group}_acc'] == 1.0)
            metrics[f'ever_all_{group}'] = float(len(reached) > 0)
    return metrics


def summarize(sweep):
    """The summary of read_sweep's runs as a DataFrame, a row for each config and metric.

    Columns: config, n_params, iters (the final iteration), metric, seeds (how many have it: iterations that were never
    reached are left out), mean, std, low, high (95% interval of the mean).
    """
    from common.statistics import seeds_interval  # scipy takes a second to import; single runs are plotted without it
    rows = []
    for config, runs in sweep.items():
        everything, table = pd.concat(runs.values()), pd.DataFrame(map(measure, runs.values()))
        for metric, values in table.dropna(axis='columns', how='all').items():
            low, high = seeds_interval(metric, values.dropna())
            rows.append(dict(config=config, n_params=everything.n_params.max(), iters=int(everything.iter.max()),
                             metric=metric, seeds=values.count(), mean=values.mean(), std=values.std(), low=low,
                             high=high))
    return pd.DataFrame(rows).astype({'n_params': 'Int64'})
