"""
Summarise a sweep: means and 95% intervals over the seeds of each config, from the results.csv of its model folders.

$ python summarize.py sweeps/main
$ python summarize.py sweeps/main --output=results/main
$ python summarize.py results/paper --compare math_mini_14 math_mini_28

Writes summary.csv into the sweep's folder and prints a table. sweep.py runs this script when it ends. --output writes a
copy instead, which is enough to summarise and plot the sweep again without its model folders: summary.csv,
results.csv.gz with the rows of all runs, and answers.csv.gz with the graded tables of each run's last evaluation (when
is 'last') and of the first with 99% training accuracy ('fit'). --compare only prints how two configs differ in final
accuracies and losses: the difference of the means over the seeds, its 95% interval (bootstrap), and the p-value of an
exact permutation test.
"""

import argparse
import gzip
import sys
import textwrap
from pathlib import Path

from common.arguments import argument_parser
from common.errors import UserError, explained, report_errors

if __name__ == '__main__':
    report_errors()  # before the imports that fail without the environment
import numpy as np
import pandas as pd

from common.answers import ANSWERS, COLUMNS, first_fit, read_answers
from common.files import write_file
from common.results import COPIED_RESULTS, other_tasks
from common.run_folder import contents
from common.statistics import difference
from common.sweeps import measure, paper_order, read_copy, read_sweep, summarize

COMPARED = {'final_seen_acc': 'training, %', 'final_heldout_acc': 'held out, %', 'final_all_heldout': 'all held out, %',
            'final_facts_acc': 'facts, %', 'final_train_loss': 'loss'}


def evaluation(text):
    """An argparse type: 'last', 'fit' or an iteration, as a str."""
    if text not in ('last', 'fit') and not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is neither last nor fit nor an iteration")
    return str(int(text)) if text.isdecimal() else text


def answers_at(answers, when):
    """The rows of a run's answers at one evaluation: 'last', 'fit' (the first that fits), or an iteration as a str."""
    if when == 'fit':
        return first_fit(answers)
    return answers[answers.iter == (answers.iter.max() if when == 'last' else int(when))]


def read_answers_of(folder, runs, whens):
    """The answers of a sweep's runs, {(config, seed, when): rows}. Prints what is left out, and why."""
    answers = {}
    for (config, seed), results in runs.items():
        try:
            of_run = read_answers(folder / config / f'seed_{seed}')
            if of_run.iter.max() != results.iter.iloc[-1]:
                raise UserError(f"the {ANSWERS} of {config}, seed {seed} does not end where its results.csv ends")
            answers |= {(config, seed, when): answers_at(of_run, when) for when in whens}
        except UserError as e:  # the other runs are no worse for it
            print(f"left out of {ANSWERS}: {e}", file=sys.stderr)
    return answers


def by_run(sweep):
    return {(config, seed): results for config, seeds in sweep.items() for seed, results in seeds.items()}


def with_earlier(runs, answers, output, add):
    """The runs and answers, and what only the copy in `output` has: no runs, unless add, but perhaps answers of one.

    Raises what check_addition raises.
    """
    if not (output / COPIED_RESULTS).exists():
        return runs, answers
    earlier = by_run(read_copy(output / COPIED_RESULTS))
    check_addition(runs, earlier, output, add)
    runs = earlier | runs
    lacking = {run for run in earlier.keys() - {key[:2] for key in answers}
               if len(runs[run]) == len(earlier[run]) and begins_with(runs[run], earlier[run])}
    if lacking and (output / ANSWERS).exists():
        table = read_answers(output).astype({'seed': int})
        answers = answers | {key: rows.drop(columns=['config', 'seed', 'when'])
                             for key, rows in table.groupby(['config', 'seed', 'when'], sort=False)
                             if key[:2] in lacking}
    return runs, answers


