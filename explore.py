"""
Explore runs in the browser: one page with every question during training, and with the models themselves.

$ python explore.py --out_dir=math_mini_14
$ python explore.py math_mini_14 math_mini_28 math_mini_56 --output=widths.html

Writes explore.html in the model folder, or in the current folder if there are several, which stand side by side. The
page needs no network. It holds answers.csv.gz, results.csv and the weights of all checkpoints, and those of earlier
evaluations if training kept them (--keep_weights). This script only fills it: its parts are in explore/.
"""

import base64
import hashlib
import json
import math
import re
from pathlib import Path

from common.arguments import add_model_folders, argument_parser, model_folders
from common.errors import UserError, report_errors, say

if __name__ == '__main__':
    report_errors()  # before the imports that fail without the environment
import numpy as np
import pandas as pd

from common.answers import read_answers
from common.checkpoint import load_model
from common.evaluate import NEW_TOKENS
from common.files import write_file
from common.questions import LABELS, operand_names, operands, short_names
from common.results import accuracy, read_results
from common.sweeps import tell_apart
from common.weights import flat_weights, read_weights

PARTS = Path(__file__).absolute().parent / 'explore'
NOT_ASKED = 65535  # in the place of a probability
LARGEST_GRID = 100  # cells in a row; more of them would not fit on a screen
MOST_RUNS = 12  # as many styles of lines are in style.css
LARGE = 20  # MB; the browser takes seconds to open such a page


def base64_of(values, dtype):
    return base64.b64encode(np.ascontiguousarray(values, dtype).tobytes()).decode()


def numbers(series):
    return [round(value, 4) if math.isfinite(value) else None for value in series]  # JSON has no NaN


def models_of(folder, checkpoint):
    """(models by iteration, Meta): those whose weights a folder has. checkpoint: the only one to read, or ''."""
    names = [checkpoint] if checkpoint else sorted(path.name for path in Path(folder).glob('ckpt*.pt')) or ['ckpt.pt']
    loaded = [(name, *load_model(folder, [name])) for name in names]
    _, model, meta, path, _ = loaded[-1]
    if meta.tokenizer.bpe:
        raise UserError(f"{path} has GPT-2's encoding, and explore.py supports character models only")
    for name, other, *_ in loaded:
        if {**other.config.model_args(), 'dropout': 0} != {**model.config.model_args(), 'dropout': 0}:
            raise UserError(f"{name} and {path.name} in {folder} are of different shapes: choose one with --checkpoint")
    weights = [(settings['iter_num'], name, flat_weights(of_name)) for name, of_name, _, _, settings in loaded]
    if not checkpoint:
        weights += [(int(iter_num), 'weights.bin', kept) for iter_num, kept in read_weights(folder, model)]
    parameters = [[key, p.numel()] for key, p in model.named_parameters()]
    shape = {'config': model.config.model_args(), 'parameters': parameters}
    first = {iter_num: (name, values) for iter_num, name, values in reversed(weights)}  # checkpoints come first
    return [{'iter': iter_num, **shape, 'source': name, 'weights': base64_of(values, '<f4')}
            for iter_num, (name, values) in sorted(first.items(), key=lambda item: item[0])], meta


def tasks_of(questions, meta):
    """What each task is called, how its answers end, and, if its questions make a grid, the names of the operands and
    the place (row, column) of each question. Both are empty if they make a list.
    """
    tasks = {}
    for task, of_task in questions.groupby('task', sort=False):
        known = [q for q in meta.questions if q.task == task]
        places = operands(of_task.prompt)
        side = 1 + int(np.max(places or LARGEST_GRID))
        names = [*operand_names(of_task.prompt, side)] if side <= LARGEST_GRID else []
        longest = [max(NEW_TOKENS[q.kind], len(q.answer + q.terminator)) for q in known]
        tasks[task] = {'label': LABELS.get(task, task), 'names': names, 'places': places if names else [],
                       'terminator': known[0].terminator if known else '\n',
                       'limit': max(longest, default=NEW_TOKENS['facts'])}
    return tasks


