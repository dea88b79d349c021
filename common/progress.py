"""How far a training is: a bar on a terminal, lines elsewhere; how long it took; and what is printed when it ends."""

import os
import shlex
import sys
import time

from tqdm import tqdm

from common.errors import say
from common.results import math_total, other_tasks, samples_drawn


def describe_run(dataset, meta, ids, model, how):
    """Three lines about what is trained on what, and how."""
    cfg, held_out = model.config, sum(q.group == 'held out' for q in meta.questions)
    return (f"{dataset}: {len(ids):,} tokens, vocabulary {meta.tokenizer.vocab_size}, {len(meta.questions)} questions, "
            f"{held_out} held out\nmodel: n_layer={cfg.n_layer} n_head={cfg.n_head} n_embd={cfg.n_embd} "
            f"mlp_expansion={cfg.mlp_expansion} block_size={cfg.block_size}\n"
            f"training {model.get_num_params(non_embedding=False):,} parameters {how}")


def status(row, iter_num=None, with_loss=True):
    """Accuracies of a row of results.csv. iter_num: name the row's iteration if it is another."""
    shown = {'held-out': 'heldout', 'training': 'seen'}
    if math_total(row) and row['facts_total'] and not other_tasks(row):
        shown['facts'] = 'facts'
    texts = [f"{name} {row[f'{column}_acc']:.1%}" for name, column in shown.items()
             if f'{column}_acc' in row and row.get(f'{column}_total', samples_drawn(row))]
    texts += [f"val loss {row['val_loss']:.4f}"] * with_loss
    return ', '.join(texts) + (f" (at {row['iter']})" if iter_num not in (None, row['iter']) else '')


def next_commands(out_dir, questions):
    """The commands that look at a finished run."""
    kinds = {q.kind for q in questions}
    commands = [['plot_results.py', '--model_folder', out_dir]]
    commands += [['eval_as_math.py', f'--out_dir={out_dir}']] if 'math' in kinds else []
    commands += [['eval_capitals.py', f'--out_dir={out_dir}']] if 'facts' in kinds else []
    return f"results and checkpoints are in {out_dir}; next:" + ''.join(f"\n  python {shlex.join(c)}" for c in commands)


class Progress:
    """A run's progress and its clock: clock() measures, show() is called once an iteration, end() says what comes next.

    seconds: those of the run so far, if it is resumed. quiet: show nothing, but measure.
    """

    def __init__(self, out_dir, iter_num, max_iters, log_interval, seconds, quiet):
        self.out_dir, self.max_iters, self.log_interval, self.quiet = out_dir, max_iters, log_interval, quiet
        self.seconds, self.t0 = {'train_s': 0.0, 'eval_s': 0.0, **seconds}, time.perf_counter()
        self.first = iter_num
        self.shown = iter_num, self.seconds['train_s']  # when the last line was printed
        self.bar = tqdm(total=max_iters, initial=iter_num, desc=os.path.basename(out_dir), dynamic_ncols=True,
                        disable=quiet or not all(stream and stream.isatty() for stream in (sys.stdout, sys.stderr)),
                        bar_format='{desc} {n}/{total} |{bar}| {remaining}{postfix}')

    def clock(self, what):
        """Add the time since the last call to the seconds of training ('train_s') or evaluation ('eval_s')."""
        t1 = time.perf_counter()
        self.seconds[what], self.t0 = self.seconds[what] + t1 - self.t0, t1

    def show(self, iter_num, loss, rows):
        """Move the bar, or print a line every log_interval iterations. loss: of the last batch, or None."""
        if not self.bar.disable:
            self.bar.set_postfix_str(status(rows[-1], with_loss=False) if rows else '', refresh=False)
            self.bar.update(iter_num - self.bar.n)
        elif not self.quiet and (iter_num % self.log_interval == 0 or loss is None):
            self.clock('train_s')
            ms = (self.seconds['train_s'] - self.shown[1]) / max(iter_num - self.shown[0], 1) * 1e3
            self.shown = iter_num, self.seconds['train_s']
            trained = [] if loss is None else [f"loss {float(loss):.4f}, {ms:.2f} ms/iter"]
            line = f"iter {iter_num}: " + '; '.join(trained + [status(row, iter_num) for row in rows[-1:]])
            say(line if len(line) <= 80 else line.replace('; ', '\n    '))

    def close(self):
        self.bar.close()

    def end(self, iter_num, stopped, rows, questions):
        """Say how the run has ended, and with which command to go on. rows: of results.csv."""
        if stopped and iter_num < self.max_iters:
            say(f"stopped at iteration {iter_num:,}, everything is saved; to resume it:\n  python train_with_eval.py "
                f"--init_from=resume {shlex.quote('--out_dir=' + self.out_dir)}")
        else:
            how = 'was finished already' if iter_num == self.first > 0 else 'done'
            say(f"{how} at iteration {iter_num:,} in {self.seconds['train_s']:.0f} s of training and "
                f"{self.seconds['eval_s']:.0f} s of evaluation\n{status(rows[-1])}\n"
                f"{next_commands(self.out_dir, questions)}")
