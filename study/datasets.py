"""
Write the datasets of both studies into data/: one for each split, because each seed of a sweep has a split of its own.

$ python study/datasets.py

Seed 1337 + S has split S, so data/rounds_2_1340 is split 3. Study 1 (study/widths.md), splits 0 to 7:
pair_SEED, rounds_K_SEED: one pair, or K rounds of a round-robin, held out
orders_SEED: two rounds held out, and the lines in 1,000 orders
random_SEED: nothing held out, and the answers shuffled

Study 2 (study/why.md):
one_order_SEED, splits 0 to 7: of the ten pairs of two rounds, one order each held out
base_B_SEED, splits 0 to 7: tables of base B, a letter for each digit, with B / 4 rounds held out
base_B_shuffled_SEED, splits 0 to 3: the training questions of those, with the answers shuffled, and nothing held out
load_KIND_M_SEED, splits 0 to 15: two rounds held out, and M lines more that are not arithmetic, with random answers or
with a regular one; for KIND shuffled, the answers of the arithmetic are shuffled as well, and nothing is held out
examples_N_KIND_SEED, splits 0 to 7: base 24 with N of its 864 training questions; the others become lines that are not
arithmetic, with random answers or with a regular one, or are left out if KIND is none
"""

import random
import sys
from contextlib import redirect_stdout
from io import StringIO
from itertools import product
from pathlib import Path

sys.path.insert(0, str(Path(__file__).absolute().parents[1]))  # the repository, wherever this is run from
from common.arguments import argument_parser
from common.errors import report_errors

if __name__ == '__main__':
    report_errors()  # before the imports that fail without the environment
from common.dataset import DATA
from common.prepare import write_dataset
from common.questions import Question, arithmetic_questions, arithmetic_text, round_robin_pairs

FIRST_SEED, SPLITS = 1337, 8
BASES = [8, 12, 16, 20, 24]
LOADS = [200, 400]  # lines
LOAD_OPERATIONS = '*/%^'  # each has a hundred prompts; they only look like arithmetic
REGULAR_ANSWER = '5'
ALL_EXAMPLES = 864  # the training questions of the largest base
EXAMPLES = [288, 432]  # some of them, with a load or without
MORE_EXAMPLES = [576, 720]  # without
LETTERS = 'abcdefghijklmnopqrstuvwx'  # the digits of all bases, in their order


