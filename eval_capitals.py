"""
How many capitals does a model know by heart?

$ python eval_capitals.py --out_dir=facts_mini_28
$ python eval_capitals.py both_mini_28 --checkpoint=ckpt_last.pt --json report.json
$ python eval_capitals.py facts_mini_28 --plot
$ python eval_capitals.py --init_from=gpt2

Prints a line for each capital, with the prediction if that is wrong, a summary of the wrong ones and the totals; the
exit code is 0 whatever the accuracy. It evaluates on every question of the dataset that has a text as its answer. Those
of a table whose digits are letters, like the second study's, are printed as a grid. The original GPT-2 cannot know that
the line ends after the capital, so its answer need only begin with it.
"""

import math
import os
import textwrap

from common.errors import report_errors
from configurator import configure, inherit_settings

# -----------------------------------------------------------------------------
# settings
out_dir = ''  # the model folder
init_from = ''  # evaluate GPT-2 instead: 'gpt2', 'gpt2-medium', 'gpt2-large', 'gpt2-xl' or a folder with its weights
checkpoint = ''  # checkpoint file in the model folder; '': ckpt_best_facts.pt, or ckpt.pt if there is none
num_samples = 10  # samples per question; if it is not given, as many as in training
temperature = 0.01  # temperature of the samples, 0: greedy; if it is not given, as in training
top_k = 10  # sample from the k likeliest tokens only; if it is not given, as in training
seed = 1337  # seed of the sampling
device = 'auto'  # 'cpu', 'cuda', 'mps'; auto: a GPU if there is one and the model is at least 128 wide
json = ''  # also write all predictions and totals to this file
plot = False  # also draw the probability of each right answer, and the predictions that are wrong
output = ''  # the .png, .pdf or .svg file to draw; '': facts.png in the model folder
RANGES = {'num_samples top_k': (1, math.inf), 'temperature': (0, math.inf), 'seed': (0, 2**32)}
report_errors()
config, given = configure(globals(), RANGES)
# -----------------------------------------------------------------------------

import pandas as pd  # this and torch take seconds to import, so the settings are checked first

from common.evaluate import grade
from common.load import load_evaluated
from common.questions import LABELS, has_letters, operands
from common.report import mark, prediction_of, print_choice, print_grid, print_totals, write_json

model, meta, path, of_run, terminated, title = load_evaluated(out_dir, init_from, checkpoint, device, 'facts')
inherit_settings(globals(), config, given, of_run, RANGES)
sampling = dict(num_samples=num_samples, temperature=temperature, top_k=top_k, seed=seed)
table = grade(model, meta.tokenizer, meta.questions, **sampling, terminated=terminated)

print(f"{title}: {len(table)} questions,\n{num_samples} samples each at temperature {temperature}")
parts = dict(list(table.groupby('task', sort=False)))
grids = {task: pairs for task, part in parts.items() if has_letters(part.prompt) and (pairs := operands(part.prompt))}
for task, pairs in grids.items():
    print_grid(LABELS.get(task, task), parts[task], pairs)
listed = table[~table.task.isin(grids)]
if len(listed):
    print(f"\n. = all {num_samples} samples right, x = none; %: probability of the right answer\n")
    lines = [line if len(line) <= 44 else '…' + line[-43:] for line in listed.prompt + listed.answer]
    width = max(map(len, lines))
    for line, row in zip(lines, listed.itertuples()):
        prediction = '' if row.always_right else f"  {prediction_of(row, 65 - width)}"  # a line has 80 columns
        print(f" {mark(row):>2}  {line:<{width}}  {row.prob:>6.1%}{prediction}")
print()
wrong = table[~table.right]
if len(wrong):
    predictions = wrong.said.str.strip().value_counts()
    elsewhere = predictions[predictions.index.isin(table.answer)].sum()
    summary = f"wrong predictions: {len(wrong)} of {len(table)}; another question's answer: {elsewhere}"
    if predictions.iloc[0] > 1:
        summary += f"; most frequent: {predictions.index[0][:40]!r} ({predictions.iloc[0]})"
    print(textwrap.fill(summary, 80) + '\n')
print_totals(table)
print_choice(path, 'facts')
write_json(json, path, sampling, table)
if plot or output:
    from common.pictures import picture
    picture(pd.concat([part.sort_values('prob', ascending=False) for part in parts.values()]),
            f"{title} ({model.get_num_params(non_embedding=False):,} parameters)",
            output or os.path.join(out_dir, 'facts.png'))
