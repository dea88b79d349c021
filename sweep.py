"""
Train a set of configs times seeds, side by side, and put means and intervals over the seeds into summary.csv.

$ python sweep.py config/train_math_mini_14.py config/train_math_mini_28.py --seeds=5
$ python sweep.py config/train_math_mini_14.py --seeds=3 --name=decay --weight_decay=0.1
$ python sweep.py config/train_math_mini_*.py --seeds=10 --cluster=slurm --cluster_options slurm_partition=gpu timeout_min=120

Every run is a model folder of train_with_eval.py, sweeps/NAME/CONFIG/seed_N, with its output beside it in seed_N.log;
--key=value goes to all of them. The same command again skips what is finished and resumes what is not. One failure
does not stop the others. Needs scipy, and submitit for --cluster (pip install -r requirements-dev.txt).
"""

import argparse
import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm import tqdm

from configurator import settings_of
from summarize import check_scipy, print_summary, summarize

TRAIN = Path(__file__).resolve().parent / 'train_with_eval.py'
# Settings with which a run may go on though it began with others: where it runs, how long, and what it shows
PLACE = {'out_dir', 'init_from', 'seed', 'max_iters', 'log_interval', 'device', 'compile', 'num_threads', 'backend',
         'wandb_log', 'wandb_project', 'wandb_run_name'}


def last_iter(folder):
    """The iteration of the newest evaluation of a model folder, and whether its run has ended: (-1, False) for none."""
    for name in ('temp.csv', 'results.csv'):
        try:
            return int((folder / name).read_text().splitlines()[-1].split(',')[0]), name == 'results.csv'
        except (OSError, ValueError, IndexError):
            continue
    return -1, False


def share_done(folder, max_iters):
    return min(1.0, max(0, last_iter(folder)[0]) / max(1, max_iters))


def is_finished(folder, max_iters):
    iter_num, ended = last_iter(folder)
    return ended and iter_num >= max_iters


def train(argv, folder, max_iters, threads):
    """One run of the sweep, from its newest checkpoint if it has one: returns train_with_eval.py's exit code.

    Runs in a thread of this process, or on another machine of a cluster. The output is appended to FOLDER.log.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    if folder.is_dir():  # a training that has outlived a killed sweep is still at it: wait for its end
        fd = os.open(folder, os.O_RDONLY)
        fcntl.flock(fd, fcntl.LOCK_EX)
        os.close(fd)
    if is_finished(folder, max_iters):
        return 0
    init_from = 'resume' if (folder / 'ckpt_last.pt').exists() else 'scratch'
    command = [sys.executable, str(TRAIN), *argv, f'--out_dir={folder}', f'--init_from={init_from}']
    with open(f'{folder}.log', 'a') as log:
        # So many threads for each run that side by side they do not fight for the cores. A session of its own, for
        # Ctrl-C would reach it from the terminal and from stop() below, and a second signal ends it unsaved.
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                                   env={**os.environ, 'OMP_NUM_THREADS': str(threads)}, start_new_session=True)
        running.add(process)
        try:
            return process.wait()
        finally:
            running.discard(process)


def log_size(folder):
    return os.path.getsize(f'{folder}.log') if os.path.exists(f'{folder}.log') else 0


def read_log(folder, start):
    """The reason of a failure: the last line of a run's log that names an error, else the last; from byte `start` on."""
    try:
        lines = Path(f'{folder}.log').read_bytes()[start:].decode(errors='replace').split('\n')
    except OSError:
        return 'it could not be started'
    lines = [line for line in lines if line.strip()] or ['it has no output']
    return next((line for line in reversed(lines) if 'rror' in line), lines[-1])


def make_executor(args, threads):
    """A pool of threads here, each of which waits for one process; or submitit's executor: both have submit()."""
    if args.cluster == 'here':
        return ThreadPoolExecutor(args.jobs)
    try:
        import submitit
    except ImportError:
        sys.exit("error: --cluster needs submitit: pip install -r requirements-dev.txt")
    try:
        executor = submitit.AutoExecutor(folder=args.folder / 'submitit', cluster=args.cluster)
        executor.update_parameters(name=args.name, cpus_per_task=threads, timeout_min=24 * 60)
        executor.update_parameters(**args.cluster_options)
    except (RuntimeError, NameError, TypeError, ValueError) as e:
        sys.exit(f"error: --cluster={args.cluster} cannot be used here: {' '.join(str(e).split())}")
    return executor


def option(text):
    key, sep, value = text.partition('=')
    if not (sep and key and value):
        raise argparse.ArgumentTypeError(f"{text!r} is not key=value")
    return key, int(value) if value.isdecimal() else value