def in_letters(n, base):
    """A whole number in letters, e.g. 13 in base 8 is 'bf', and -3 is '-d'."""
    digits = LETTERS[abs(n) % base]
    return '-' * (n < 0) + (LETTERS[abs(n) // base] + digits if abs(n) >= base else digits)


def quarter_held_out(split, base):
    """The pairs of a base that a split holds out, a quarter of the questions, and the others, both in rounds."""
    pairs, n = round_robin_pairs(split, base), base // 4 * base // 2
    return pairs[:n], pairs[n:]


def base_questions(base, held_out):
    """All a+b, then all a-b, for digits of a base, in letters. held_out: pairs of whole numbers, in both orders."""
    held_out = {frozenset(pair) for pair in held_out}
    return [Question(f'a{sign}b', f'<{LETTERS[a]}{sign}{LETTERS[b]}=',
                     in_letters(a + b if sign == '+' else a - b, base),
                     'held out' if frozenset((a, b)) in held_out else 'seen')
            for sign in '+-' for a in range(base) for b in range(base)]


def one_order_questions(split):
    """as_math with one order of each pair of two rounds held out, in both operations; the split decides which."""
    rng = random.Random(split)
    held_out = {rng.choice([(a, b), (b, a)]) for a, b in round_robin_pairs(split)[:10]}
    prompts = {f'<{a}{sign}{b}=' for a, b in held_out for sign in '+-'}
    return [q._replace(group='held out' if q.prompt in prompts else 'seen') for q in arithmetic_questions([])]


def shuffle_answers(questions, seed):
    """The questions with the answers of each task permuted at random, so that they can only be memorised."""
    answers = {q.task: [] for q in questions}
    for q in random.Random(seed).sample(questions, len(questions)):
        answers[q.task].append(q.answer)
    return [q._replace(answer=answers[q.task].pop()) for q in questions]


def training_part(questions):
    return [q for q in questions if q.group == 'seen']


def load_questions(n, answers, split, regular):
    """n questions that are not arithmetic: with a random one of these answers each, or all with the same answer."""
    rng = random.Random(split)
    prompts = [f'<{a}{sign}{b}=' for sign in LOAD_OPERATIONS for a in range(10) for b in range(10)][:n]
    return [Question('load', prompt, REGULAR_ANSWER if regular else rng.choice(answers)) for prompt in prompts]


def write(name, questions, text=None):
    with redirect_stdout(StringIO()):  # some three hundred datasets would say the same
        write_dataset(DATA / name, text or arithmetic_text(questions), questions)


def write_first_study(split):
    seed, pairs = FIRST_SEED + split, round_robin_pairs(split)
    write(f'pair_{seed}', arithmetic_questions(pairs[:1]))
    for k in (1, 2, 3, 5):
        write(f'rounds_{k}_{seed}', arithmetic_questions(pairs[:5 * k]))
    questions = arithmetic_questions(pairs[:10])
    write(f'orders_{seed}', questions, arithmetic_text(questions, orders=1000))
    write(f'random_{seed}', shuffle_answers(arithmetic_questions([]), split))


def write_tables(split):
    seed = FIRST_SEED + split
    write(f'one_order_{seed}', one_order_questions(split))
    for base in BASES:
        questions = base_questions(base, quarter_held_out(split, base)[0])
        write(f'base_{base}_{seed}', questions)
        if split < 4:
            write(f'base_{base}_shuffled_{seed}', shuffle_answers(training_part(questions), split))


def write_loads(split):
    seed, sums = FIRST_SEED + split, arithmetic_questions(round_robin_pairs(split)[:10])
    answers = [q.answer for q in training_part(sums)]
    for n in LOADS:
        loads = {kind: load_questions(n, answers, split, kind == 'regular') for kind in ('random', 'regular')}
        for kind, load in loads.items():
            write(f'load_{kind}_{n}_{seed}', sums + load)
        write(f'load_shuffled_{n}_{seed}', shuffle_answers(training_part(sums), split) + loads['random'])


def questions_with_examples(n, kind, split):
    """The questions of base 24 with n of its training questions, those of a few rounds and of equal digits.

    kind: what becomes of the others. 'random': each gets another operator, * for + and / for -, and their answers are
    shuffled within an operation; 'regular': another operator, and all have the same answer; 'none': they are left out.
    """
    base = BASES[-1]
    held_out, pairs = quarter_held_out(split, base)
    rest = {frozenset(pair) for pair in pairs[(n - 2 * base) // 4:]}  # a pair has four questions, equal digits two
    examples, others = [], []
    for q in base_questions(base, held_out):
        (others if frozenset(map(LETTERS.index, (q.prompt[1], q.prompt[3]))) in rest else examples).append(q)
    load = [Question('load', q.prompt.translate(str.maketrans('+-', '*/')),
                     LETTERS[int(REGULAR_ANSWER)] if kind == 'regular' else q.answer)
            for q in shuffle_answers(others, split)]
    return examples + load * (kind != 'none')


def write_examples(split):
    for n, kind in [*product(EXAMPLES, ('random', 'regular', 'none')), *product(MORE_EXAMPLES, ('none',))]:
        write(f'examples_{n}_{kind}_{FIRST_SEED + split}', questions_with_examples(n, kind, split))


if __name__ == '__main__':
    argument_parser(__doc__).parse_args()
    for split in range(SPLITS):
        write_first_study(split)
        write_tables(split)
        write_examples(split)
    for split in range(2 * SPLITS):
        write_loads(split)
    print(f"wrote the datasets of both studies into {DATA}")
