"""
The runs of the second study (study/why.md): which were planned, and what the committed files say that they answered.
"""

from pathlib import Path
from typing import NamedTuple

import pandas as pd

from common.answers import read_answers
from common.errors import UserError, explained
from study.datasets import ALL_EXAMPLES, EXAMPLES, MORE_EXAMPLES
from study.runs import FIRST_SEED, varied_settings


class Sweep(NamedTuple):
    """One part of study/why.sh. settings: those that all its runs share, which its labels leave out."""
    experiment: str
    runs: int
    iters: int
    settings: dict


SWEEPS = {
    'why_order': Sweep('A', 64, 30_000, {'dataset': 'one_order'}),
    'why_base': Sweep('B', 320, 30_000, {}),
    'why_shuffled': Sweep('B', 160, 30_000, {}),
    'why_fewer_passes': Sweep('B', 24, 4_800, {'dataset': 'base_8'}),
    'why_more_passes': Sweep('B', 24, 60_000, {'dataset': 'base_20'}),
    'why_load_20': Sweep('C', 48, 67_500, {'n_embd': '20'}),
    'why_load_28': Sweep('C', 48, 105_000, {'n_embd': '28'}),
    'why_time': Sweep('D', 48, 300_000, {'dataset': 'rounds_2'}),
    'why_examples': Sweep('E', 96, 30_000, {})}
SWEEPS |= {f'why_examples_{n}': Sweep('E', 24, 30_000 * n // ALL_EXAMPLES, {'dataset': f'examples_{n}_none'})
           for n in EXAMPLES + MORE_EXAMPLES}
COLUMNS = ['experiment', 'name', 'condition', 'n_embd', 'unit', 'value', 'low', 'high', 'n', 'p', 'p_holm', 'test',
           'verdict']


def read_runs(folder, name):
    """What the runs of a sweep answered, with the columns n_embd, dataset, weight_decay and split; None for no runs.

    folder: the one that holds why_order and the others. Raises UserError if they do not end where it was planned.
    """
    path = Path(folder) / name
    if not path.exists():
        return None
    answers, sweep = read_answers(path), SWEEPS[name]
    answers = answers.astype({'when': str})  # 30000 is an iteration's name here
    ends = answers.iter[answers.when == 'last'].unique().tolist()
    if ends != [sweep.iters]:
        raise UserError(f"the runs in {path} end at {ends}, not at {sweep.iters}: write it with summarize.py --output "
                        "when they are finished")
    return with_settings(answers, path, sweep)


def with_settings(table, path, sweep):
    """A table of runs with the columns n_embd, dataset, weight_decay and split, from its columns config and seed."""
    with explained(f"{path} holds a run that is not of the plan ({{}}): write it again with study/why.sh save"):
        settings = {config: {'weight_decay': '0', **sweep.settings, **varied_settings(config)}
                    for config in table.config.unique()}
        columns = {key: [settings[config][key] for config in table.config]
                   for key in ('n_embd', 'dataset', 'weight_decay')}
        return table.assign(split=table.seed.astype(int) - FIRST_SEED, **columns).astype(
            {'n_embd': int, 'weight_decay': float})


def read_results(folder, name):
    """The rows of the results.csv of a sweep's runs, with the columns that read_runs adds; None for no runs."""
    path = Path(folder) / name
    if not path.exists():
        return None
    with explained(f"{path}/results.csv.gz cannot be read ({{}}): write it again with study/why.sh save"):
        results = pd.read_csv(path / 'results.csv.gz')[['config', 'seed', 'iter', 'heldout_acc', 'seen_acc']]
    return with_settings(results, path, SWEEPS[name])


def measure_each(answers, run_of, measure_run):
    """A DataFrame with a row for each run: the columns run_of, which tell runs apart, and what measure_run gives."""
    return pd.DataFrame([dict(zip(run_of, run)) | measure_run(table) for run, table in answers.groupby(run_of)])


def counts(runs):
    """How many runs of each sweep are there (value) of those planned (n): rows of numbers.csv. runs: by name."""
    there = {name: 0 if answers is None else len(answers[['config', 'seed']].drop_duplicates())
             for name, answers in runs.items()}
    return [dict(experiment=sweep.experiment, name='runs', condition=name, unit='runs', n=sweep.runs, value=there[name])
            for name, sweep in SWEEPS.items()]
