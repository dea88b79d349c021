"""
Single-digit addition and subtraction, four expressions held out: <a+b=c> and <a-b=c>, one to a line.

$ python data/as_math/prepare.py
$ python data/as_math/prepare.py --held_out 5,7 3,4 --max_operand=19 --seed=1

Writes input.txt, train.bin, val.bin and meta.pkl beside this file.
"""

import argparse
import random
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))  # the repository, wherever this is run from
from data.char_dataset import write_dataset


def arithmetic_cases(held_out=((5, 7),), max_operand=9):
    """The evaluation questions: all a+b, then all a-b, for a, b in 0..max_operand.

    held_out: operand pairs; each holds out both orders of both operations (5,7: 5+7, 7+5, 5-7, 7-5).
    Returns a list of (task, prompt, answer, held_out), e.g. ('sub', '<5-7=', '-2', True).
    """
    held_out = {frozenset(pair) for pair in held_out}
    operands = range(max_operand + 1)
    return [(task, f'<{a}{sign}{b}=', str(a + b if sign == '+' else a - b), frozenset((a, b)) in held_out)
            for task, sign in (('add', '+'), ('sub', '-')) for a in operands for b in operands]


def arithmetic_text(cases, seed=1337):
    """The lines of all cases that are not held out, padded to one width and shuffled."""
    lines = [f'{prompt}{answer}>' for _, prompt, answer, held in cases if not held]
    width = max(map(len, lines))
    random.Random(seed).shuffle(lines)
    return ''.join(line.ljust(width) + '\n' for line in lines)


def operand_pair(text):
    try:
        a, b = (int(number) for number in text.split(','))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a pair of operands: write it like 5,7")
    return a, b


def parse_arguments(description):
    """The options of the sums, for this script and for data/both_math_and_facts. Returns (cases, text)."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--held_out', type=operand_pair, nargs='*', default=[(5, 7)], metavar='A,B',
                        help='operand pairs to hold out, both orders of both operations (default: 5,7); none: --held_out')
    parser.add_argument('--max_operand', type=int, default=9, help='operands are 0..max_operand (default: 9)')
    parser.add_argument('--seed', type=int, default=1337, help='seed of the shuffle of the lines (default: 1337)')
    args = parser.parse_args()
    if not 0 <= args.max_operand <= 999:
        parser.error(f"--max_operand must be from 0 to 999, not {args.max_operand}")
    for a, b in args.held_out:
        if not (0 <= a <= args.max_operand and 0 <= b <= args.max_operand):
            parser.error(f"--held_out {a},{b} is outside the operands 0..{args.max_operand}")
    cases = arithmetic_cases(args.held_out, args.max_operand)
    if all(held for *_, held in cases):
        parser.error("--held_out leaves no expression to train on")
    return cases, arithmetic_text(cases, args.seed)


if __name__ == '__main__':
    cases, text = parse_arguments(__doc__)
    write_dataset(HERE, text, cases)
