"""
Train several configs with several seeds each, side by side, and summarise them: means and intervals over the seeds.

$ python sweep.py config/train_math_mini_14.py config/train_math_mini_28.py --seeds=5
$ python sweep.py config/train_math_mini_14.py --seeds=3 --name=decay --weight_decay=0.1
$ python sweep.py config/train_math_mini_14.py --n_embd=14,28 --dataset=rounds_1_{seed},rounds_2_{seed} --name=widths
$ python sweep.py config/train_math_mini_*.py --cluster=slurm --cluster_options slurm_partition=gpu timeout_min=120

Every run is a model folder of train_with_eval.py, sweeps/NAME/CONFIG/seed_N, with its output beside it in seed_N.log.
--key=value goes to all runs; --key=a,b trains every combination of the listed values, and CONFIG then names them:
math_mini,n_embd=14,dataset=rounds_1. In a value, {seed} stands for the run's seed. A repeated command skips
finished runs and resumes the others. --finished=FOLDER also skips the runs in a copy that summarize.py --output wrote.
If one run fails, the others go on. --cluster needs submitit (pip install -r requirements-dev.txt).
"""

import argparse
import itertools
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

from common.arguments import argument_parser
from common.errors import UserError, explained, report_errors, say

if __name__ == '__main__':
    report_errors()  # before the imports that fail without the environment
import numpy as np
from tqdm import tqdm

from common.cores import usable_cores
from common.dataset import DATA, hint_of_dataset, text_sha256
from common.run_folder import lock_folder
from common.signals import stop_by_signal, was_stopped
from configurator import settings_of

HERE = Path(__file__).absolute().parent
TRAIN = HERE / 'train_with_eval.py'
stop = SimpleNamespace(code=0)  # becomes a signal's exit code when the sweep should stop


def option(text):
    key, _, value = text.partition('=')
    if not (key and value):
        raise argparse.ArgumentTypeError(f"{text!r} is not key=value")
    return key, int(value) if value.isdecimal() else value


