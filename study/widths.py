"""
The numbers, tables and figures of the first study (study/widths.md), from the committed files of its runs.

$ python study/widths.py
$ python study/widths.py results/study --markdown

Reads results/study and, beside it, results/study_orders, study_decay and study_random, as summarize.py --output
writes them. Writes numbers.csv, unplanned.csv and five figures into results/study. --markdown only prints
study/widths_tables.md, from those two files. Runs may be missing: it says how many are there, a mean is over those
that are there, and a test is over complete splits.
"""

import sys
from pathlib import Path

REPO = Path(__file__).absolute().parents[1]
sys.path.insert(0, str(REPO))
from common.arguments import argument_parser
from common.errors import explained, report_errors

if __name__ == '__main__':
    report_errors()  # before the imports that fail without the environment
import pandas as pd

from common.files import write_file
from common.pictures import save
from study.families import all_numbers
from study.measures import measure_runs
from study.runs import read_study
from study.tables import all_tables, counted
from study.unplanned import unplanned_numbers


def read_numbers(path):
    with explained(f"{path} cannot be read ({{}}): run study/widths.py without --markdown first"):
        return pd.read_csv(path, dtype={'share': float, 'n_embd': float})


if __name__ == '__main__':
    parser = argument_parser(__doc__)
    parser.add_argument('folder', nargs='?', type=Path, default=REPO / 'results' / 'study',
                        help='default: results/study')
    parser.add_argument('--markdown', action='store_true', help='print study/widths_tables.md, and write nothing')
    args = parser.parse_args()
    if args.markdown:
        print(all_tables(*(read_numbers(args.folder / name) for name in ('numbers.csv', 'unplanned.csv'))), end='')
    else:
        from study.figures import figures
        answers, results = read_study(args.folder)
        runs = measure_runs(answers, results)
        numbers = all_numbers(runs)
        for name, table in {'numbers': numbers, 'unplanned': unplanned_numbers(answers, runs, results)}.items():
            write_file(args.folder / f'{name}.csv', table.to_csv(index=False, float_format='%.6g'))
        for name, figure in figures(runs, numbers, answers, results).items():
            save(figure, args.folder / f'{name}.png')
        print(f"{counted(numbers)}\nwrote numbers.csv, unplanned.csv and the figures into {args.folder}")
