"""
What a sweep found: means and 95 % intervals over the seeds of each config, from the results.csv of its model folders.

$ python summarize.py sweeps/main
$ python summarize.py sweeps/main --output=results/main

Writes summary.csv into the sweep's folder, and prints it as a table. With --output, also copies every results.csv
there: small files that are enough to summarize and plot the sweep again, without its checkpoints. sweep.py calls this
at its end. Needs scipy (pip install -r requirements-dev.txt).
"""

import argparse
import sys
from pathlib import Path

import pandas as pd

from atomic_io import atomic_open

CLASSIC_COLUMNS = ['iter', 'add_correct', 'add_total', 'sub_correct', 'sub_total', 'math_acc',
                   'facts_correct', 'facts_total', 'facts_acc', 'train_loss', 'val_loss']


def read_results(folder):
    """The rows of a model folder as a DataFrame of float: of temp.csv while the run goes on, else of results.csv."""
    folder = Path(folder)
    if not folder.is_dir():
        sys.exit(f"error: model folder {folder} not found: check its name, or train it with train_with_eval.py first")
    path = next((folder / name for name in ('temp.csv', 'results.csv') if (folder / name).exists()), None)
    if path is None:
        sys.exit(f"error: no results.csv in {folder}: train it with train_with_eval.py first")
    try:
        results = pd.read_csv(path)
        missing = [column for column in CLASSIC_COLUMNS if column not in results]
        if missing:
            sys.exit(f"error: {path} has no column {missing[0]}: it is no results.csv of train_with_eval.py")
        results = results.astype(float)
    except (ValueError, OSError) as e:  # pandas' parser errors are ValueErrors
        reason = 'it is empty' if isinstance(e, pd.errors.EmptyDataError) else str(e).splitlines()[0]
        sys.exit(f"error: {path} cannot be read ({reason}): train again, or wait for the first evaluation")
    if results.empty:
        sys.exit(f"error: {path} has no rows: train again, or wait for the first evaluation")
    return results


def seed_folders(folder):
    """The model folders seed_N of a config in a sweep, in the order of the seeds; empty for any other folder."""
    folders = [path for path in Path(folder).glob('seed_*') if path.name[5:].isdecimal() and path.is_dir()]
    return sorted(folders, key=lambda path: int(path.name[5:]))


def read_seeds(folder):
    """The runs of a config over seeds: dict of model folder to read_results' DataFrame; {} for any other folder.

    Runs that are still going on, or have not reached the last iteration of their config's longest run, are left out.
    """
    runs = {run: read_results(run) for run in seed_folders(folder)
            if (run / 'results.csv').exists() and not (run / 'temp.csv').exists()}
    end = max((results.iter.iloc[-1] for results in runs.values()), default=0)
    return {run: results for run, results in runs.items() if results.iter.iloc[-1] == end}


def count_parameters(folder, name=None):
    """Number of parameters of the model in checkpoint `name` of a folder (default: whichever is there), or None."""
    names = [name] if name else ['ckpt.pt', 'ckpt_last.pt', 'ckpt_best_math.pt', 'ckpt_best_facts.pt']
    path = next((Path(folder) / n for n in names if (Path(folder) / n).exists()), None)
    if path is None:
        if name:
            sys.exit(f"error: checkpoint {Path(folder) / name} not found: leave --checkpoint out")
        return None
    from eval_utils import load_checkpoint, model_from_checkpoint  # torch takes seconds to import: only where needed
    try:
        return model_from_checkpoint(load_checkpoint(path), path).get_num_params(non_embedding=False)
    except SystemExit:
        if name:
            raise
        return None  # a damaged checkpoint is no reason not to draw the curves


def best_row(results):
    """The first row of the highest accuracy: of sums, of facts, or of the mean of both where a dataset has both.

    The checkpoint that the paper reports. It is picked by the very score that is reported, which flatters it.
    """
    has_math, has_facts = results.add_total.max() + results.sub_total.max() > 0, results.facts_total.max() > 0
    return results.loc[(results.math_acc * has_math + results.facts_acc * has_facts).idxmax()]


def measure(results):
    """What one run found: dict of metric to value. Accuracies, probabilities: fractions of 1; iterations: NaN if never."""
    final, best = results.iloc[-1], best_row(results)
    metrics = {}
    for when, row in (('final', final), ('best', best)):
        for task in ('add', 'sub', 'facts', 'heldout'):
            if row.get(f'{task}_total', 0) > 0:
                metrics[f'{when}_{task}_acc'] = row[f'{task}_correct'] / row[f'{task}_total']
        asked = row.add_total + row.sub_total - row.get('heldout_total', 0)
        if asked > 0:
            metrics[f'{when}_seen_sums_acc'] = (row.add_correct + row.sub_correct - row.get('heldout_correct', 0)) / asked
        for column in ('seen_acc', 'seen_prob', 'heldout_prob', 'train_loss'):
            if column in row and (column != 'heldout_prob' or row.heldout_total > 0):
                metrics[f'{when}_{column}'] = row[column]
    for group in ('seen', 'heldout'):
        if f'{group}_acc' in results and (group != 'heldout' or final.heldout_total > 0):
            reached = results.iter[results[f'{group}_acc'] == 1.0]
            metrics[f'first_iter_all_{group}'] = reached.min()  # NaN where there is none
            metrics[f'final_all_{group}'] = float(final[f'{group}_acc'] == 1.0)
            metrics[f'ever_all_{group}'] = float(len(reached) > 0)
    return metrics


