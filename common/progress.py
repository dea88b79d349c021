"""
How far a training is: a bar on a terminal, lines elsewhere; how long it took; and what is said when it ends.
"""

import os
import shlex
import time

from tqdm import tqdm

from common.errors import is_terminal, say
from common.report import next_commands, status


class Progress:
    """One object for a run: clock() measures, show() is called once an iteration, end() says what comes next.

    seconds: those of the run so far, if it is resumed. quiet: show nothing, but measure.
    """

    def __init__(self, out_dir, iter_num, max_iters, log_interval, seconds, quiet):
        self.out_dir, self.max_iters, self.log_interval, self.quiet = out_dir, max_iters, log_interval, quiet
        self.seconds, self.t0 = {'train_s': 0.0, 'eval_s': 0.0, **seconds}, time.perf_counter()
        self.shown = iter_num, self.seconds['train_s']  # when the last line was printed
        self.begun = False
        self.bar = tqdm(total=max_iters, initial=iter_num, desc=os.path.basename(out_dir), dynamic_ncols=True,
                        disable=quiet or not is_terminal(),
                        bar_format='{desc} {n}/{total} |{bar}| {remaining}{postfix}')

    def clock(self, what):
        """Add the time since the last call to the seconds of training ('train_s') or evaluation ('eval_s')."""
        t1 = time.perf_counter()
        self.seconds[what], self.t0 = self.seconds[what] + t1 - self.t0, t1

    def show(self, iter_num, loss, rows):
        """Move the bar, or print a line every log_interval iterations. loss: of the last batch, None before the first."""
        if not self.bar.disable:
            self.bar.set_postfix_str(status(rows[-1], with_loss=False) if rows else '', refresh=False)
            self.bar.update(iter_num - self.bar.n)
        elif not self.quiet and (iter_num % self.log_interval == 0 or loss is None):
            self.clock('train_s')
            ms = (self.seconds['train_s'] - self.shown[1]) / max(iter_num - self.shown[0], 1) * 1e3
            self.shown = iter_num, self.seconds['train_s']
            trained = [] if loss is None else [f"loss {float(loss):.4f}, {ms:.2f} ms/iter"]
            say(f"iter {iter_num}: " + '; '.join(trained + [status(row, iter_num) for row in rows[-1:]]))

    def close(self):
        self.bar.close()

    def end(self, iter_num, stopped, rows, questions):
        """Say how the run has ended, and with which command to go on. rows: of results.csv."""
        if stopped and iter_num < self.max_iters:
            say(f"stopped at iteration {iter_num}, everything is saved; to resume it:\n  python train_with_eval.py "
                f"--init_from=resume {shlex.quote('--out_dir=' + self.out_dir)}")
        else:
            say(f"done at iteration {iter_num} in {self.seconds['train_s']:.0f} s of training and "
                f"{self.seconds['eval_s']:.0f} s of evaluation\n{status(rows[-1])}\n{next_commands(self.out_dir, questions)}")
