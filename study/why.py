"""
The numbers, tables and figures of the second study (study/why.md), from the committed files of its runs.

$ python study/why.py
$ python study/why.py results --markdown

Reads results/why_order and the other sweeps that study/why.sh writes, and results/study, with which experiment A is
compared, and C and D if it is there. Writes numbers.csv, a figure for each experiment and tables.png into results/why.
--markdown only prints study/why_tables.md, from numbers.csv. Runs may be missing: it says how many are there, a mean is
over those that are there, what pairs splits or needs all widths is over complete splits, and no verdict is drawn.
"""

import sys
from pathlib import Path

REPO = Path(__file__).absolute().parents[1]
sys.path.insert(0, str(REPO))
from common.arguments import argument_parser
from common.errors import UserError, explained, report_errors, say

if __name__ == '__main__':
    report_errors()  # before the imports that fail without the environment
import pandas as pd

from common.files import write_file
from common.pictures import save
from study import why_base, why_examples, why_load
from study.runs import read_study
from study.why_order import order_numbers
from study.why_runs import COLUMNS, SWEEPS, counts, read_results, read_runs
from study.why_tables import all_tables, counted
from study.why_time import time_numbers
from study.why_unplanned import unplanned_numbers

MEASURE = dict.fromkeys(['why_base', 'why_shuffled', 'why_fewer_passes', 'why_more_passes'], why_base.measure_runs)
MEASURE |= dict.fromkeys(['why_load_20', 'why_load_28'], why_load.measure_runs)
MEASURE |= dict.fromkeys([name for name in SWEEPS if name.startswith('why_examples')], why_examples.measure_runs)


def all_numbers(runs, folder):
    """numbers.csv as a DataFrame, without the verdicts of experiments that lack runs.

    runs: {sweep: read_runs}. folder: the one that holds the results of both studies.
    """
    numbers, first = counts(runs), None
    missing = {row['experiment'] for row in numbers if row['value'] < row['n']}
    if runs['why_order'] is not None or (folder / 'study').exists():
        first, _ = read_study(folder / 'study')
    else:
        say(f"{folder}/study is not there, so experiments C and D are not compared with the first study")
    if runs['why_order'] is not None:
        numbers += order_numbers(runs['why_order'], first)
    measured = {name: None if runs[name] is None else measure(runs[name]) for name, measure in MEASURE.items()}
    numbers += why_base.base_numbers(measured) + why_load.load_numbers(measured)
    if runs['why_time'] is not None:
        numbers += time_numbers(runs['why_time'])
    numbers += why_examples.example_numbers(measured)
    results = {name: read_results(folder, name) for name in ('why_base', 'why_shuffled')}
    numbers += unplanned_numbers(measured, results, first, runs['why_time'])
    numbers = pd.DataFrame(numbers, columns=COLUMNS)
    sizes = ['value', 'low', 'high']
    numbers[sizes] = numbers[sizes].astype(float).round(9) + 0.0  # a mean of 0 is no -9e-19 and no -0
    return numbers[numbers.verdict.isna() | ~numbers.experiment.isin(missing)].reset_index(drop=True)


if __name__ == '__main__':
    parser = argument_parser(__doc__)
    parser.add_argument('folder', nargs='?', type=Path, default=REPO / 'results', help='default: results')
    parser.add_argument('--markdown', action='store_true', help='print study/why_tables.md, and write nothing')
    args = parser.parse_args()
    output = args.folder / 'why'
    if args.markdown:
        with explained(f"{output}/numbers.csv cannot be read ({{}}): run study/why.py without --markdown first"):
            numbers = pd.read_csv(output / 'numbers.csv', dtype=dict.fromkeys(['condition', 'test', 'verdict'], object))
            numbers = numbers[COLUMNS]  # raises if one is missing
        print(all_tables(numbers), end='')
    else:
        from study.why_figures import figures
        runs = {name: read_runs(args.folder, name) for name in SWEEPS}
        if not any(answers is not None for answers in runs.values()):
            raise UserError(f"no runs of the study in {args.folder}: it must hold why_order or another of its sweeps")
        numbers = all_numbers(runs, args.folder)
        output.mkdir(exist_ok=True)
        write_file(output / 'numbers.csv', numbers.to_csv(index=False, float_format='%.6g'))
        for name, figure in figures(numbers, runs['why_base']).items():
            save(figure, output / f'{name}.png')
        print(f"{counted(numbers)}\nwrote numbers.csv and the figures into {output}")
