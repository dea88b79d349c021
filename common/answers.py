"""
What became of every question: answers.csv.gz in a model folder holds a graded table for each evaluation of the run.

Its columns are iter and those of a graded table (common/evaluate.py). Each evaluation is appended as a gzip member of its own.
"""

import gzip
import os
from pathlib import Path

import pandas as pd

from common.dataset import load_meta
from common.errors import UserError, explained
from common.files import append_file, size_of
from common.questions import is_right

ANSWERS = 'answers.csv.gz'
COLUMNS = 'iter task prompt answer group samples correct prob said'.split()


def add_verdicts(table, terminators='>'):
    """A graded table with two more columns, which are the one definition of what is right.

    right: the most frequent sample, `said`, is right. always_right: all samples are. terminators: of each question, or
    of all.
    """
    said = table.assign(terminator=terminators)[['answer', 'terminator', 'said']]
    verdicts = said.drop_duplicates()
    verdicts = verdicts.assign(right=[is_right(*row) for row in verdicts.to_numpy()])
    right = said.merge(verdicts, how='left')['right'].to_numpy(bool)
    return table.assign(right=right & (table.correct > 0), always_right=table.correct == table.samples)


def append_answers(iter_num, table, out_dir):
    """Append the graded table of the evaluation at iter_num to the model folder's answers."""
    if table.empty:
        return
    path = os.path.join(out_dir, ANSWERS)
    table = table.assign(iter=iter_num)[COLUMNS]
    append_file(path, gzip.compress(table.to_csv(index=False, header=not size_of(path), float_format='%.6g').encode(), mtime=0))


def read_answers(folder):
    """The answers of a model folder, or of a sweep's copy, as a DataFrame with the verdicts of add_verdicts.

    The terminators are those of the folder's meta.pkl. A copy has none, so a number counts there as one of arithmetic.
    """
    path = Path(folder) / ANSWERS
    if not path.exists():
        raise UserError(f"no {ANSWERS} in {folder}: only a run of train_with_eval.py with full_eval writes one")
    with explained(f"{path} cannot be read ({{}}): it is damaged"):
        answers = pd.read_csv(path, keep_default_na=False, dtype={'prompt': str, 'answer': str, 'said': str})
        missing = [column for column in COLUMNS if column not in answers]
        if missing or answers.empty:
            raise ValueError(f"it has no column {missing[0]}" if missing else "it has no rows")
        answers = answers.astype({'iter': int, 'samples': int, 'correct': int, 'prob': float})
    if 'config' not in answers:
        # a run that is resumed from a checkpoint of an earlier version, without sizes, has one evaluation twice
        answers = answers.drop_duplicates(['iter', 'task', 'prompt'], keep='last', ignore_index=True)
    meta_path = Path(folder) / 'meta.pkl'
    terminator_of = {q.task: q.terminator for q in load_meta(meta_path).questions} if meta_path.exists() else {}
    return add_verdicts(answers, answers.task.map(lambda task: terminator_of.get(task, '>')))


def first_fit(answers):
    """The rows of the first evaluation at which 99 % of the training questions are right; no rows if there is none.

    answers: as read_answers returns them.
    """
    seen = answers[answers.group == 'seen']
    right = seen.right.groupby(seen.iter).mean()
    return answers[answers.iter == right.index[right >= 0.99].min()]  # of no evaluation, min is NaN
