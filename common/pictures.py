"""Draws what a model knows: each question with the probability of its right answer, and the prediction if it is wrong.

The evaluation scripts draw one graded table with it, plot_results.py all tables of a run. A script imports this before
anything of matplotlib, whose settings are made here.
"""

import io
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
from functools import partial
from pathlib import Path

from common.errors import UserError, explained, say

OWN_SETTINGS = 'matplotlib' not in sys.modules  # else a program that imports this draws with settings of its own
if OWN_SETTINGS:
    # A notebook's own backend is often not there for its !commands. The user's matplotlibrc may ask for LaTeX, or be no
    # UTF-8 text; one in the current folder comes before the one that the environment names.
    os.environ.update(MPLBACKEND='Agg', MATPLOTLIBRC=os.devnull)
    current_folder = os.getcwd()
    os.chdir(os.sep)
with explained("matplotlib cannot be imported: {}", OSError):  # e.g. without a folder for its cache
    try:
        import matplotlib
    finally:
        if OWN_SETTINGS:
            os.chdir(current_folder)
    if OWN_SETTINGS:
        matplotlib.rcdefaults()  # on Windows os.devnull may not count as a file
    import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.collections import PatchCollection
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, NullLocator
from PIL import Image

from common.files import write_file
from common.questions import LABELS, has_letters, operand_names, operands, short_names

SHADES = LinearSegmentedColormap.from_list('shades', matplotlib.colormaps['Blues'](np.linspace(0, 0.85))).with_extremes(
    bad='#dddddd')  # from white to dark, so it lasts in grey
MOST_CELLS = 20  # a row; in the smaller cells of a larger grid nobody could read a number
MOST_BARS = 60  # in a panel
WRONG = '#D55E00'  # Okabe & Ito's vermilion, which colour-blind readers tell from blue
PROBABILITY = 'probability of the right answer'
ITERATIONS = FuncFormatter(lambda x, _: f'{x / 1000:g}k' if x >= 1000 else f'{x:g}')
TASKS = {**LABELS, 'facts': 'capitals'}  # the paper's tasks as figures call them
DATASETS = {'math': 'arithmetic', 'facts': 'capitals', 'both': 'both'}
# what a graded table's prob, said, right and not right stand for
WORDS = dict(scale=PROBABILITY, number='prediction', right='right', wrong='wrong')


def seeds_label(n):
    return f'{n} seed' if n == 1 else f'{n} seeds'


def run_label(name):
    """'arithmetic, width 14' for math_mini_14, or for math_mini,n_embd=14 of a sweep; other names as they are."""
    match = re.fullmatch(r'(math|facts|both)_mini(?:_|,n_embd=)(\d+|mlt)((?:[,/].*)?)', name)
    if not match:
        return name
    width = match[2] if match[2] == 'mlt' else f'width {match[2]}'
    return f'{DATASETS[match[1]]}, {width}' + re.sub('[,/]', ', ', match[3])


def fitted(title, most):
    """A title whose lines have at most so many letters, so that it does not lie on that of the next panel."""
    return '\n'.join(textwrap.fill(line, most, break_on_hyphens=False) for line in title.split('\n'))


def log_axis(ax, values, labels=None, xlabel='width (n_embd)'):
    """A logarithmic x axis that has a tick at each of the values."""
    ax.set(xscale='log', xlabel=xlabel)
    ax.set_xticks(values, labels or [f'{value:,}' for value in values])
    ax.xaxis.set_minor_locator(NullLocator())


def title_of_task(part, right):
    """'addition\ntraining 97 of 98 right, held out 1 of 2'."""
    counts = [f"{'training' if group == 'seen' else group} {questions.right.sum()} of {len(questions)}"
              for group, questions in part.groupby('group', sort=False)]
    task = part.task.iloc[0]
    return f'{TASKS.get(task, task)}\n' + ', '.join([f'{counts[0]} {right}', *counts[1:]])