def check_addition(runs, earlier, output, add):
    """Raise UserError if runs of the copy in `output`, the earlier ones, would be lost, or if it could not be read."""
    for run in sorted(earlier):
        name = f"{run[0]}, seed {run[1]}"
        if run not in runs and not add:
            raise UserError(f"{output} has {name}, which is no finished run of the sweep: keep it with --add, or "
                            "choose another --output")
        if run in runs and add and not begins_with(runs[run], earlier[run]):
            raise UserError(f"{output} has another run of {name}, or a longer one: choose another --output")
    for config in {config for config, _ in runs}:
        ends = {results.iter.iloc[-1] for (of, _), results in (earlier | runs).items() if of == config}
        if len(ends) > 1:
            raise UserError(f"with those in {output}, the runs of {config} end at iterations {min(ends):,} and "
                            f"{max(ends):,}: choose another --output")


def begins_with(results, earlier):
    """Whether a run's rows begin with these earlier ones, but for the time that they took."""
    begin, kept = (table[['iter', 'val_loss']][:len(earlier)] for table in (results, earlier))
    return begin.shape == kept.shape and np.allclose(begin, kept, equal_nan=True)


def write_copy(folder, sweep, output, whens, add):
    """Write the results.csv.gz and answers.csv.gz of a sweep into the folder `output`; see this file's docstring."""
    if (folder / COPIED_RESULTS).exists():
        raise UserError(f"{folder} is a copy made with --output: give the original sweep, sweeps/NAME")
    if output.is_dir() and contents(output) and not (output / COPIED_RESULTS).exists():
        raise UserError(f"{output} holds other things than the copy of a sweep: choose another --output")
    runs = by_run(sweep)
    runs, answers = with_earlier(runs, read_answers_of(folder, runs, whens), output, add)
    kept = {key: rows for key, rows in answers.items() if len(rows)}  # a run may never fit, or skip an iteration
    for when in whens:
        if when.isdecimal() and answers and when not in {at for *_, at in kept}:
            raise UserError(f"no run of {folder} has answers of iteration {when}: name another with --when")
    if not kept and (output / ANSWERS).exists():
        raise UserError(f"no run of {folder} has answers to copy, but {output} has an {ANSWERS}: choose another "
                        "--output")
    with explained(f"cannot write {output}: {{}}", OSError):
        output.mkdir(parents=True, exist_ok=True)

    def place(key):
        return paper_order(key[0]), key[1]
    # convert_dtypes: whole numbers are written as such
    tables = {COPIED_RESULTS: pd.concat({run: runs[run] for run in sorted(runs, key=place)},
                                        names=['config', 'seed']).convert_dtypes()}
    if kept:
        tables[ANSWERS] = pd.concat({key: kept[key] for key in sorted(kept, key=place)},
                                    names=['config', 'seed', 'when'])[[*COLUMNS, 'terminator']]
    for name, table in tables.items():
        content = table.droplevel(-1).to_csv(float_format='%.6g' if name == ANSWERS else None)
        write_file(output / name, gzip.compress(content.encode(), mtime=0))


def cell(metrics, name):
    """A metric in per cent, as '87.5 (74.9 to 100.0)', or ''. metrics: the summary of a config, by metric."""
    if name not in metrics.index:
        return ''
    m = metrics.loc[name]
    if m.seeds == 1:
        return f"{100 * m['mean']:.1f}"
    interval = 'no spread' if m['std'] < 1e-9 else f"{100 * m.low:.1f} to {100 * m.high:.1f}"
    return f"{100 * m['mean']:.1f} ({interval})"


def seeds_all_right(metrics):
    """How many seeds end with every held-out question right, as '6 of 10'; '' if none is held out."""
    if 'final_all_heldout' not in metrics.index:
        return ''
    m = metrics.loc['final_all_heldout']
    return f"{round(m['mean'] * m.seeds)} of {m.seeds}"


