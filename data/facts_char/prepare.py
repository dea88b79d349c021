"""
Fifty capital cities. Nothing is held out, so this is pure memorisation.

$ python data/facts_char/prepare.py

Writes input.txt, train.bin, val.bin and meta.pkl beside this file, or with --name=NAME into data/NAME/.
"""

import sys
from pathlib import Path

HERE = Path(__file__).absolute().parent  # data/ may be a link to another disk, so links are not followed
sys.path.insert(0, str(HERE.parents[1]))  # the repository, wherever this is run from
from common.errors import report_errors

report_errors()  # before the imports that fail without the environment
from common.dataset import DATA
from common.prepare import prepare_parser, write_dataset
from common.questions import facts_questions, facts_text

args = prepare_parser(__doc__, HERE).parse_args()
questions = facts_questions()
write_dataset(DATA / args.name, facts_text(questions), questions)