def draw_grid(ax, part, pairs):
    """A cell for each question <a?b=, a down and b across, with the prediction in it; pairs: (n, 2) int."""
    n = pairs.max() + 1
    probs = np.full((n, n), math.nan)
    probs[tuple(pairs.T)] = part.prob
    ax.imshow(probs, cmap=SHADES, vmin=0, vmax=1)
    ax.set_anchor('N')
    ticks = range(0, n, 1 if n <= MOST_CELLS else math.ceil(n / 10))
    labels = [operand_names(part.prompt, n)[i] for i in ticks]
    ax.set(xticks=ticks, yticks=ticks, xticklabels=labels, yticklabels=labels)
    letters = has_letters(part.prompt)  # then a is a digit
    ax.set_xlabel('second' if letters else 'b', labelpad=2)
    ax.set_ylabel('first' if letters else 'a', rotation=90 if letters else 0, labelpad=8)
    ax.tick_params(length=0, labelsize=min(10, 140 / n))
    frames = [Rectangle((b - 0.43, a - 0.43), 0.86, 0.86) for a, b in pairs[(part.group == 'held out').to_numpy()]]
    for width, colour in ((3.5, 'white'), (1.8, 'black')):  # they show on light and on dark cells
        ax.add_collection(PatchCollection(frames, facecolor='none', edgecolor=colour, linewidth=width * min(1, 11 / n)))
    if n > MOST_CELLS:
        a, b = pairs[~part.right.to_numpy()].T
        ax.scatter(b, a, s=(100 / n) ** 2, marker='x', color=WRONG, linewidth=40 / n)
        return
    for (a, b), question in zip(pairs, part.itertuples()):
        style = dict(color='black' if np.dot(SHADES(question.prob)[:3], (0.3, 0.59, 0.11)) > 0.45 else 'white')
        if not question.right:
            box = dict(boxstyle='round,pad=0.2', facecolor='white', edgecolor=WRONG, linewidth=min(1.3, 13 / n))
            style = dict(color=WRONG, weight='bold', bbox=box)
        said = question.said.strip().replace('-', '−') or ' '
        size = min(9, 100 / n) * (1 if len(said) < 3 else 0.75 if len(said) < 4 else 0.55)
        ax.text(b, a, said if len(said) < 5 else said[:3] + '…', ha='center', va='center', fontsize=size,
                parse_math=False, **style)


def draw_bars(ax, part, words):
    """A bar for each question, and beside it the prediction if it is wrong; names of held-out questions are framed."""
    y, held_out = np.arange(len(part)), (part.group == 'held out').to_numpy()
    ax.barh(y, part.prob, color=SHADES(0.35 + 0.65 * part.prob), height=0.75)
    names = [f'{name}: {answer}' for name, answer in zip(short_names(part.prompt), part.answer)]
    ax.set_yticks(y, names, fontsize=8, parse_math=False)
    for i in np.flatnonzero(held_out):
        ax.get_yticklabels()[i].set_bbox(dict(boxstyle='square,pad=0.1', facecolor='none', linewidth=1))
    ax.set(xlim=(0, 1), ylim=(len(part) - 0.4, -0.6))
    ax.set_xlabel(f"{words['scale']}\norange: {words['number']}, if {words['wrong']}"
                  + ('; frame: held out' if held_out.any() else ''))
    ax.tick_params(axis='y', length=0)
    for i, question in zip(y, part.itertuples()):
        if not question.right:
            said = ' '.join(question.said.split()) or '(nothing)'
            ax.text(max(0.01, question.prob + 0.01), i, said if len(said) < 26 else said[:24] + '…', va='center',
                    fontsize=8, color=WRONG, weight='bold', parse_math=False)


def split_panels(table):
    """What each panel shows of a graded table: a list of (task, its prompts, whether they are a grid)."""
    panels = []
    for task, prompts in table.groupby('task', sort=False).prompt.unique().items():
        if (pairs := operands(prompts)) and np.ptp(pairs, axis=0).all():  # the 2 of <7^2= never varies
            panels.append((task, prompts, True))
        else:
            panels += [(task, some, False) for some in np.array_split(prompts, math.ceil(len(prompts) / MOST_BARS))]
    return panels


