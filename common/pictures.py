"""
Draws what a model knows: each question with the probability of its right answer, and what the model says instead.

The eval scripts draw one graded table with it, plot_results.py all tables of a run, one after the other or in a film. A script
imports this before anything of matplotlib, whose settings are made here.
"""

import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

OURS = 'matplotlib' not in sys.modules  # else a program that imports this draws with settings of its own
if OURS:
    os.environ['MPLBACKEND'] = 'Agg'  # files need no screen, and a notebook's backend is often not there for its !commands
import matplotlib

if OURS:
    matplotlib.rcdefaults()  # the user's matplotlibrc may ask for LaTeX
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.collections import PatchCollection
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter
from PIL import Image

from common.errors import UserError, explained, say
from common.questions import LABELS, operands
from common.files import atomic_open, write_file

KNOWS = LinearSegmentedColormap.from_list('knows', matplotlib.colormaps['Blues'](np.linspace(0, 0.85))).with_extremes(
    bad='#dddddd')  # from white to dark, so it lasts in grey
MOST_CELLS = 20  # in the smaller cells of a larger grid nobody could read a number
WRONG = '#D55E00'  # Okabe & Ito's vermilion, which colour-blind readers tell from blue
PROBABILITY = 'probability of the right answer'
ITERATIONS = FuncFormatter(lambda x, _: f'{x / 1000:g}k' if x >= 1000 else f'{x:g}')


def seeds_label(n):
    return f'{n} seed' if n == 1 else f'{n} seeds'


def short(prompts):
    """The prompts without the words that all of them begin and end with: France for 'Capital of France is '."""
    def shared(texts):
        """How many characters all texts begin with, up to the end of a word."""
        return len(re.match(r'(.*\W)?', os.path.commonprefix(texts), re.DOTALL)[0])
    if len(prompts) < 2:
        return [prompt.strip() for prompt in prompts]
    start = shared(prompts)
    end = shared([prompt[start:][::-1] for prompt in prompts])
    return [prompt[start:len(prompt) - end].strip() for prompt in prompts]


def scores(rows):
    """'seen 97 of 98 right, held out 1 of 2' of a graded table or a part of it; '48 of 50 right' if all are seen."""
    counts = [f'{group} {part.right.sum()} of {len(part)}' for group, part in rows.groupby('group', sort=False)]
    counts[0] += ' right'
    return ', '.join(counts) if counts[1:] else counts[0].removeprefix('seen ')


def draw_task(ax, rows):
    """The questions of one task on `ax`: sums as a grid, if their prompts are like <3+4=, and anything else as bars."""
    ax.clear()
    pairs = operands(rows.prompt)
    if pairs is None:
        draw_bars(ax, rows)
    else:
        draw_grid(ax, rows, np.array(pairs))
    task = rows.task.iloc[0]
    ax.set_title(f'{LABELS.get(task, task)}: {scores(rows)}', fontsize=9, parse_math=False)


def draw_grid(ax, rows, pairs):
    """A cell for each sum a+b or a-b, a down and b across, with the model's answer in it; pairs: (n, 2) int."""
    n = pairs.max() + 1
    probs = np.full((n, n), math.nan)
    probs[tuple(pairs.T)] = rows.prob
    ax.imshow(probs, cmap=KNOWS, vmin=0, vmax=1)
    every = 1 if n <= 20 else math.ceil(n / 10)
    ax.set(xticks=range(0, n, every), yticks=range(0, n, every))
    ax.tick_params(length=0, labelsize=min(10, 140 / n))
    frames = [Rectangle((b - 0.43, a - 0.43), 0.86, 0.86) for a, b in pairs[(rows.group == 'held out').to_numpy()]]
    for width, colour in ((3.5, 'white'), (1.8, 'black')):  # they show on light and on dark cells
        ax.add_collection(PatchCollection(frames, facecolor='none', edgecolor=colour, linewidth=width * min(1, 11 / n)))
    for (a, b), row in zip(pairs, rows.itertuples()) if n <= MOST_CELLS else ():
        style = dict(color='black' if np.dot(KNOWS(row.prob)[:3], (0.3, 0.59, 0.11)) > 0.45 else 'white')  # by lightness
        if not row.right:
            box = dict(boxstyle='round,pad=0.2', facecolor='white', edgecolor=WRONG, linewidth=min(1.3, 13 / n))
            style = dict(color=WRONG, weight='bold', bbox=box)
        said = row.said.strip()[:3].replace('-', '−') or ' '
        size = min(9, 100 / n) * (0.75 if len(said) > 2 else 1)
        ax.text(b, a, said, ha='center', va='center', fontsize=size, parse_math=False, **style)


