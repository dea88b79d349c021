"""
The arithmetic of data/as_math, followed by the capitals of data/facts_char, in one text: can one model learn both?

$ python data/both_math_and_facts/prepare.py
$ python data/both_math_and_facts/prepare.py --name=both_34 --held_out 5,7 3,4 --max_operand=19 --seed=1

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
from common.questions import facts_questions, facts_text

args, arithmetic, text = parse_arithmetic(prepare_parser(__doc__, HERE))
facts = facts_questions()
write_dataset(DATA / args.name, text + facts_text(facts), arithmetic + facts)