def print_table(summary, sweep):
    """The final accuracies of a sweep in 80 columns: two lines for each config, and one for each task of its own."""
    print(f"  {'training':<22}{'facts':<22}{'held out':<22}all held out")
    for config, metrics in summary.groupby('config', sort=False):
        metrics = metrics.set_index('metric')
        others = other_tasks(next(iter(sweep[config].values())))
        training = 'final_seen_acc' if others else 'final_seen_sums_acc'
        cells = ''.join(f'{cell(metrics, name):<22}' for name in (training, 'final_facts_acc', 'final_heldout_acc'))
        print(textwrap.fill(f"{config}, {metrics.iters.iloc[0]:,} iterations, seeds: {metrics.seeds.max()}", 80))
        print(f'  {cells}{seeds_all_right(metrics)}'.rstrip())
        for task in others:
            print(textwrap.fill(f"  {task}: {cell(metrics, f'final_{task}_acc')}", 80))
    print("final accuracies in %: mean over the seeds (95% interval)\n"
          "(no spread): all seeds agree; training: arithmetic, or all of one's own tasks\n"
          "all held out: seeds that have all held-out questions right")


def print_comparison(sweep, names):
    """How two configs of a sweep differ after the last iteration, a line for each measure that both have."""
    for name in names:
        if name not in sweep:
            raise UserError(f"the sweep has no {name}: name two of {', '.join(sweep)}")
        if len(sweep[name]) < 2:
            raise UserError(f"{name} has one seed, and a comparison needs several: train more seeds of it")
    first, second = (pd.DataFrame(map(measure, sweep[name].values())) for name in names)
    ends = dict.fromkeys(f"{next(iter(sweep[name].values())).iter.iloc[-1]:,.0f}" for name in names)
    print(textwrap.fill(f"{' minus '.join(names)}, final ({len(first)} and {len(second)} seeds, {' and '.join(ends)} "
                        "iterations)", 80, break_on_hyphens=False))
    others = {f'final_{task}_acc': f'{task}, %' for task in other_tasks(next(iter(sweep[names[0]].values())))}
    for metric, label in {**COMPARED, **others}.items():
        if metric in first and metric in second:
            scale = 100 if '%' in label else 1
            means = [scale * table[metric].mean() for table in (first, second)]
            value, low, high, p = difference(first[metric], second[metric])
            value, low, high = (round(scale * x, 4) for x in (value, low, high))  # so that it fits into 80 columns
            print(f"  {label:<16} {means[0]:.4g} - {means[1]:.4g} = {value:.4g} ({low:.4g} to {high:.4g}), p = {p:.2g}")


if __name__ == '__main__':
    parser = argument_parser(__doc__)
    parser.add_argument('folder', type=Path, help='the folder of a sweep')
    parser.add_argument('--output', type=Path, metavar='FOLDER', help='write a copy there instead, three files')
    parser.add_argument('--when', nargs='+', type=evaluation, metavar='WHEN',
                        help="evaluations to keep in answers.csv.gz: last, fit or iterations (default: last fit)")
    parser.add_argument('--add', action='store_true', help='keep the runs that only the copy in --output has')
    parser.add_argument('--compare', nargs=2, metavar='CONFIG', help='print how two configs differ, and write nothing')
    args = parser.parse_args()
    if not args.output and (args.add or args.when):
        parser.error("--add and --when say what a copy holds: name its folder with --output")
    if args.output and args.compare:
        parser.error("--compare writes nothing: omit --output")
    sweep = read_sweep(args.folder)
    if args.compare:
        print_comparison(sweep, args.compare)
    else:
        if args.output:
            write_copy(args.folder, sweep, args.output, args.when or ['last', 'fit'], args.add)
            sweep = read_sweep(args.output) if args.add else sweep
        summary = summarize(sweep)
        write_file((args.output or args.folder) / 'summary.csv', summary.to_csv(index=False, float_format='%.6g'))
        print_table(summary, sweep)
        if args.output:
            print(f"wrote a copy of the sweep into {args.output}")