def draw_bars(ax, rows):
    """A bar for each question, and what the model says instead if that is wrong."""
    y = np.arange(len(rows))
    ax.barh(y, rows.prob, color=KNOWS(0.35 + 0.65 * rows.prob), height=0.75)
    every = math.ceil(len(rows) / 60)
    names = [f'{name}: {answer}' for name, answer in zip(short(list(rows.prompt)), rows.answer)]
    ax.set_yticks(y[::every], names[::every], fontsize=8, parse_math=False)
    ax.set(xlim=(0, 1), ylim=(len(rows) - 0.4, -0.6),
           xlabel=PROBABILITY + '\nbeside a bar: what the model says, if that is wrong')
    ax.tick_params(axis='y', length=0)
    for i, row in zip(y, rows.itertuples()):
        if not row.right and i % every == 0:
            said = ' '.join(row.said.split()) or '(nothing)'
            ax.text(max(0.01, row.prob + 0.01), i, said if len(said) < 26 else said[:24] + '…', va='center', fontsize=8,
                    color=WRONG, weight='bold', parse_math=False)


def model_figure(models):
    """A figure with a panel for each task of each model, and the function that draws graded tables into it.

    models: list of (title, graded table, or all tables of a run). If there is one, its tasks stand side by side; if there are
    several, each has a column with its tasks one below the other. draw(tables, heading) takes a table of each model, in the
    same order.
    """
    everything = pd.concat([table for _, table in models], ignore_index=True)
    asked = everything.groupby('task', sort=False).prompt.unique()
    tasks, pairs = list(asked.index), [operands(prompts) for prompts in asked]
    heights = [0.7 + 0.14 * min(len(prompts), 60) if own is None else 3.2 for prompts, own in zip(asked, pairs)]
    one = len(models) == 1
    shape = (1, len(tasks)) if one else (len(tasks), len(models))
    height = max(heights) + 1.2 if one else sum(heights) + 1.5
    figure, axes = plt.subplots(*shape, figsize=(max(3.4 * shape[1] + 0.2, 6), height), squeeze=False, layout='constrained',
                                height_ratios=[1] if one else heights)
    axes = axes.T if one else axes  # a column for each model
    grids = everything[everything.task.isin([task for task, own in zip(tasks, pairs) if own is not None])]
    if len(grids):
        marks = ['number: what the model says' + ' (orange box: wrong)' * (not grids.right.all())] * any(
            own is not None and np.max(own) < MOST_CELLS for own in pairs)
        marks += ['frame: held out'] * bool((grids.group == 'held out').any())
        colours = matplotlib.cm.ScalarMappable(matplotlib.colors.Normalize(0, 1), KNOWS)
        figure.colorbar(colours, ax=axes, location='bottom', shrink=0.6, aspect=40, pad=0.02,
                        label=f'a down, b across; colour: {PROBABILITY}' + '\n' * bool(marks) + '; '.join(marks))
    suptitle = figure.suptitle(' ', parse_math=False)

    def draw(tables, heading):
        size = min(11, 125 * figure.get_figwidth() / len(heading))  # so that a long path fits
        suptitle.set(text=heading, fontsize=size)
        for i, ((title, _), table) in enumerate(zip(models, tables)):
            for ax, task in zip(axes[:, i], tasks):
                part = table[table.task == task]
                ax.set_visible(len(part) > 0)
                if len(part):
                    draw_task(ax, part)
            if not one:
                axes[0, i].set_title(f'{title}\n{axes[0, i].get_title()}', fontsize=9, parse_math=False)
    return figure, draw


def answer_panels(runs):
    """The questions of these answers, those held out and each other task apart: dict of name to a DataFrame of their names.

    Its index is (task, prompt), and its order that in which they were learnt for good, in the mean over the runs.
    """
    keys = ['task', 'prompt']
    everything = pd.concat(runs, ignore_index=True)
    questions = everything.drop_duplicates(keys)
    names = questions.groupby('task').prompt.transform(lambda prompts: pd.Series(short(list(prompts)), prompts.index))
    questions = questions.assign(name=names).set_index(keys)
    last_wrong = [run.iter.where(~run.right, -1).groupby([run.task, run.prompt]).max() for run in runs]
    questions['learnt'] = pd.concat(last_wrong, axis=1).mean(axis=1)
    questions['doubt'] = 1 - everything.groupby(keys).prob.mean()  # decides among those that were never learnt
    groups = {'held out': questions[questions.group == 'held out']}
    others = questions[questions.group != 'held out']
    groups |= {LABELS.get(task, task): others.loc[[task]] for task in others.index.unique('task')}
    return {name: part.sort_values(['learnt', 'doubt']) for name, part in groups.items() if len(part)}


