"""A row of results.csv: what it has, and what is computed from it. And the results.csv of a run."""

import io
from pathlib import Path

import numpy as np
import pandas as pd

from common.errors import UserError, explained

COPIED_RESULTS = 'results.csv.gz'  # of all runs of a sweep, as summarize.py --output writes it
# the columns of the authors' own results.csv, which are all that a file needs
CLASSIC_COLUMNS = ('iter add_correct add_total sub_correct sub_total math_acc facts_correct facts_total facts_acc '
                   'train_loss val_loss').split()


def read_results(folder):
    """The rows of a model folder as a DataFrame of float: of temp.csv while the run goes on, else of results.csv."""
    path = Path(folder, 'temp.csv' if Path(folder, 'temp.csv').exists() else 'results.csv')
    if not path.exists():
        is_sweep = any(Path(folder).glob('*/seed_*')) or Path(folder, COPIED_RESULTS).exists()
        remedy = ("it is a sweep, which plot_results.py --sweep draws" if is_sweep else
                  "check its name, or train it with train_with_eval.py first")
        raise UserError(f"no results.csv in {folder}: {remedy}")
    with explained(f"{path} cannot be read ({{}}): train again, or wait for the first evaluation"):
        content = path.read_bytes()  # once, because temp.csv may become results.csv at any time
        results = check_rows(pd.read_csv(io.BytesIO(content)))
        if not content.endswith(b'\n'):  # a number that is cut off is a number, too
            raise ValueError("its last line is cut off")
    return results


def check_rows(results):
    """A run's rows as float, with n_params, NaN if the file is too old to have it; ValueError if they are damaged."""
    if results.empty:
        raise ValueError("it has no rows")
    missing = [column for column in CLASSIC_COLUMNS if column not in results]
    if missing:
        raise ValueError(f"it has no column {missing[0]}, so train_with_eval.py did not write it")
    results = results.astype(float)
    # a run that an earlier version began may lack the other columns at first, but a line that is cut off lacks its last
    if not np.isfinite(results[CLASSIC_COLUMNS]).all(axis=None) or not np.isfinite(results.iloc[-1]).all():
        raise ValueError("numbers are missing in it")
    if not (results.iter.diff().dropna() > 0).all():
        raise ValueError("its iterations do not grow")
    return results.assign(n_params=results.get('n_params', float('nan')))


def other_tasks(results):
    """The tasks of a results.csv that are not the paper's."""
    tasks = [column.removesuffix('_total') for column in results if column.endswith('_total')]
    return [task for task in tasks if task not in ('add', 'sub', 'facts', 'heldout', 'math')]


def accuracy(row, *tasks):
    """The fraction of some tasks' samples that are right, together. row: as for math_total."""
    return sum(row[f'{task}_correct'] for task in tasks) / sum(row[f'{task}_total'] for task in tasks)


def math_total(row):
    """How many samples of arithmetic were drawn in an evaluation. row: a row of results.csv, or a table of them."""
    return row['math_total'] if 'math_total' in row else row['add_total'] + row['sub_total']


def samples_drawn(row):
    """How many samples were drawn, of arithmetic and facts together; 0 if only the losses were estimated."""
    return math_total(row) + row['facts_total']


def samples_right(row):
    """How many of them were right."""
    return np.round(row['math_acc'] * math_total(row)) + row['facts_correct']


def score_of(table):
    """The score of a graded table, or part of it, as a dict. correct and total count samples; 0.0 without questions."""
    correct, total = int(table.correct.sum()), int(table.samples.sum())
    return {'questions': len(table), 'questions_right': int(table.right.sum()), 'correct': correct, 'total': total,
            'acc': correct / max(total, 1), 'prob': float(table.prob.sum()) / max(len(table), 1)}


def results_row(iter_num, table, questions, train_loss, val_loss):
    """A row of results.csv, as a dict, from the graded table of questions; tasks other than the paper's come last."""
    is_math = np.array([q.kind == 'math' for q in questions], dtype=bool)
    others = [task for task in table.task.unique() if task not in ('add', 'sub', 'facts')]
    parts = {task: table[table.task == task] for task in ('add', 'sub', *others)}
    parts |= {'math': table[is_math], 'facts': table[~is_math], 'seen': table[table.group == 'seen'],
              'heldout': table[table.group == 'held out']}
    row = {f'{name}_{key}': value for name, part in parts.items() for key, value in score_of(part).items()}
    row |= {'iter': iter_num, 'train_loss': train_loss, 'val_loss': val_loss}
    later = ('seen_acc heldout_correct heldout_total heldout_acc seen_prob heldout_prob math_total math_prob '
             'facts_prob').split()
    columns = CLASSIC_COLUMNS + later + [f'{task}_{key}' for task in others for key in ('correct', 'total')]
    return {column: row[column] for column in columns}