def parse_arguments():
    """The sweep's own options, and parse_overrides of the others: (args, dict)."""
    cores = usable_cores()
    parser = argument_parser(__doc__)
    parser.add_argument('configs', nargs='+', metavar='CONFIG', help='config files of train_with_eval.py')
    parser.add_argument('--seeds', type=int, default=5, help='seeds per config, from --seed upwards (default: 5)')
    parser.add_argument('--seed', type=int, help="the first seed (default: the config's own)")
    parser.add_argument('--name', default='main', help='the sweep is in sweeps/NAME (default: main)')
    parser.add_argument('--finished', type=Path, metavar='FOLDER', help='skip the runs in this copy of the sweep')
    parser.add_argument('--jobs', type=int, default=cores,
                        help='runs at a time on this machine (default: one per core; with one GPU use 1)')
    parser.add_argument('--cluster', default='here', choices=['here', 'slurm', 'local', 'debug'],
                        help='where to run: here, or through submitit on slurm (local, debug: to test submitit)')
    parser.add_argument('--cluster_options', nargs='*', type=option, default=[], metavar='KEY=VALUE',
                        help='parameters for submitit, e.g. slurm_partition=gpu timeout_min=600 cpus_per_task=2')
    args, rest = parser.parse_known_args()
    if Path(args.name).name != args.name or args.name in ('', '..'):
        parser.error(f"--name must be a folder name without /, not {args.name!r}")
    if args.seeds < 1 or args.jobs < 1:
        parser.error("--seeds and --jobs must be above 0")
    args.configs += [arg for arg in rest if not arg.startswith('-')]  # the configs that come after an option
    args.threads = max(1, cores // args.jobs)  # per run, so that runs do not fight for the cores
    return args, parse_overrides(parser, [arg for arg in rest if arg.startswith('-')])


def parse_overrides(parser, arguments):
    """The values of the runs' settings, from --key=value and --key=a,b: dict of '--key' to list of str."""
    overrides = {}
    for override in arguments:
        key, equals, text = override.partition('=')
        if not override.startswith('--') or not equals:
            parser.error(f"unknown option {override}: settings of train_with_eval.py are written --key=value")
        if key in ('--out_dir', '--init_from', '--eval_only'):
            parser.error(f"{override} cannot be set: a sweep sets it for each run")
        if ',' in text and '' in text.split(','):
            parser.error(f"{override} lists an empty value: remove a comma")
        overrides[key] = text.split(',')  # if a key comes twice, the last one counts, as in training
    return overrides


def combinations(config, overrides, seed):
    """Every combination of the overrides' values: yields (label, arguments of train_with_eval.py).

    The label is the config's name, without its width if n_embd is set, and key=value for each key with several values.
    """
    name = Path(config).stem.removeprefix('train_')
    if '--n_embd' in overrides:
        name = re.sub(r'_\d+$', '', name)
    for values in itertools.product(*overrides.values()):
        chosen = [f'{key}={value}' for key, value in zip(overrides, values)]
        listed = [arg[2:].replace('_{seed}', '') for arg in chosen if len(overrides[arg.split('=')[0]]) > 1]
        label = ','.join([name, *listed])
        if label != Path(label).name or len(os.fsencode(label)) > 255:
            raise UserError(f"the run's folder would be called {label}, which is too long or contains a slash: list "
                            "shorter values, without /")
        yield label, [config, *(arg.replace('{seed}', str(seed)) for arg in chosen), f'--seed={seed}']


def plan_runs(args, overrides):
    """All runs of the sweep: dict of model folder to (arguments of train_with_eval.py, max_iters)."""
    runs, settled = {}, {}
    # the seeds are the outer loop, so that an early look sees every config
    for seed_number, config in itertools.product(range(args.seeds), args.configs):
        seed = seed_number + (settings_of(TRAIN, [config])['seed'] if args.seed is None else args.seed)
        for label, argv in combinations(config, overrides, seed):
            settings, folder = settings_of(TRAIN, argv), Path('sweeps', args.name, label, f'seed_{seed}')
            if folder in runs:
                raise UserError(f"two runs would be called {folder}: give each config and each value once")
            check_run(folder, config, settings)
            same = settled.setdefault(tuple(settings.items()), folder)
            if same != folder:
                raise UserError(f"{same} and {folder} would be the same run: give each value once")
            runs[folder] = argv, settings['max_iters']
    return runs


def check_run(folder, config, settings):
    """Refuse a run that cannot be trained, or that was begun with other settings or on another text."""
    if settings['init_from'] != 'scratch' or settings['eval_only']:
        raise UserError(f"{config} sets init_from or eval_only, but a sweep trains from scratch: remove them")
    text = DATA / settings['dataset'] / 'train.bin'
    if not text.exists():
        hint = "run its prepare.py first" if text.parent.is_dir() else hint_of_dataset(settings['dataset'])
        raise UserError(f"data/{settings['dataset']} is not prepared: {hint}")
    if not (folder / 'ckpt_last.pt').exists():
        return
    from common.checkpoint import check_resumable, load_checkpoint  # they need torch, which takes seconds to import
    try:
        checkpoint = load_checkpoint(folder / 'ckpt_last.pt', to_resume=True)
    except UserError:
        return  # it is damaged: this run will say so, and the others go on
    check_resumable(checkpoint, folder, settings, text_sha256(np.fromfile(text, dtype='<u2')), in_sweep=True)


def without_finished(runs, copy):
    """The runs that are not in a copy of the sweep, or are shorter there. copy: a folder, or None."""
    if not copy:
        return runs
    from common.results import COPIED_RESULTS  # they need pandas, which takes a second to import
    from common.sweeps import read_copy
    if not (copy / COPIED_RESULTS).exists():
        say(f"{copy / COPIED_RESULTS} does not exist yet: training all runs")
        return runs
    ends = {(config, seed): rows.iter.iloc[-1] for config, seeds in read_copy(copy / COPIED_RESULTS).items()
            for seed, rows in seeds.items()}
    return {folder: run for folder, run in runs.items()
            if ends.get((folder.parent.name, int(folder.name.removeprefix('seed_'))), -1) < run[1]}


def fraction_done(folder, max_iters):
    """How much of a run is done, by the last row of its table; 1 only if the run has ended."""
    goes_on = (folder / 'temp.csv').exists()
    try:
        rows = (folder / ('temp.csv' if goes_on else 'results.csv')).read_text(encoding='utf-8').splitlines()
        return min((int(rows[-1].split(',')[0]) + 1) / (max_iters + 1), 0.99 if goes_on else 1)
    except (OSError, ValueError, IndexError):
        return 0


class Training:
    """Trains one run of the sweep when it is called, in a thread of this process or as a job of a cluster."""

    process = None

    def __call__(self, argv, folder, max_iters, threads):
        """Train from the newest checkpoint, if there is one; the output goes to FOLDER.log. Returns the exit code."""
        folder.parent.mkdir(parents=True, exist_ok=True)
        wait_for_lock(folder)
        if stop.code or fraction_done(folder, max_iters) == 1:
            return 0
        init_from = 'resume' if (folder / 'ckpt_last.pt').exists() else 'scratch'
        command = [sys.executable, str(TRAIN), *argv, f'--out_dir={folder}', f'--init_from={init_from}']
        with open(f'{folder}.log', 'a', encoding='utf-8', errors='surrogateescape') as log:  # paths may hold any bytes
            print('$', shlex.join(command), file=log, flush=True)
            # It has a session of its own. Otherwise the terminal would send Ctrl-C to it as well as to the sweep, and a
            # second signal ends it without saving.
            self.process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                                            env={**os.environ, 'OMP_NUM_THREADS': str(threads)}, start_new_session=True)
        try:
            while self.process.poll() is None and not stop.code:
                time.sleep(0.2)
        finally:  # a job may be ended by an exception
            code = self.save_and_end()
        if 'SUBMITIT_EXECUTOR' in os.environ and was_stopped(code):
            return self(argv, folder, max_iters, threads)  # a scheduler has warned it, but has not ended the job yet
        return code

    def save_and_end(self):
        """Ask the run to save and end, if it goes on; returns its exit code."""
        if self.process.poll() is None and hasattr(signal, 'SIGUSR2'):  # on Windows Ctrl-C has gone to it as well
            self.process.send_signal(signal.SIGUSR2)  # and not SIGTERM, which may have come from a scheduler already
        return self.process.wait()

    def checkpoint(self, *run):
        """What submitit queues instead of a job that it is about to end."""
        from submitit.helpers import DelayedSubmission
        if self.process:
            self.save_and_end()
        return DelayedSubmission(Training(), *run)