def draw_answers(models, logx=False):
    """A figure of every question's probability at each evaluation, models side by side.

    models: list of (title, answers of read_answers). The rows are those of answer_panels, from the top.
    """
    panels = answer_panels([answers for _, answers in models])
    heights = [min(0.16 * len(part), 6.5 / len(panels)) for part in panels.values()]
    size = max(3 * len(models) + 1.8, 5.5), sum(heights) + 1.5
    figure, axes = plt.subplots(len(panels), len(models), figsize=size, squeeze=False, layout='constrained',
                                height_ratios=heights)
    for column, (title, answers) in zip(axes.T, models):
        probs = answers.pivot_table('prob', ['task', 'prompt'], 'iter')
        iters = list(probs.columns)
        edges = [*iters, iters[-1] + (iters[-1] - iters[-2] if len(iters) > 1 else 1)]  # a cell lasts until the next one
        for ax, (name, part), height in zip(column, panels.items(), heights):
            own = probs.reindex(part.index)
            ax.set_visible(bool(own.notna().any(axis=None)))
            mesh = ax.pcolormesh(edges, np.arange(len(part) + 1), own, cmap=KNOWS, vmin=0, vmax=1, rasterized=True)
            ax.invert_yaxis()
            set_iterations(ax, iters, logx)
            every = math.ceil(len(part) * 0.125 / height)  # the last is always named
            labelled = range(len(part) - 1, -1, -every)
            ax.set_yticks([i + 0.5 for i in labelled], part.name.iloc[list(labelled)], fontsize=8, parse_math=False)
            ax.tick_params(axis='y', length=0)
            ax.set_ylabel(name, parse_math=False)
        visible = [ax for ax in column if ax.get_visible()]
        visible[0].set_title(title.replace(' (', '\n('), fontsize=10, parse_math=False)
        visible[-1].set_xlabel('iteration')
        for ax in visible[:-1]:
            ax.tick_params(labelbottom=False)
    for row in axes:
        for ax in [ax for ax in row if ax.get_visible()][1:]:  # all panels of a row have the same questions
            ax.tick_params(labelleft=False)
            ax.set_ylabel('')
    figure.supylabel('questions, those learnt first at the top', fontsize=10)
    figure.colorbar(mesh, ax=axes, location='right', aspect=40, shrink=0.6, label=PROBABILITY)
    return figure


def set_iterations(ax, iters, logx):
    """Label the x axis of `ax` with iterations; logx: on a scale that is logarithmic after the first of them."""
    if logx:
        ax.set_xscale('symlog', linthresh=min((i for i in iters if i > 0), default=1))
    ax.xaxis.set_major_formatter(ITERATIONS)


def film(models, output):
    """Write a film of model_figure through the evaluations of (title, answers), and its first frame beside it as a .png.

    It begins with the last evaluation, so that whatever shows only the first frame shows what has been learnt.
    """
    if output.suffix not in ('.gif', '.mp4') or output.suffix == '.mp4' and not shutil.which('ffmpeg'):
        raise UserError(f"cannot write {output}: use .gif" + ", or install ffmpeg to write .mp4" * (output.suffix == '.mp4'))
    iters = sorted({i for _, answers in models for i in answers.iter})
    figure, draw = model_figure(models)
    shown = (len(iters) * np.linspace(0, 0.999, 46) ** 1.5).astype(int)  # at most 46, dense at first, when most is learnt
    ramps = [KNOWS, *(LinearSegmentedColormap.from_list('', ['white', colour]) for colour in ('black', WRONG))]
    palette, frames = Image.new('P', (1, 1)), []
    palette.putpalette(np.vstack([ramp(np.linspace(0, 1, 24), bytes=True)[:, :3] for ramp in ramps]).tobytes())
    shown = [iters[-1], *[iters[j] for j in sorted({*shown})]]
    say(f"drawing {len(shown)} frames")  # it takes a minute
    for i in shown:
        draw([answers[answers.iter == answers.iter[answers.iter <= i].max()] for _, answers in models],
             f'iteration {i:,}' if frames else f'final: iteration {i:,}')
        if not frames:
            save(figure, output.with_suffix('.png'))
            figure.set_layout_engine('none')  # so that nothing moves
            figure.set_dpi(100)
        figure.canvas.draw()
        frame = Image.fromarray(np.array(figure.canvas.buffer_rgba())[:, :, :3])
        frames.append(frame.quantize(palette=palette, dither=Image.Dither.NONE))
    with tempfile.TemporaryDirectory() as folder:
        gif, mp4 = Path(folder, 'film.gif'), Path(folder, 'film.mp4')
        frames[0].save(gif, save_all=True, append_images=frames[1:], loop=0,
                       duration=[2500, *[160] * (len(frames) - 2), 2500])
        if output.suffix == '.mp4':
            even = 'crop=iw-mod(iw\\,2):ih-mod(ih\\,2)'  # players want an even number of pixels
            with explained("ffmpeg cannot write the film ({}): use .gif"):
                subprocess.run(['ffmpeg', '-loglevel', 'error', '-i', gif, '-pix_fmt', 'yuv420p', '-vf', even, mp4], check=True)
        write_file(output, (mp4 if output.suffix == '.mp4' else gif).read_bytes())
    print(f"wrote {output}")


def picture(table, title, output):
    """Draw one model's graded table into a file."""
    figure, draw = model_figure([(title, table)])
    draw([table], title)
    save(figure, output)


def save(figure, output):
    """Write a figure into a .png, .pdf or .svg file."""
    image_format = Path(output).suffix[1:].lower() or 'png'
    if image_format not in figure.canvas.get_supported_filetypes():
        raise UserError(f"cannot write a .{image_format} file: use .png, .pdf or .svg")
    with atomic_open(output, 'wb') as f:
        figure.savefig(f, format=image_format, dpi=150)
    print(f"wrote {output}")
