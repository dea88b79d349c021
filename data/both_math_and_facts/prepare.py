"""
The sums of data/as_math, then the capitals of data/facts_char, in one text: can one model do both?

$ python data/both_math_and_facts/prepare.py
$ python data/both_math_and_facts/prepare.py --held_out 5,7 3,4 --max_operand=19 --seed=1

Writes input.txt, train.bin, val.bin and meta.pkl beside this file.
"""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))  # the repository, wherever this is run from
from data.as_math.prepare import parse_arguments
from data.char_dataset import write_dataset
from data.facts_char.prepare import facts_cases, facts_text

if __name__ == '__main__':
    sums, text = parse_arguments(__doc__)
    facts = facts_cases()
    write_dataset(HERE, text + facts_text(facts), sums + facts)
