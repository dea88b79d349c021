"""
Single-digit addition and subtraction, with four questions held out: <a+b=c> and <a-b=c>, one to a line.

$ python data/as_math/prepare.py
$ python data/as_math/prepare.py --name=as_math_34 --held_out 5,7 3,4 --max_operand=19 --seed=1
$ python data/as_math/prepare.py --name=one_order --held_out 5+7 7-5
$ python data/as_math/prepare.py --name=split_0 --held_out_rounds=2 --split_seed=0

Writes input.txt, train.bin, val.bin and meta.pkl beside this file, or into data/NAME/.
"""

import sys
from pathlib import Path

HERE = Path(__file__).absolute().parent  # data/ may be a link to another disk, so links are not followed
sys.path.insert(0, str(HERE.parents[1]))  # the repository, wherever this is run from
from common.errors import report_errors

report_errors()  # before the imports that fail without the environment
from common.dataset import DATA
from common.prepare import parse_arithmetic, prepare_parser, write_dataset

args, questions, text = parse_arithmetic(prepare_parser(__doc__, HERE))
write_dataset(DATA / args.name, text, questions)
