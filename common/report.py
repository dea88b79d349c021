"""What the evaluation scripts print and write about one model's graded answers."""

import json
import textwrap
from pathlib import Path

from common.dataset import CASE_OF
from common.errors import UserError
from common.files import write_file
from common.questions import GROUPS, LABELS, has_letters, operand_names
from common.results import read_results, samples_drawn, score_of


def prediction_of(row, most):
    """A question's prediction, cut to at most so many characters, and how often it came if it did not always come."""
    times, said = row.completions.most_common(1)[0][1], repr(row.said.strip())
    often = f" ({times} of {row.samples})" if times < row.samples else ''
    most = max(10, most - len(often))
    return (said if len(said) <= most else said[:most - 1] + '…') + often


def mark(row):
    """'.' if all samples of a question are right, 'x' if none is, else how many are."""
    return '.' if row.always_right else 'x' if row.correct == 0 else str(row.correct)


def print_grid(title, part, pairs):
    """One operation as a table: a down, b across; each cell says how many of its samples were right.

    part: its graded table; pairs: the operands of its prompts.
    """
    num_samples, letters = part.samples.iloc[0], has_letters(part.prompt)
    marks = {'seen': ' {} ', 'held out': '[{}]', 'beyond': " {}'"}
    cells = {pair: marks[row.group].format(mark(row)) for pair, row in zip(pairs, part.itertuples())}
    down, across = sorted({a for a, _ in cells}), sorted({b for _, b in cells})
    names = operand_names(part.prompt, max(down + across) + 1)
    width = max(3, len(str(num_samples)) + 2, len(str(names[across[-1]])) + 2)
    if len(across) * width > 75:  # wider than a terminal, so it is made as narrow as can be read
        width = max(3, len(str(num_samples - 1)) + 2, len(str(names[across[-1]])) + 1)
    beyond = ", ' beyond the training text" if (part.group == 'beyond').any() else ""
    print(f"\n{title}, {'the first operand down and the second' if letters else 'a down and b'} across:")
    print(textwrap.fill(f". = all {num_samples} samples right, x = none, 3 = three; [ ] held out{beyond}", 80))
    print(('     ' if letters else '  a b') + ''.join(f'{names[b]:^{width}}' for b in across).rstrip())
    for a in down:
        print(f'{names[a]:>5}' + ''.join(f"{cells.get((a, b), ''):^{width}}" for b in across).rstrip())


def totals(table):
    """The scores of each task and of each group of a graded table, as a list of dicts."""
    named = {LABELS.get(task, task): table[table.task == task] for task in table.task.unique()}
    named |= {group: table[table.group == group] for group in GROUPS if (table.group == group).any()}
    return [{'group': name, **score_of(part)} for name, part in named.items()]


def print_totals(table):
    for t in totals(table):
        name = {'seen': 'training', 'held out': 'held-out'}.get(t['group'], t['group'])
        print(textwrap.fill(f"{name:<12}{t['questions_right']:>4} of {t['questions']} questions right "
                            f"({t['acc']:.1%} of samples), probability {t['prob']:.1%}", 80))


def print_choice(path, kind):
    """If training chose this checkpoint as its best: among how many evaluations, and what the last one has.

    kind: 'math' or 'facts'.
    """
    if not Path(path).name.startswith('ckpt_best_'):
        return
    try:
        results = read_results(path.parent)
    except UserError:
        return  # the checkpoint has been copied without its table
    evaluated = results[samples_drawn(results) > 0]
    if evaluated.empty:
        return
    final, which = evaluated.iloc[-1], 'last one so far' if Path(path.parent, 'temp.csv').exists() else 'final one'
    print(f"\nThis checkpoint is the best of {len(evaluated)} evaluations, so its score is optimistic.\n"
          f"At the {which}, iteration {final.iter:,.0f}, {final[f'{kind}_acc']:.1%} of all samples are right\n"
          "(--checkpoint=ckpt_last.pt evaluates it).")


def write_json(path, checkpoint, settings, table):
    """Write an evaluation's settings, totals and answers to the file `path`; does nothing if `path` is ''."""
    if not path:
        return
    questions = [dict(task=row.task, prompt=row.prompt, answer=row.answer, held_out=CASE_OF[row.group],
                      correct=row.correct, prob=row.prob, samples=list(row.completions.elements()))
                 for row in table.itertuples()]
    report = {'checkpoint': str(checkpoint), **settings, 'totals': totals(table), 'questions': questions}
    write_file(path, json.dumps(report, indent=1))
    print(f"wrote {path}")
