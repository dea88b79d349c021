"""
Addition modulo 97 or another number, the grokking task of Power et al. (2022): a random fraction is held out.

$ python data/mod_math/prepare.py
$ python data/mod_math/prepare.py --name=mod_23 --modulus=23 --held_out_share=0.5 --split_seed=1

A line is <a+b=c> with a, b, c in base 10, padded with spaces to one width. Writes input.txt, train.bin, val.bin and
meta.pkl beside this file, or into data/NAME/. It also shows how to make your own dataset, with any task name and text.
"""

import random
import sys
from pathlib import Path

HERE = Path(__file__).absolute().parent  # data/ may be a link to another disk, so links are not followed
sys.path.insert(0, str(HERE.parents[1]))  # the repository, wherever this is run from
from common.errors import report_errors

report_errors()  # before the imports that fail without the environment
from common.dataset import DATA
from common.prepare import prepare_parser, write_dataset
from common.questions import Question, arithmetic_text

parser = prepare_parser(__doc__, HERE)
parser.add_argument('--modulus', type=int, default=97, help='a, b and c are less than this (default: 97)')
parser.add_argument('--held_out_share', type=float, default=0.5, help='the held-out fraction (default: 0.5)')
parser.add_argument('--split_seed', type=int, default=0, help='decides which questions are held out (default: 0)')
args = parser.parse_args()
if not (2 <= args.modulus <= 999 and 0 <= args.held_out_share < 1):
    parser.error("--modulus must be from 2 to 999, and --held_out_share at least 0 and below 1")

pairs = [(a, b) for a in range(args.modulus) for b in range(args.modulus)]
held_out = set(random.Random(args.split_seed).sample(pairs, round(args.held_out_share * len(pairs))))
questions = [Question(f'a+b mod {args.modulus}', f'<{a}+{b}=', str((a + b) % args.modulus),
                      'held out' if (a, b) in held_out else 'seen') for a, b in pairs]
write_dataset(DATA / args.name, arithmetic_text(questions), questions)