def wait_for_lock(folder):
    """If a sweep was killed, its runs may still be training: wait for them, and say so."""
    said = False
    while folder.is_dir() and not stop.code:
        try:
            lock_folder(folder, "waiting for a run that is still training in {}", "the sweep then goes on").close()
            return
        except UserError as e:
            if not said:
                with tqdm.external_write_mode():  # a progress bar makes room for the line
                    say(e)
            said = True
            time.sleep(0.5)


def last_line(folder):
    """The last line of a run's output, which says why the run failed."""
    log = Path(f'{folder}.log')
    if not log.exists():
        return 'it could not be started'
    lines = log.read_text(encoding='utf-8', errors='replace').strip().split('\n')
    return next((line for line in reversed(lines) if not line.startswith('$ ')), 'it printed nothing')


def reason(error):
    """Why a cluster lost a job: the last line of the job's traceback or output."""
    lines = str(error).split('You can check full logs')[0].splitlines()
    return next((line.strip() for line in reversed(lines) if line.strip('- ')), type(error).__name__)


def start(args, runs):
    """Submit runs to a pool of threads, each of which waits for a process here, or to submitit: dict of futures."""
    # submitit raises nearly anything, e.g. if sbatch exists but there is no cluster behind it
    with explained(f"--cluster={args.cluster} cannot be used here: {{}}"):
        executor = ThreadPoolExecutor(args.jobs) if args.cluster == 'here' else cluster_executor(args)
        return {folder: executor.submit(Training(), argv, folder, max_iters, args.threads)
                for folder, (argv, max_iters) in runs.items()}


