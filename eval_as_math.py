"""
How well does a model add and subtract, and does it know the sums that were held out of its training text?

$ python eval_as_math.py --out_dir=math_mini_14
$ python eval_as_math.py --out_dir=math_mini_14 --operation=subtraction --checkpoint=ckpt_last.pt --json report.json
$ python eval_as_math.py --out_dir=math_mini_14 --max_operand=19
$ python eval_as_math.py --init_from=gpt2

Prints a grid for each operation, wrong answers, and the totals. The exit code is 0 whatever the score.
--max_operand asks sums of larger operands too: those beyond the training text are a group of their own, `beyond`.
"""

import re
import sys
from collections import Counter

from data.as_math.prepare import arithmetic_cases
from eval_utils import (answer_probs, ask, check_spelling, evaluation_arguments, load_evaluated, print_totals, score,
                        write_json)

EXPRESSION = re.compile(r'<(\d+)[+-](\d+)=')  # the prompts that a grid has a place for
MAX_LINES = 25  # of wrong answers that are printed: a screen
TASKS = {'addition': ['add'], 'subtraction': ['sub'], 'both': ['add', 'sub']}


def print_grid(title, cases, counts, num_samples):
    """The operation as a table: a down, b across; each cell says how many of its samples were right.

    cases: of one task, prompts <a+b= or <a-b=. counts: correct samples of each.
    """
    cells = {}
    for (_, prompt, _, held_out), count in zip(cases, counts):
        a, b = EXPRESSION.fullmatch(prompt).groups()
        mark = '.' if count == num_samples else 'x' if count == 0 else str(count)
        cells[int(a), int(b)] = f" {mark}'" if held_out is None else f'[{mark}]' if held_out else f' {mark} '
    rows, columns = sorted({a for a, _ in cells}), sorted({b for _, b in cells})
    width = max(3, len(str(num_samples)) + 2, len(str(columns[-1])) + 2)
    if len(columns) * width > 75:  # wider than a terminal: as narrow as it can be read
        width = max(3, len(str(num_samples - 1)) + 2, len(str(columns[-1])) + 1)
    beyond = ", ' beyond the training text" if any(case[3] is None for case in cases) else ""
    print(f"\n{title}: a down, b across; . right, x wrong, a number: right in that many of {num_samples} samples, "
          f"[ ] held out{beyond}")
    print('  a b' + ''.join(f'{b:^{width}}' for b in columns).rstrip())
    for a in rows:
        print(f'{a:>5}' + ''.join(f"{cells.get((a, b), ''):^{width}}" for b in columns).rstrip())


def larger_sums(cases, max_operand):
    """The questions of a whole grid up to max_operand: the dataset's own, else with None for held_out."""
    own = {case[1]: case for case in cases}
    if max_operand > 999 or not all(map(EXPRESSION.fullmatch, own)):
        sys.exit("error: --max_operand is at most 999, and for datasets that ask like '<3+4='")
    trained = max((int(n) for prompt in own for n in EXPRESSION.fullmatch(prompt).groups()), default=0)
    if max_operand < trained:
        sys.exit(f"error: --max_operand={max_operand} is below the dataset's own {trained}: leave it out, or raise it")
    return [own.get(prompt, (task, prompt, answer, None))
            for task, prompt, answer, _ in arithmetic_cases((), max_operand)]


args = evaluation_arguments(__doc__, checkpoints=['ckpt_best_math.pt', 'ckpt.pt'], operations=list(TASKS))
model, tokenizer, path = load_evaluated(args)
cases = [case for case in tokenizer.cases if case[0] in TASKS[args.operation]]
if not cases:
    sys.exit(f"error: the dataset of {path} has no sums to ask about: try eval_capitals.py")
if args.max_operand is not None:
    cases = [case for case in larger_sums(cases, args.max_operand) if case[0] in TASKS[args.operation]]
    check_spelling(tokenizer, ''.join(case[1] + case[2] for case in cases), f"the sums up to {args.max_operand}")
completions = ask(model, tokenizer, cases, args.num_samples, args.temperature, args.top_k, args.seed)
counts = score(cases, completions)
probs = answer_probs(model, tokenizer, cases).tolist()

print(f"{path}: {len(cases)} questions, {args.num_samples} samples each at temperature {args.temperature}")
for title, task in (('addition', 'add'), ('subtraction', 'sub')):
    chosen = [i for i, case in enumerate(cases) if case[0] == task]
    if chosen and all(EXPRESSION.fullmatch(cases[i][1]) for i in chosen):  # a dataset may ask otherwise
        print_grid(title, [cases[i] for i in chosen], [counts[i] for i in chosen], args.num_samples)
wrong = [i for i in range(len(cases)) if counts[i] < args.num_samples]
wrong.sort(key=lambda i: cases[i][3] is not True)  # the held-out sums first: the list may be cut
print("\nwrong answers:" if wrong else "\nno wrong answers")
for i in wrong[:MAX_LINES]:
    _, prompt, answer, held_out = cases[i]
    group = '  [beyond]' if held_out is None else '  [held out]' if held_out else ''
    (said, times), = Counter(completions[i]).most_common(1)
    print(f"  {prompt.strip('<=')} = {answer:<4} the model says {said!r} ({times} of {args.num_samples}); "
          f"probability of the right answer {probs[i]:.1%}{group}")
if len(wrong) > MAX_LINES:
    print(f"  ... and {len(wrong) - MAX_LINES} more; --json FILE writes all")
print()
print_totals(cases, counts, probs, args.num_samples)
write_json(args.json, path, args, cases, completions, counts, probs)