def count(text):
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number above 0, not {text}")
    return int(text)


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
                                     allow_abbrev=False)
    parser.add_argument('configs', nargs='+', metavar='CONFIG', help='config files of train_with_eval.py')
    parser.add_argument('--seeds', type=count, default=5, help="seeds of each config, from its own on (default: 5)")
    parser.add_argument('--name', default='main', help='the sweep is in sweeps/NAME (default: main)')
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    parser.add_argument('--jobs', type=count, default=cores,
                        help='runs side by side here, which share its cores (default: a core for each; one GPU: 1)')
    parser.add_argument('--cluster', default='here', choices=['here', 'slurm', 'local', 'debug'],
                        help='where runs go: processes here, or submitit: slurm, and its local and debug for testing')
    parser.add_argument('--cluster_options', nargs='*', type=option, default=[], metavar='KEY=VALUE',
                        help='parameters of submitit, e.g. slurm_partition=gpu timeout_min=600 cpus_per_task=2')
    args, rest = parser.parse_known_args()
    args.configs += [arg for arg in rest if not arg.startswith('-')]  # those behind an option
    overrides = [arg for arg in rest if arg.startswith('-')]
    for override in overrides:
        if not override.startswith('--') or '=' not in override:
            parser.error(f"unknown option {override}: settings of train_with_eval.py are written --key=value")
        if override[2:].split('=')[0] in ('seed', 'out_dir', 'init_from', 'eval_only'):
            parser.error(f"{override} cannot be set: a sweep sets it for each run")
    args.cluster_options = dict(args.cluster_options)
    args.folder = Path('sweeps') / args.name
    return args, overrides, max(1, cores // args.jobs)


def plan_runs(args, overrides):
    """All runs of the sweep: dict of model folder to (argv, max_iters).

    Exits where settings are wrong, or where a folder was trained with others or on another text.
    """
    runs = {}
    all_settings = [settings_of(TRAIN, [config, *overrides]) for config in args.configs]
    for seed_number in range(args.seeds):  # seeds outside, so that an early look sees every config
        for config, settings in zip(args.configs, all_settings):
            seed = settings['seed'] + seed_number
            folder = args.folder / Path(config).stem.removeprefix('train_') / f'seed_{seed}'
            if folder in runs:
                sys.exit(f"error: two configs are called {folder.parent.name}: rename one")
            runs[folder] = [config, *overrides, f'--seed={seed}'], settings['max_iters']
            check_unchanged(folder, settings)
    return runs


def check_unchanged(folder, settings):
    """Exit where a run that is there already was begun with other settings, or on another text."""
    if not (folder / 'ckpt_last.pt').exists():
        return
    from eval_utils import DATA, load_checkpoint, text_sha256  # torch takes seconds to import
    try:
        checkpoint = load_checkpoint(folder / 'ckpt_last.pt')
    except SystemExit:
        return  # damaged: this run will say so, and the others go on
    before = checkpoint.get('config', {})
    if checkpoint.get('iter_num', 0) > settings['max_iters']:
        sys.exit(f"error: {folder} is at iteration {checkpoint['iter_num']} already: choose another --name, or a larger "
                 "--max_iters")
    changed = [key for key in settings if key not in PLACE and before.get(key, settings[key]) != settings[key]]
    if changed:
        key = changed[0]
        sys.exit(f"error: {folder} was trained with {key}={before[key]!r}, not {settings[key]!r}: choose another --name, "
                 "or the settings it was begun with")
    path = DATA / settings['dataset'] / 'train.bin'
    if path.exists() and checkpoint.get('data_sha256', '') != text_sha256(settings['dataset']):
        sys.exit(f"error: {folder} was trained on another text: data/{settings['dataset']} has been prepared with other "
                 "options since; choose another --name, or prepare it as it was")


running = set()  # processes of this machine
stopped = threading.Event()


def stop(signum, frame):
    """Ctrl-C, SIGTERM: the trainings save and stop, and the same command goes on later. A second signal ends at once."""
    if stopped.is_set():
        os._exit(128 + signum)
    stopped.set()


if __name__ == '__main__':
    check_scipy()
    args, overrides, threads = parse_arguments()
    runs = plan_runs(args, overrides)
    todo = {folder: run for folder, run in runs.items() if not is_finished(folder, run[1])}
    print(f"{len(runs)} runs in {args.folder}, {len(runs) - len(todo)} finished already")
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, stop)
    executor = make_executor(args, threads)
    log_starts = {folder: log_size(folder) for folder in runs}
    try:
        futures = {folder: executor.submit(train, argv, folder, max_iters, threads)
                   for folder, (argv, max_iters) in todo.items()}
    except Exception as e:  # sbatch is there, say, and no cluster behind it
        sys.exit(f"error: --cluster={args.cluster} cannot be used here: {' '.join(str(e).split())[-200:]}")
    failed = []
    with tqdm(total=len(runs), initial=sum(share_done(folder, runs[folder][1]) for folder in runs), unit='run',
              bar_format='{l_bar}{bar}| {n:.2f}/{total} runs [{elapsed}<{remaining}]',
              disable=not sys.stderr.isatty()) as bar:
        pending = dict(futures)
        while pending and not stopped.wait(1):
            for folder, future in [*pending.items()]:
                if future.done():
                    del pending[folder]
                    try:
                        code = future.result()
                    except Exception as e:  # a cluster's worker was lost: whatever it says
                        code = ' '.join(str(e).split())[:200] or type(e).__name__
                    if code:
                        failed.append(folder)
                    if code or bar.disable:
                        tqdm.write(f"{folder}: " + (f"failed ({code}): {read_log(folder, log_starts[folder])}" if code
                                                   else "done"))
            bar.n = len(runs) - len(pending) + sum(share_done(folder, runs[folder][1]) for folder in pending)
            bar.refresh()
    if stopped.is_set():
        for future in futures.values():
            future.cancel()  # those not begun; on a cluster, all
        time.sleep(0.2)  # for one that is just being started
        told = set()
        while running - told or any(process.poll() is None for process in told):
            for process in running - told:  # once each, for a second signal would end them at once
                process.terminate()
                told.add(process)
            time.sleep(0.2)
        print("stopped; the same command goes on from where the runs are", flush=True)
        os._exit(130)  # a thread may yet wait for a training that an earlier sweep left behind
    if len(failed) < len(runs):
        print_summary(summarize(args.folder))
        print(f"{args.folder / 'summary.csv'} has all; next:\n  python plot_results.py --sweep {args.folder}")
    if failed:
        print(f"{len(failed)} of {len(runs)} runs failed:")
        for folder in failed:
            print(f"  {folder}: {read_log(folder, log_starts[folder])} (all in {folder}.log)")
        sys.exit(1)
