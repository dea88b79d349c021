"""
The predictions of a run: answers.csv.gz in a model folder holds a graded table for each evaluation.

Its columns are iter and those of a graded table (common/evaluate.py). Each evaluation is a gzip member of its own.
"""

import gzip
import os
from pathlib import Path

import numpy as np
import pandas as pd

from common.dataset import PAPER_TERMINATORS, load_meta
from common.errors import UserError, explained
from common.files import append_file, size_of
from common.questions import is_right

ANSWERS = 'answers.csv.gz'
COLUMNS = 'iter task prompt answer group samples correct prob said'.split()
TEXTS = 'config when task prompt answer group said terminator'.split()


def add_verdicts(table, terminators):
    """A graded table with two more columns. terminators: of each question, or of all.

    right: the most frequent sample, `said`, is right. always_right: all samples are.
    """
    said = table.assign(terminator=terminators)[['answer', 'terminator', 'said']]
    right = np.array([is_right(*row) for row in said.to_numpy()], dtype=bool)
    return table.assign(right=right & (table.correct > 0), always_right=table.correct == table.samples)


def append_answers(iter_num, table, out_dir):
    """Append the graded table of the evaluation at iter_num to the model folder's answers."""
    if table.empty:
        return
    path = os.path.join(out_dir, ANSWERS)
    rows = table.assign(iter=iter_num)[COLUMNS].to_csv(index=False, header=not size_of(path), float_format='%.6g')
    append_file(path, gzip.compress(rows.encode(), mtime=0))


def read_answers(folder):
    """The answers of a model folder, or of a sweep's copy, as a DataFrame with terminators and add_verdicts' verdicts.

    The terminators are those of the folder's meta.pkl. A copy has a column of them.
    """
    path, meta_path = Path(folder) / ANSWERS, Path(folder) / 'meta.pkl'
    if not path.exists():
        raise UserError(f"no {ANSWERS} in {folder}: only a run of train_with_eval.py with full_eval writes one")
    with explained(f"{path} cannot be read ({{}}): it is damaged, so train again"):
        # lineterminator: a prediction may hold a carriage return, which pandas would take for the end of a line
        answers = pd.read_csv(path, keep_default_na=False, dtype=dict.fromkeys(TEXTS, str), lineterminator='\n')
        missing = [column for column in COLUMNS if column not in answers]
        if missing or answers.empty:
            raise ValueError(f"it has no column {missing[0]}" if missing else "it has no rows")
        answers = answers.astype({'iter': int, 'samples': int, 'correct': int, 'prob': float})
        if answers.prob.isna().any():
            raise ValueError("probabilities are missing in it")
    if 'config' not in answers:
        # a run that is resumed from a checkpoint of an earlier version, without sizes, has one evaluation twice
        answers = answers.drop_duplicates(['iter', 'task', 'prompt'], keep='last', ignore_index=True)
        of_task = PAPER_TERMINATORS
        if meta_path.exists():
            of_task = {q.task: q.terminator for q in load_meta(meta_path).questions}
        if unknown := {*answers.task} - of_task.keys():
            raise UserError(f"{path} has the task {min(unknown)!r}, which the dataset of {folder} lacks: it may belong "
                            "to another run")
        answers['terminator'] = answers.task.map(of_task)
    elif 'terminator' not in answers:  # of an earlier version: every number in it counts as arithmetic
        answers['terminator'] = '>'
    return add_verdicts(answers, answers.terminator)


def first_fit(answers):
    """The rows of the first evaluation at which 99 % of the training questions are right; none if there is none."""
    seen = answers[answers.group == 'seen']
    right = seen.right.groupby(seen.iter).mean()
    return answers[answers.iter == right.index[right >= 0.99].min()]  # of no evaluation, min is NaN
