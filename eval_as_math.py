"""
How well does a model add and subtract, and does it answer the questions that were held out of its training text?

$ python eval_as_math.py --out_dir=math_mini_14
$ python eval_as_math.py math_mini_14 --operation=subtraction --checkpoint=ckpt_last.pt --json report.json
$ python eval_as_math.py math_mini_14 --max_operand=19
$ python eval_as_math.py math_mini_14 --plot
$ python eval_as_math.py --init_from=gpt2

Prints a grid for each operation, wrong predictions and the totals; the exit code is 0 whatever the accuracy. It
evaluates on every question of the dataset that has a number as its answer. --max_operand adds those of larger operands;
what lies beyond the training text forms a group of its own, `beyond`.
"""

import math
import os
import textwrap

from common.errors import UserError, report_errors
from configurator import configure, inherit_settings

# -----------------------------------------------------------------------------
# settings
out_dir = ''  # the model folder
init_from = ''  # evaluate GPT-2 instead: 'gpt2', 'gpt2-medium', 'gpt2-large', 'gpt2-xl' or a folder with its weights
checkpoint = ''  # checkpoint file in the model folder; '': ckpt_best_math.pt, or ckpt.pt if there is none
operation = 'both'  # 'addition', 'subtraction' or 'both'
max_operand = 0  # also evaluate a+b and a-b for all operands up to this; 0: only the dataset's own questions
num_samples = 10  # samples per question; if it is not given, as many as in training
temperature = 0.01  # temperature of the samples, 0: greedy; if it is not given, as in training
top_k = 10  # sample from the k likeliest tokens only; if it is not given, as in training
seed = 1337  # seed of the sampling
device = 'auto'  # 'cpu', 'cuda', 'mps'; auto: a GPU if there is one and the model is at least 128 wide
json = ''  # also write all predictions and totals to this file
plot = False  # also draw each operation as a grid of predictions, coloured by the probability of the right answer
output = ''  # the .png, .pdf or .svg file to draw; '': grid.png in the model folder
RANGES = {'num_samples top_k': (1, math.inf), 'temperature max_operand': (0, math.inf), 'seed': (0, 2**32),
          'operation': 'addition subtraction both'}
report_errors()
config, given = configure(globals(), RANGES)
# -----------------------------------------------------------------------------

from common.evaluate import grade  # torch takes seconds to import, so the settings are checked first
from common.load import load_evaluated
from common.questions import LABELS, arithmetic_questions, operands
from common.report import prediction_of, print_choice, print_grid, print_totals, write_json
from common.results import score_of

MAX_LINES = 25  # at most this many wrong predictions are printed, which fills a screen


def larger_questions(questions, max_operand):
    """The questions of a whole grid up to max_operand: the dataset's own, and the others in the group 'beyond'."""
    if max_operand > 999:
        raise UserError(f"--max_operand must be at most 999, not {max_operand}")
    known, grid = {(q.task, q.prompt): q for q in questions}, arithmetic_questions((), max_operand)
    left_out = known.keys() - {(q.task, q.prompt) for q in grid}
    if left_out:
        raise UserError(f"--max_operand={max_operand} would drop the dataset's own {min(left_out)[1]!r}: use a larger "
                        "one, or omit it if the questions are not like '<3+4='")
    return [known.get((q.task, q.prompt), q._replace(group='beyond')) for q in grid]


def print_by_digits(title, part, pairs):
    """An operation too large for a grid: a line for each number of digits of the operands."""
    digits = [f"{len(str(a))} and {len(str(b))}" for a, b in pairs]
    print(f"\n{title}, by the number of digits of a and of b:")
    for name, some in part.groupby(digits):
        s = score_of(some)
        print(f"  {name}: {s['questions_right']} of {s['questions']} questions right, probability {s['prob']:.1%}")


model, meta, path, of_run, terminated, title = load_evaluated(out_dir, init_from, checkpoint, device, 'math')
inherit_settings(globals(), config, given, of_run, RANGES)
sampling = dict(num_samples=num_samples, temperature=temperature, top_k=top_k, seed=seed)
questions = meta.questions
if max_operand:
    questions = larger_questions(questions, max_operand)
    meta.tokenizer.encode(''.join(q.prompt + q.answer for q in questions))  # raises if it lacks a digit
if operation != 'both':
    questions = [q for q in questions if LABELS.get(q.task) == operation]
    if not questions:
        raise UserError(f"the dataset of {path} has no {operation} questions: omit --operation")
table = grade(model, meta.tokenizer, questions, **sampling, terminated=terminated)

print(f"{title}: {len(table)} questions,\n{num_samples} samples each at temperature {temperature}")
for task in table.task.unique():
    part = table[table.task == task]
    if pairs := operands(part.prompt):  # a dataset may write its questions in another way
        show = print_grid if max(map(max, pairs)) < 20 else print_by_digits
        show(LABELS.get(task, task), part, pairs)
wrong = table[~table.always_right]
# those that are held out first, because the list may be cut
wrong = wrong.sort_values('group', key=lambda group: group != 'held out', kind='stable')
print("\nnot always right (%: probability of the right answer):" if len(wrong) else "\nall questions are always right")
for row in wrong.head(MAX_LINES).itertuples():
    group = '' if row.group == 'seen' else f"  [{row.group}]"
    print(textwrap.fill(f"  {row.prompt.strip('<=')} = {row.answer:<4} {row.prob:>6.1%}  predicted "
                        f"{prediction_of(row, 24)}{group}", 80, subsequent_indent='    '))
if len(wrong) > MAX_LINES:
    print(f"  ... and {len(wrong) - MAX_LINES} more; --json FILE writes all")
print()
print_totals(table)
print_choice(path, 'math')
write_json(json, path, sampling, table)
if plot or output:
    from common.pictures import picture
    picture(table, f"{title} ({model.get_num_params(non_embedding=False):,} parameters)",
            output or os.path.join(out_dir, 'grid.png'))
