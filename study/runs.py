"""
The runs of the first study (study/widths.md): which were planned, and what the committed files say that they answered.
"""

from pathlib import Path

import pandas as pd

from common.answers import read_answers
from common.errors import UserError, explained, say

WIDTHS, CONTROL_WIDTHS = [6, 8, 10, 12, 14, 20, 28, 56], [14, 28, 56]
PERCENT_HELD_OUT = {'pair': 2, 'rounds_1': 10, 'rounds_2': 20, 'rounds_3': 30, 'rounds_5': 50}  # main runs
CONTROLS = {'orders': 20, 'decay 0.1': 20, 'decay 1.0': 20, 'random': 0}  # and of the controls
CONDITION = ['study', 'share', 'n_embd']  # what runs of other splits have in common; share: per cent held out
RUN = [*CONDITION, 'split']
PLANNED = [('main', percent, width) for percent in PERCENT_HELD_OUT.values() for width in WIDTHS]
PLANNED += [(study, percent, width) for study, percent in CONTROLS.items()
            for width in (WIDTHS if study == 'random' else CONTROL_WIDTHS)]
SPLITS = 8  # runs of each condition
FIRST_SEED = 1337  # of split 0


def varied_settings(config):
    """The settings in which a run differs, from its label in a sweep: {'n_embd': '6', ...} of 'study,n_embd=6,...'."""
    return dict(part.split('=') for part in config.split(',')[1:])


def condition_of(config, kind):
    """The condition of a run, from its label and the kind of its sweep: main, orders, decay or random."""
    settings = varied_settings(config)
    study = f"decay {float(settings['weight_decay'])}" if kind == 'decay' else kind
    return study, PERCENT_HELD_OUT[settings['dataset']] if kind == 'main' else CONTROLS[study], int(settings['n_embd'])


def add_numbers(answers):
    """Answers with the columns right_number, and error, the predicted number minus that; NaN if none was predicted."""
    right_number = answers.answer.astype(float)
    predicted = answers.said.str.extract(r'^\s*(-?[0-9]+)')[0].astype(float)  # the number that the evaluation reads
    return answers.assign(right_number=right_number, error=predicted - right_number)


def read_study(folder):
    """What all runs answered, and the rows of their results.csv: two DataFrames, with the columns of RUN.

    The answers also have those of add_numbers.
    """
    all_answers, all_results = [], []
    for kind in ('main', 'orders', 'decay', 'random'):
        path = Path(folder if kind == 'main' else f'{folder}_{kind}')
        if kind != 'main' and not path.exists():
            say(f"the study lacks a control: {path} is not there")
            continue
        answers = read_answers(path)
        with explained(f"{path}/results.csv.gz cannot be read ({{}}): write it with summarize.py --output={path}"):
            results = pd.read_csv(path / 'results.csv.gz')
        for table, tables in ((answers, all_answers), (results, all_results)):
            with explained(f"{path} holds a run that is not of the study ({{}}): name the folder of the study"):
                conditions = {config: condition_of(config, kind) for config in table.config.unique()}
                table[CONDITION] = [conditions[config] for config in table.config]
            tables.append(table.assign(split=table.seed - FIRST_SEED))
    answers, results = (pd.concat(tables, ignore_index=True) for tables in (all_answers, all_results))
    last = [table.groupby(RUN).iter.max() for table in (answers[answers.when == 'last'], results)]
    if last[1].nunique() > 1 or not last[0].eq(last[1].reindex(last[0].index)).all():
        raise UserError(f"the runs beside {folder} end at different iterations: write them with summarize.py --output "
                        "when all of them are finished")
    return add_numbers(answers), results