def cluster_executor(args):
    with explained("--cluster needs submitit: pip install -r requirements-dev.txt", ImportError):
        import submitit
    os.environ['PYTHONPATH'] = os.pathsep.join([str(HERE), os.environ.get('PYTHONPATH', '')])  # jobs import common/
    executor = submitit.AutoExecutor(folder=f'sweeps/{args.name}/submitit', cluster=args.cluster,
                                     slurm_max_num_timeout=10**6, local_max_num_timeout=10**6)
    executor.update_parameters(**{'name': args.name, 'cpus_per_task': args.threads, 'timeout_min': 24 * 60,
                                  **dict(args.cluster_options)})
    return executor


def wait_for(futures, runs):
    """Show progress until all runs have ended or should stop. Returns those that failed, {folder: why}."""
    failed, pending = {}, dict(futures)
    done = sum(fraction_done(folder, max_iters) for folder, (_, max_iters) in runs.items())
    with tqdm(total=len(runs), initial=done, bar_format='{l_bar}{bar}| {n:.2f}/{total} runs [{elapsed}<{remaining}]',
              disable=not sys.stderr.isatty()) as bar:
        while pending and not stop.code:
            time.sleep(0.5)
            for folder in [folder for folder, future in pending.items() if future.done() and not stop.code]:
                try:
                    code = pending.pop(folder).result()
                except Exception as e:  # e.g. what a cluster says when a worker is lost
                    code = reason(e)
                if code:
                    failed[folder] = f"failed ({code}): {last_line(folder)}"
                if code or bar.disable:
                    with tqdm.external_write_mode():  # the bar makes room for the line
                        say(f"{len(runs) - len(pending)} of {len(runs)}: {folder}: {failed.get(folder, 'done')}")
            bar.n = len(runs) - len(pending) + sum(fraction_done(folder, runs[folder][1]) for folder in pending)
            bar.refresh()
    return failed


if __name__ == '__main__':
    os.environ['PYTHONIOENCODING'] = 'utf-8'  # for the runs, whose output is read here
    args, overrides = parse_arguments()
    planned = plan_runs(args, overrides)
    runs = without_finished(planned, args.finished)
    if len(runs) < len(planned):
        say(f"{len(planned) - len(runs)} of {len(planned)} runs are in {args.finished}")
    if not runs:
        sys.exit()
    if os.path.exists(f'sweeps/{args.name}/results.csv.gz'):
        raise UserError(f"sweeps/{args.name} is a copy that summarize.py --output wrote: choose another --name")
    with explained(f"cannot write in sweeps/{args.name}: {{}}", OSError):
        os.makedirs(f'sweeps/{args.name}', exist_ok=True)
        lock = lock_folder(f'sweeps/{args.name}', "another sweep is running in {}",
                           "wait for it, or choose another --name")
    todo = {folder: run for folder, run in runs.items() if fraction_done(folder, run[1]) < 1}
    say(f"{len(runs)} runs in sweeps/{args.name}, {len(runs) - len(todo)} finished already")
    stop = stop_by_signal()
    futures = start(args, todo)
    failed = wait_for(futures, runs)
    if stop.code:
        for future in futures.values():
            future.cancel()  # this cancels runs that have not begun, and on a cluster all of them
        say("stopping; every run saves its state. To continue, repeat the command.")
        sys.exit(stop.code)  # this waits for the threads, and they wait for their runs
    if len(failed) < len(runs):
        summary = subprocess.run([sys.executable, HERE / 'summarize.py', f'sweeps/{args.name}'], encoding='utf-8',
                                 stdout=subprocess.PIPE)
        say(summary.stdout.rstrip())  # and not summarize.py itself, for which a closed pipe would be a failure
        if summary.returncode:
            sys.exit(1)
        say(f"sweeps/{args.name}/summary.csv has the results; next:\n"
            f"  python plot_results.py --sweep sweeps/{args.name}")
    if failed:
        say(f"{len(failed)} of {len(runs)} runs failed:")
        for folder, why in failed.items():
            say(f"  {folder}: {why} (its whole output is in {folder}.log)")
        sys.exit(1)
