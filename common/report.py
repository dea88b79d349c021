"""
What scripts print: about a run, and about one model's graded answers.
"""

import json
import shlex
import textwrap
from pathlib import Path

from common.dataset import CASE_OF
from common.errors import UserError
from common.evaluate import parts, summed
from common.files import write_file
from common.results import read_results, samples_drawn


def describe(dataset, meta, ids, model, how):
    """Three lines about what is trained on what, and how."""
    cfg, held_out = model.config, sum(q.group == 'held out' for q in meta.questions)
    return (f"{dataset}: {len(ids):,} tokens, vocabulary {meta.tokenizer.vocab_size}, {len(meta.questions)} questions, "
            f"{held_out} held out\nmodel: n_layer={cfg.n_layer} n_head={cfg.n_head} n_embd={cfg.n_embd} "
            f"mlp_expansion={cfg.mlp_expansion} block_size={cfg.block_size}\n"
            f"training {model.get_num_params(non_embedding=False):,} parameters {how}")


def status(row, iter_num=None, with_loss=True):
    """Scores of a row of results.csv, held-out questions first. iter_num: name the row's iteration if it is another."""
    shown = [(name, row[f'{column}_acc']) for name, column, asked in (
        ('held out', 'heldout', row['heldout_total']), ('math', 'math', row['math_total']),
        ('facts', 'facts', row['facts_total'])) if asked]
    texts = [f"{name} {acc:.1%}" for name, acc in shown] + [f"val loss {row['val_loss']:.4f}"] * with_loss
    return ', '.join(texts) + (f" (at iteration {row['iter']})" if iter_num not in (None, row['iter']) else '')


def next_commands(out_dir, questions):
    """The commands that look at a finished run."""
    kinds = {q.kind for q in questions}
    commands = [['plot_results.py', '--model_folder', out_dir]]
    commands += [['eval_as_math.py', f'--out_dir={out_dir}']] if 'math' in kinds else []
    commands += [['eval_capitals.py', f'--out_dir={out_dir}']] if 'facts' in kinds else []
    return f"results and checkpoints are in {out_dir}; next:" + ''.join(f"\n  python {shlex.join(c)}" for c in commands)


def answered(row, most=80):
    """A question's prediction, cut to at most so many characters, and how often it came if it did not always come."""
    times, said = row.completions.most_common(1)[0][1], repr(row.said.strip())
    often = f" ({times} of {row.samples})" if times < row.samples else ''
    most = max(10, most - len(often))
    return (said if len(said) <= most else said[:most - 1] + '…') + often


def mark(row):
    """'.' if all samples of a question are right, 'x' if none is, else how many are."""
    return '.' if row.always_right else 'x' if row.correct == 0 else str(row.correct)


def totals(table):
    """The sums of each part of a graded table, as a list of dicts."""
    return [{'group': name, **summed(part)} for name, part in parts(table).items()]


def print_totals(table):
    for t in totals(table):
        name = 'training' if t['group'] == 'seen' else t['group']
        print(textwrap.fill(f"{name:<12}{t['questions_right']:>4} of {t['questions']} questions right ({t['acc']:.1%} of "
                            f"samples), probability {t['prob']:.1%}", 80))


def print_choice(path, kind):
    """If training chose this checkpoint as its best: among how many evaluations, and what the last one has.

    The best of many looks better than the model is. kind: 'math' or 'facts'.
    """
    if not Path(path).name.startswith('ckpt_best_'):
        return
    try:
        results = read_results(path.parent)
    except UserError:
        return  # the checkpoint has been copied without its table
    asked = results[samples_drawn(results) > 0]
    print(f"\nThis checkpoint is the best of {len(asked)} evaluations. At the last one, iteration "
          f"{asked.iter.iloc[-1]:,.0f},\n{asked[f'{kind}_acc'].iloc[-1]:.1%} of the samples are right "
          "(--checkpoint=ckpt_last.pt evaluates it).")


def write_json(path, checkpoint, settings, table):
    """Write an evaluation's settings, totals and answers to the file `path`; does nothing if `path` is ''."""
    if not path:
        return
    questions = [dict(task=row.task, prompt=row.prompt, answer=row.answer, held_out=CASE_OF[row.group],
                      correct=row.correct, prob=row.prob, samples=list(row.completions.elements()))
                 for row in table.itertuples()]
    report = {'checkpoint': str(checkpoint), **settings, 'totals': totals(table), 'questions': questions}
    write_file(path, json.dumps(report, indent=1))
    print(f"wrote {path}")
