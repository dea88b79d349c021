"""
How well does a model add and subtract, and does it know the sums that were held out of its training text?

$ python eval_as_math.py --out_dir=math_mini_14
$ python eval_as_math.py --out_dir=math_mini_14 --operation=subtraction --checkpoint=ckpt_last.pt --json report.json
$ python eval_as_math.py --out_dir=math_mini_14 --max_operand=19
$ python eval_as_math.py --out_dir=math_mini_14 --plot
$ python eval_as_math.py --init_from=gpt2

Prints a grid for each operation, wrong answers, and the totals; the exit code is 0 whatever the score. It asks every question
that has a number as its answer, also those of your own dataset. --max_operand also asks sums of larger operands; those that
lie beyond the training text form a group of their own, `beyond`.
"""

import os

from common.errors import UserError, report_errors
from configurator import adopt, configure

# -----------------------------------------------------------------------------
# settings
out_dir = ''  # the model folder
init_from = ''  # ask GPT-2 instead: 'gpt2', 'gpt2-medium', 'gpt2-large', 'gpt2-xl' or a folder with its weights
checkpoint = ''  # checkpoint file in the model folder; '': ckpt_best_math.pt, or ckpt.pt if there is none
operation = 'both'  # 'addition', 'subtraction' or 'both'
max_operand = 0  # also ask a+b and a-b for all operands up to this; 0: only the dataset's own questions
num_samples = 10  # samples per question; if it is not given, as many as in training
temperature = 0.01  # temperature of the samples, 0: greedy; if it is not given, as in training
top_k = 10  # sample from the k likeliest tokens only; if it is not given, as in training
seed = 1337  # seed of the sampling
device = 'auto'  # 'cpu', 'cuda', 'mps'; auto: a GPU if there is one and the model is at least 128 wide
json = ''  # also write all answers and totals to this file
plot = False  # also draw each operation as a grid of what the model says, and how sure it is of the right answer
output = ''  # the .png, .pdf or .svg file to draw; '': grid.png in the model folder
RANGES = dict(positive='num_samples top_k', not_negative='temperature max_operand', seeds='seed',
              choices={'operation': 'addition subtraction both'})
report_errors()
config, given = configure(globals(), **RANGES)
# -----------------------------------------------------------------------------

from common.evaluate import grade, summed  # torch takes seconds to import, so the settings are checked first
from common.load import load_evaluated
from common.questions import EXPRESSION, LABELS, arithmetic_questions, operands
from common.report import answered, mark, print_totals, write_json

MAX_LINES = 25  # at most this many wrong answers are printed, which fills a screen


def larger_sums(questions, max_operand):
    """The questions of a whole grid up to max_operand: the dataset's own, and the others in the group 'beyond'."""
    own = {q.prompt: q for q in questions}
    if max_operand > 999 or {q.task for q in questions} - {'add', 'sub'} or not all(map(EXPRESSION.fullmatch, own)):
        raise UserError("--max_operand is at most 999, and only works with datasets that ask like '<3+4='")
    trained = max(int(number) for prompt in own for number in EXPRESSION.fullmatch(prompt).groups())
    if max_operand < trained:
        raise UserError(f"--max_operand={max_operand} is below the dataset's own {trained}: leave it out, or raise it")
    return [own.get(q.prompt, q._replace(group='beyond')) for q in arithmetic_questions((), max_operand)]


def print_by_digits(title, rows, pairs):
    """One operation too large for a grid: a line for each number of digits of the operands."""
    digits = [f"{len(str(a))} and {len(str(b))}" for a, b in pairs]
    print(f"\n{title}, by the number of digits of a and of b:")
    for name, part in rows.groupby(digits):
        s = summed(part)
        print(f"  {name}: {s['questions_right']} of {s['questions']} questions right, probability {s['prob']:.1%}")


def print_grid(title, rows, pairs):
    """One operation as a table: a down, b across; each cell says how many of its samples were right."""
    marks = {'seen': ' {} ', 'held out': '[{}]', 'beyond': " {}'"}
    cells = {pair: marks[row.group].format(mark(row)) for pair, row in zip(pairs, rows.itertuples())}
    down, across = sorted({a for a, _ in cells}), sorted({b for _, b in cells})
    width = max(3, len(str(num_samples)) + 2, len(str(across[-1])) + 2)
    if len(across) * width > 75:  # wider than a terminal, so it is made as narrow as can be read
        width = max(3, len(str(num_samples - 1)) + 2, len(str(across[-1])) + 1)
    beyond = ", ' beyond the training text" if (rows.group == 'beyond').any() else ""
    print(f"\n{title}: a down, b across; . right, x wrong, a number: right in that many of\n{num_samples} samples, "
          f"[ ] held out{beyond}")
    print('  a b' + ''.join(f'{b:^{width}}' for b in across).rstrip())
    for a in down:
        print(f'{a:>5}' + ''.join(f"{cells.get((a, b), ''):^{width}}" for b in across).rstrip())


model, meta, path, trained_with, knows_terminator, title = load_evaluated(out_dir, init_from, checkpoint, device, 'math')
adopt(globals(), config, given, trained_with, **RANGES)  # sampling settings that are not given are those of the run
sampling = dict(num_samples=num_samples, temperature=temperature, top_k=top_k, seed=seed)
questions = meta.questions
if max_operand:
    questions = larger_sums(questions, max_operand)
    meta.tokenizer.encode(''.join(q.prompt + q.answer for q in questions))  # raises if it lacks a digit
if operation != 'both':
    questions = [q for q in questions if LABELS.get(q.task) == operation]
    if not questions:
        raise UserError(f"the dataset of {path} has no {operation} to ask about: leave --operation out")
table = grade(model, meta, questions, **sampling, terminated=knows_terminator)

print(f"{title}: {len(table)} questions,\n{num_samples} samples each at temperature {temperature}")
for task in table.task.unique():
    rows = table[table.task == task]
    if pairs := operands(rows.prompt):  # a dataset may write its questions in another way
        show = print_grid if max(map(max, pairs)) < 20 else print_by_digits
        show(LABELS.get(task, task), rows, pairs)
wrong = table[~table.always_right]
wrong = wrong.sort_values('group', key=lambda group: group != 'held out', kind='stable')  # first, because the list may be cut
print("\nwrong, or not always right:" if len(wrong) else "\nno wrong answers")
for row in wrong.head(MAX_LINES).itertuples():
    group = '' if row.group == 'seen' else f'  [{row.group}]'
    print(f"  {row.prompt.strip('<=')} = {row.answer:<4} the model says {answered(row)}; the right answer has {row.prob:.1%}"
          f"{group}")
if len(wrong) > MAX_LINES:
    print(f"  ... and {len(wrong) - MAX_LINES} more; --json FILE writes all")
print()
print_totals(table)
write_json(json, path, sampling, table)
if plot or output:
    from common.pictures import picture
    picture(table, f"{title} ({model.get_num_params(non_embedding=False):,} parameters)",
            output or os.path.join(out_dir, 'grid.png'))