def model_figure(models, words=WORDS):
    """A figure with panels for the tasks of each model, and the function draw(tables, titles) that fills them.

    models: list of (title, graded table, or all tables of a run). The tasks of a single one stand side by side, those
    of several one below the other in a column each. draw takes a table and a title of each, in the same order.
    """
    everything = pd.concat([table for _, table in models], ignore_index=True)
    panels, one = split_panels(everything), len(models) == 1
    heights = [3.6 if is_grid else 1 + 0.14 * len(prompts) for _, prompts, is_grid in panels]
    shape = (1, len(panels)) if one else (len(panels), len(models))
    size = max(3.4 * shape[1] + 0.2, 6), max(heights) + 1.4 if one else sum(heights) + 1.9
    figure, axes = plt.subplots(*shape, figsize=size, squeeze=False, layout='constrained',
                                height_ratios=[1] if one else heights)
    figure.get_layout_engine().set(h_pad=0.08)  # inches, between a grid and the title below it
    grids = everything[everything.task.isin([task for task, _, is_grid in panels if is_grid])]
    if len(grids):
        marks = []
        shown = [prompts for _, table in models  # what a model has in its cells depends on its own largest operand
                 for prompts in table[table.task.isin(grids.task)].groupby('task').prompt.unique()]
        if any(np.max(operands(prompts)) < MOST_CELLS for prompts in shown):
            kind = 'number' if grids.answer.str.fullmatch('-?[0-9]+').all() else 'letters'
            marks.append(f"{kind}: {words['number']}")
        if not grids.right.all():
            marks.append(f"orange: {words['wrong']}")
        if (grids.group == 'held out').any():
            marks.append('frame: held out')
        colours = matplotlib.cm.ScalarMappable(matplotlib.colors.Normalize(0, 1), SHADES)
        figure.colorbar(colours, ax=axes, location='bottom', shrink=0.6, aspect=40, pad=0.1 if one else 0.04,
                        label='\n'.join([f"colour: {words['scale']}", *(['; '.join(marks)] if marks else [])]))
    return figure, partial(draw_tables, figure, axes if one else axes.T, panels, words)


def draw_tables(figure, columns, panels, words, tables, titles):
    """Draw each model's graded table into its column of axes; if there is one column, its title is the figure's."""
    for column, table, title in zip(columns, tables, titles):
        titled = set()
        for ax, (task, prompts, is_grid) in zip(column, panels):
            ax.clear()
            of_task = table[table.task == task]
            part = of_task[of_task.prompt.isin(prompts)]
            if part.empty:
                ax.axis('off')
            elif is_grid and (pairs := operands(part.prompt)):
                draw_grid(ax, part, np.array(pairs))
            else:
                draw_bars(ax, part, words)
            if len(part) and task not in titled:
                ax.set_title(title_of_task(of_task, words['right']), fontsize=9, parse_math=False)
                titled.add(task)
        if len(columns) == 1:
            figure.suptitle(title, fontsize=min(11, 125 * figure.get_figwidth() / len(title)), parse_math=False)
        else:
            column[0].set_title(f'{fitted(title, 42)}\n{column[0].get_title()}', fontsize=9, parse_math=False)


def answer_panels(runs):
    """The questions of these answers, held-out ones and each task's others: {name: DataFrame of their names}.

    Its index is (task, prompt), its order that in which they were learnt for good, in the mean over the runs.
    """
    keys = ['task', 'prompt']
    everything = pd.concat(runs, ignore_index=True)
    questions = everything.drop_duplicates(keys)
    questions = questions.assign(name=questions.groupby('task').prompt.transform(short_names)).set_index(keys)
    last_wrong = [run.iter.where(~run.right, -1).groupby([run.task, run.prompt]).max() for run in runs]
    questions['learnt'] = pd.concat(last_wrong, axis=1).mean(axis=1)
    questions['doubt'] = 1 - everything.groupby(keys).prob.mean()  # decides among those that were never learnt
    groups = {'held out': questions[questions.group == 'held out']}
    training = questions[questions.group != 'held out']
    groups |= {TASKS.get(task, task): training.loc[[task]] for task in training.index.unique('task')}
    return {name: part.sort_values(['learnt', 'doubt']) for name, part in groups.items() if len(part)}


def draw_answers(models, logx=False):
    """Every question's probability at each evaluation. models: list of (title, answers of a run), side by side."""
    panels = answer_panels([answers for _, answers in models])
    heights = [min(0.16 * len(part), 6.5 / len(panels)) for part in panels.values()]
    figure, axes = plt.subplots(len(panels), len(models), figsize=(max(3 * len(models) + 1.8, 5.5), sum(heights) + 1.5),
                                squeeze=False, sharex='col', layout='constrained', height_ratios=heights)
    all_named = True
    for column, (title, answers) in zip(axes.T, models):
        probs = answers.pivot_table('prob', ['task', 'prompt'], 'iter')
        iters = list(probs.columns)
        edges = [*iters, iters[-1] + (iters[-1] - iters[-2] if len(iters) > 1 else 1)]  # a cell lasts until the next
        column[0].set_title(fitted(title, 36 if len(models) > 1 else 70), fontsize=10, parse_math=False)
        for ax, (name, part), height in zip(column, panels.items(), heights):
            mesh = ax.pcolormesh(edges, np.arange(len(part) + 1), probs.reindex(part.index), cmap=SHADES, vmin=0,
                                 vmax=1, rasterized=True)  # white to dark; a question that a model is not asked is grey
            ax.invert_yaxis()
            set_iterations(ax, iters, logx)
            every = math.ceil(len(part) * 0.125 / height)  # the last is always named
            all_named &= every == 1
            named = range(len(part) - 1, -1, -every)
            ax.set_yticks([i + 0.5 for i in named], part.name.iloc[list(named)], fontsize=8, parse_math=False)
            ax.tick_params(axis='y', length=0)
            ax.set_xlabel('iteration')
            ax.set_ylabel(name, parse_math=False)
            ax.label_outer()  # all panels of a row have the same questions
    figure.supylabel('questions, those learnt first at the top' + '\n(in the mean over the models)' * (len(models) > 1)
                     + '; only some are named' * (not all_named), fontsize=10)
    figure.colorbar(mesh, ax=axes, location='right', aspect=40, shrink=0.6, pad=0.02, label=PROBABILITY)
    return figure