def page_curves(results, tasks):
    """The learning curves of a run: dict of name to numbers, which are fractions of 1."""
    columns = {task['label']: name for name, task in tasks.items()} | {'held-out accuracy': 'heldout'}
    curves = {label: accuracy(results, name) for label, name in columns.items()
              if f'{name}_total' in results and results[f'{name}_total'].max() > 0}
    if 'held-out accuracy' in curves and 'heldout_prob' in results:
        curves['probability of the right answer, held out'] = results.heldout_prob
    return {name: numbers(curve) for name, curve in curves.items()}


def run_of(folder, name, checkpoint=''):
    """What the page shows of a model folder, as a dict for JSON."""
    models, meta = models_of(folder, checkpoint)
    answers, results = read_answers(folder), read_results(folder)
    questions = answers.drop_duplicates(['task', 'prompt'])[['task', 'prompt', 'answer', 'group']]
    if not set(questions.prompt) <= {q.prompt for q in meta.questions}:
        say(f"{folder}: answers.csv.gz has questions that the model's dataset lacks: it may belong to another run")
    questions = questions.assign(name=questions.groupby('task').prompt.transform(short_names))
    tasks, iters = tasks_of(questions, meta), np.unique(answers.iter)
    place = np.searchsorted(iters, answers.iter), answers.groupby(['task', 'prompt'], sort=False).ngroup()

    def table(values, dtype, missing=0):
        """A value for each question of each evaluation, row by row."""
        cells = np.full((len(iters), len(questions)), missing, float)
        cells[place] = values
        return base64_of(cells, dtype)
    said, texts = pd.factorize(answers.said)
    return {'name': name, 'n_params': sum(size for _, size in models[0]['parameters']), 'models': models,
            'vocabulary': meta.tokenizer.characters, 'tasks': tasks,
            'questions': questions.to_dict('records'), 'iters': iters.tolist(), 'texts': texts.tolist(),
            'probs': table((answers.prob.clip(0, 1) * 10000).round(), '<u2', NOT_ASKED),
            'said': table(said, '<u4'), 'right': table(answers.right, 'u1'),
            'curves': page_curves(results, tasks), 'loss': numbers(results.val_loss),
            'curve_iters': results.iter.tolist()}


def page_of(runs):
    """explore/page.html with its style, scripts and the data inside; its policy lets nothing else be loaded or run."""
    def read(name):
        return (PARTS / name).read_text(encoding='utf-8')

    def inside(match):
        script = read(match[1])
        allowed.append(f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'")
        return f'<script>{script}</script>'
    allowed = []
    html = re.sub('<script src="(.*?)"></script>', inside, read('page.html'))
    html = html.replace('<link rel="stylesheet" href="style.css">', f'<style>\n{read("style.css")}</style>')
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src {' '.join(allowed)}"
    html = html.replace('<meta charset="utf-8">', f'<meta charset="utf-8">\n<meta http-equiv="Content-Security-Policy" '
                                                  f'content="{policy}">')
    # no name in the data can end its element
    data = json.dumps({'runs': runs, 'notAsked': NOT_ASKED}).replace('<', '\\u003c')
    return html.replace('id="data"></script>', f'id="data">{data}</script>')


if __name__ == '__main__':
    parser = argument_parser(__doc__)
    add_model_folders(parser)
    parser.add_argument('--checkpoint', default='', metavar='FILE', help='show only this model of each (default: all)')
    parser.add_argument('--output', metavar='FILE', help='file to write (default: explore.html)')
    args = parser.parse_args()
    folders = list({Path(folder).resolve(): folder for folder in model_folders(args)}.values())
    if not folders:
        parser.error("name a model folder: --out_dir=FOLDER")
    if len(folders) > MOST_RUNS:
        raise UserError(f"{len(folders)} model folders are too many to tell apart on a page: name at most {MOST_RUNS}")
    output = Path(args.output or Path(folders[0] if len(folders) == 1 else '', 'explore.html'))
    runs = [run_of(folder, name, args.checkpoint) for folder, name in zip(folders, tell_apart(folders))]
    page, n_models = page_of(runs), sum(len(run['models']) for run in runs)
    write_file(output, page)
    print(f"wrote {output} ({len(page) / 1e6:.1f} MB): open it in a browser")
    if len(page) > LARGE * 1e6 and n_models > len(runs):
        print(f"Most of it is the weights of {n_models} models: with --checkpoint=ckpt.pt, it holds one of each run")