def interval(metric, values):
    """95 % interval of a mean over seeds: (low, high), NaN where one seed cannot tell.

    Shares of seeds (*_all_*): Wilson's, made for small counts. Everything else: Student's t, cut to [0, 1] for
    accuracies and probabilities, to 0 for losses and iterations.
    """
    from scipy import stats
    n, mean = len(values), values.mean()
    if is_share(metric):
        wilson = stats.binomtest(int(values.sum()), n).proportion_ci(method='wilson')
        return wilson.low, wilson.high
    if n < 2:
        return float('nan'), float('nan')
    half = stats.t.ppf(0.975, n - 1) * values.std() / n ** 0.5
    low, high = max(mean - half, 0.0), mean + half  # no metric is negative
    return low, min(high, 1.0) if metric.endswith(('_acc', '_prob')) else high


def is_share(metric):
    """Whether a metric is 1 or 0 for each seed, so that its mean is a share of the seeds."""
    return metric.startswith(('final_all_', 'ever_all_'))


def summarize(folder):
    """Write summary.csv of a sweep's folder and return it as a DataFrame; exits where no run is there.

    A row per config and metric: config, n_params, iters (where its runs end), metric, seeds (that have it:
    never-reached iterations are left out), mean, std, low, high (95 % interval).
    """
    check_scipy()
    folder = Path(folder)
    path = folder / 'summary.csv'
    n_params = {}
    if path.exists():  # where only results.csv were kept, the parameters are known from before
        try:
            n_params = pd.read_csv(path).groupby('config').n_params.first().to_dict()
        except (ValueError, KeyError, AttributeError) as e:
            sys.exit(f"error: {path} is damaged ({str(e).splitlines()[0]}): delete it, it is made anew")
    rows = []
    for config_folder in sorted(folder.glob('*')):
        runs = read_seeds(config_folder)
        if not runs:
            continue
        for run in seed_folders(config_folder):
            if run not in runs:
                print(f"left out: {run} has not reached the end of the others, or has diverged")
        config = config_folder.name
        n_params[config] = next(filter(None, map(count_parameters, runs)), n_params.get(config))
        iters = int(next(iter(runs.values())).iter.iloc[-1])
        table = pd.DataFrame([measure(results) for results in runs.values()])
        for metric in table:
            values = table[metric].dropna()
            if len(values):
                low, high = interval(metric, values)
                rows.append(dict(config=config, n_params=n_params[config], iters=iters, metric=metric, seeds=len(values),
                                 mean=values.mean(), std=values.std(), low=low, high=high))
    if not rows:
        sys.exit(f"error: no runs in {folder}: it must hold CONFIG/seed_N/results.csv, as sweep.py makes them")
    summary = pd.DataFrame(rows).astype({'n_params': 'Int64'})
    summary = summary.sort_values(['n_params', 'config'], kind='stable').reset_index(drop=True)
    write(path, summary.to_csv(index=False, float_format='%.6g'))
    return summary


def write(path, text):
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_open(path) as f:
            f.write(text)
    except OSError as e:
        sys.exit(f"error: cannot write {path}: {e.strerror}")


def check_scipy():
    try:
        import scipy.stats  # noqa: F401
    except ImportError:
        sys.exit("error: the intervals need scipy: pip install -r requirements-dev.txt")


def print_summary(summary):
    """The accuracies of a summary, for people: a line per config, mean and interval in per cent."""
    columns = ['final_seen_sums_acc', 'final_heldout_acc', 'final_facts_acc', 'best_heldout_acc', 'final_heldout_prob']
    columns = [column for column in columns if column in set(summary.metric)]
    names = {column: column.removesuffix('_acc').replace('_', ' ').replace('heldout', 'held out') for column in columns}
    heads = ''.join(f'{names[column]:>24}' for column in columns)
    print(f"{'config':<16}{'iterations':>11}{'seeds':>7}{heads}  ends with all held out")
    for config, rows in summary.groupby('config', sort=False):
        rows = rows.set_index('metric')
        line = f"{config:<16}{rows.iters.iloc[0]:>11,}{int(rows.seeds.max()):>7}"
        for column in columns:
            cell = ''
            if column in rows.index:
                r = rows.loc[column]
                cell = f"{100 * r['mean']:.1f}" + (f" ({100 * r.low:.1f} to {100 * r.high:.1f})" if r.seeds > 1 else '')
            line += f'{cell:>24}'
        if 'final_all_heldout' in rows.index:
            share = rows.loc['final_all_heldout']
            line += f"  {round(share['mean'] * share.seeds)} of {share.seeds} seeds"
        print(line)
    print("in %, mean over seeds (95 % interval of the mean); best: the evaluation with the highest accuracy of the run")


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('folder', help='the folder of a sweep')
    parser.add_argument('--output', metavar='FOLDER', help='also copy summary.csv and every results.csv there')
    args = parser.parse_args()
    print_summary(summarize(args.folder))
    if args.output:
        folder = Path(args.folder)
        output = Path(args.output)
        runs = [run.relative_to(folder) for config_folder in folder.glob('*') for run in read_seeds(config_folder)]
        others = [path for path in output.glob('*/seed_*/results.csv') if path.parent.relative_to(output) not in runs]
        if others:  # they would be summed up with this sweep's
            sys.exit(f"error: {others[0]} is of no finished run of {folder}: delete it first, or choose another --output")
        for path in ['summary.csv', *(run / 'results.csv' for run in runs)]:
            write(output / path, (folder / path).read_text())
        print(f"copied to {args.output}")