def set_iterations(ax, iters, logx):
    """Label the x axis of `ax` with iterations; logx: on a scale that is logarithmic after the first of them."""
    if logx:
        ax.set_xscale('symlog', linthresh=min((i for i in iters if i > 0), default=1))
    ax.xaxis.set_major_formatter(ITERATIONS)


def film(models, output):
    """Write a film through the evaluations of (title, answers), and its first frame as a .png beside it.

    It begins with the last evaluations, because some programs show the first frame only.
    """
    if output.suffix not in ('.gif', '.mp4') or output.suffix == '.mp4' and not shutil.which('ffmpeg'):
        remedy = "use .gif, or install ffmpeg to write .mp4" if output.suffix == '.mp4' else "use .gif"
        raise UserError(f"cannot write {output}: {remedy}")
    frames = draw_frames(models, output.with_suffix('.png'))
    # one palette for all frames, which makes the file a third as large
    palette = Image.fromarray(np.vstack(frames[::6])).quantize(128, Image.Quantize.MAXCOVERAGE)
    images = [Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    with explained(f"cannot write {output}: {{}}", OSError), tempfile.TemporaryDirectory() as folder:
        gif, mp4 = Path(folder, 'film.gif'), Path(folder, 'film.mp4')
        images[0].save(gif, save_all=True, append_images=images[1:], loop=0,
                       duration=[2500, *[160] * (len(images) - 2), 2500])
        if output.suffix == '.mp4':
            even = 'crop=iw-mod(iw\\,2):ih-mod(ih\\,2)'  # players want an even number of pixels
            with explained("ffmpeg cannot write the film ({}): use .gif"):
                subprocess.run(['ffmpeg', '-loglevel', 'error', '-i', gif, '-pix_fmt', 'yuv420p', '-vf', even, mp4],
                               check=True)
        write_file(output, (mp4 if output.suffix == '.mp4' else gif).read_bytes())
    print(f"wrote {output}")


def draw_frames(models, first):
    """The pictures of a film, a list of (height, width, 3) uint8; the first one is written to the file `first`, too."""
    iters = sorted({i for _, answers in models for i in answers.iter})
    chosen = (len(iters) * np.linspace(0, 0.999, 46) ** 1.5).astype(int)  # dense at first, when most is learnt
    chosen = [iters[-1], *[iters[j] for j in sorted({*chosen})]]
    figure, draw = model_figure(models)
    frames = []
    say(f"drawing {len(chosen)} frames")  # it takes a minute
    for i in chosen:
        reached = [answers.iter[answers.iter <= max(i, answers.iter.min())].max() for _, answers in models]
        titles = [f'{title}\niteration {j:,}' + (', the last evaluation' if j == answers.iter.max() else '')
                  for (title, answers), j in zip(models, reached)]
        draw([answers[answers.iter == j] for (_, answers), j in zip(models, reached)], titles)
        if not frames:
            save(figure, first)
            figure.set_layout_engine('none')  # so that nothing moves
            figure.set_dpi(100)
        figure.canvas.draw()
        frames.append(np.array(figure.canvas.buffer_rgba())[:, :, :3])
    return frames


def picture(table, title, output):
    """Draw one model's graded table into a file."""
    figure, draw = model_figure([(title, table)])
    draw([table], [title])
    save(figure, output)


def save(figure, output):
    """Write a figure into a .png, .pdf or .svg file."""
    image_format = Path(output).suffix[1:].lower() or 'png'
    if image_format not in figure.canvas.get_supported_filetypes():
        raise UserError(f"cannot write a .{image_format} file: use .png, .pdf or .svg")
    content = io.BytesIO()
    metadata = {'Software': None} if image_format == 'png' else None
    figure.savefig(content, format=image_format, dpi=150, metadata=metadata)
    write_file(output, content.getvalue())
    print(f"wrote {output}")
