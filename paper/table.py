"""
The paper's numbers beside ours: the tables that docs/results.md takes its numbers from.

$ python paper/table.py results/paper
$ python paper/table.py results/weight_decay

Reads a sweep, or the copy of one, and results/paper_values.csv, which has what Barron & White 2025 report for the sweep
of the same name. Prints a row for each config, and writes the same into table.md in that folder.
"""

import sys
from pathlib import Path

REPO = Path(__file__).absolute().parents[1]
sys.path.insert(0, str(REPO))
from common.arguments import argument_parser
from common.errors import report_errors

if __name__ == '__main__':
    report_errors()  # before the imports that fail without the environment
import pandas as pd

from common.files import write_file
from common.sweeps import read_sweep, summarize
from summarize import cell, seeds_all_right

PAPER = REPO / 'results' / 'paper_values.csv'
PAPER_ITERS = 30000  # where the paper's runs end
HEAD = ['config', 'seeds', 'best, paper (%)', 'best, ours (%)', 'final training accuracy, arithmetic (%)',
        'final held-out accuracy (%)', 'seeds with all held-out right', 'final accuracy, facts (%)', 'loss, paper',
        'loss, ours']


def table(summary, name):
    """The lines of the table for a summary, with the paper's numbers for the sweep of this name."""
    reported = pd.read_csv(PAPER, dtype=str, keep_default_na=False)
    reported = reported[reported.sweep == name].set_index('config').to_dict('index')
    lines = [HEAD]
    for config, metrics in summary.groupby('config', sort=False):
        metrics, paper, iters = metrics.set_index('metric'), reported.get(config, {}), metrics.iters.iloc[0]
        theirs = [paper[task] for task in ('add', 'sub', 'facts') if paper.get(task)]
        ours = [f'{100 * metrics["mean"][metric]:.1f}' for metric in ('best_add_acc', 'best_sub_acc', 'best_facts_acc')
                if metric in metrics.index]
        all_right = seeds_all_right(metrics)
        if all_right:
            low, high = 100 * metrics.loc['final_all_heldout', ['low', 'high']]
            all_right += f' ({low:.0f} to {high:.0f}%)'
        lines.append([config if iters == PAPER_ITERS else f'{config}, {iters:,} iterations', metrics.seeds.max(),
                      ' / '.join(theirs), ' / '.join(ours), cell(metrics, 'final_seen_sums_acc'),
                      cell(metrics, 'final_heldout_acc'), all_right, cell(metrics, 'final_facts_acc'),
                      paper.get('loss', ''), f"{metrics['mean']['final_train_loss']:.3f}"])
    first, *others = ['| ' + ' | '.join(map(str, line)) + ' |' for line in lines]
    return [first, '|---' * len(HEAD) + '|', *others]


if __name__ == '__main__':
    parser = argument_parser(__doc__)
    parser.add_argument('folder', type=Path, help='the folder of a sweep, or of its copy')
    folder = parser.parse_args().folder
    text = '\n'.join(table(summarize(read_sweep(folder)), folder.resolve().name)) + '\n'
    print(text, end='')
    write_file(folder / 'table.md', text)
