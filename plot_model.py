"""
Draw the inside of a model: its characters on two principal components, where it attends, and the weights as images.

$ python plot_model.py --out_dir=math_mini_14

Draws model.png in the model folder, with a row of images for each layer. The attention is the mean over the heads, for
one question of each task, a held-out one if there is any.
"""

import os

from common.errors import UserError, printable, report_errors
from configurator import configure

# settings
out_dir = 'out'  # the model folder
checkpoint = 'ckpt.pt'  # checkpoint file in the model folder
output = ''  # the .png, .pdf or .svg file to draw; '': model.png in the model folder
RANGES = {}
report_errors()
configure(globals(), RANGES)

import numpy as np
import torch  # it takes seconds to import, so the settings are checked first

from common.checkpoint import load_model
from common.pictures import SHADES, matplotlib, plt, save
from matplotlib.ticker import MaxNLocator

VISIBLE = str.maketrans('\n ', '↵␣')
CIRCLE = 14  # diameter of a character's circle, in points
plt.rcParams.update({'axes.titlesize': 9, 'axes.labelsize': 9, 'xtick.labelsize': 8, 'ytick.labelsize': 8,
                     'xtick.major.size': 0, 'ytick.major.size': 0})


def attention(model, ids):
    """Where each position of a text attends: a (T, T) tensor for each layer, the mean over its heads."""
    maps = []

    def keep(module, inputs, output):
        q, k, _ = output[0].unflatten(-1, (3, model.config.n_head, -1)).permute(1, 2, 0, 3)  # (n_head, T, head size)
        future = torch.ones(len(ids), len(ids), dtype=torch.bool).triu(1)
        scores = q @ k.transpose(1, 2) / k.size(-1) ** 0.5
        maps.append(scores.masked_fill(future, -torch.inf).softmax(-1).mean(0))
    hooks = [block.attn.c_attn.register_forward_hook(keep) for block in model.transformer.h]
    model(torch.tensor([ids]))
    for hook in hooks:
        hook.remove()
    return maps


def apart(points, least):
    """The points, pushed apart until none is nearer than `least` to another: (n, 2) arrays."""
    for _ in range(300):
        between = points[:, None] - points
        distance = np.linalg.norm(between, axis=-1, keepdims=True).clip(1e-9)
        points = points + (between / distance * (least - distance).clip(0) / 2).sum(axis=1)
    return points


def image(ax, matrix, title, xlabel, ylabel, names=()):
    """A matrix of weights, named beside its rows. names: of equal parts of them."""
    limit = np.abs(matrix).max()
    ax.imshow(matrix, cmap='cividis', vmin=-limit, vmax=limit, aspect='auto', interpolation='nearest')
    ax.set(title=f'{title}, max |w| {limit:.2g}', xlabel=xlabel, ylabel=ylabel)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator('auto', integer=True, steps=[1, 2, 5, 10]))
    if names:
        ax.set_yticks([(i + 0.5) * len(matrix) / len(names) - 0.5 for i in range(len(names))], names, parse_math=False)


torch.set_grad_enabled(False)
model, meta, path, settings = load_model(out_dir, [checkpoint])
wte, layers = model.transformer.wte.weight.double().numpy(), model.transformer.h
if min(wte.shape) < 2:
    raise UserError(f"{path} cannot be drawn: two components need a width and a vocabulary of 2 or more")
names = [meta.tokenizer.decode([i]).translate(VISIBLE) for i in range(min(len(wte), 256))]
questions = {q.task: q for q in sorted(meta.questions, key=lambda q: q.group == 'held out')}  # held out if there is one
prompts = [meta.tokenizer.encode(q.prompt)[-model.config.block_size:] for q in questions.values()]

# two rows of images, as large as their letters need, in inches: the embeddings above, each layer below
side = max([1.65, *(0.13 * len(ids) for ids in prompts)])  # of an image of attention
width, height = 8 + side * len(prompts), max(2.9, 0.11 * len(wte)) if len(wte) <= 128 else 2.9
heights = [height + 0.5, (side + 0.6) * len(layers) + 0.6]
figure = plt.figure(figsize=(width, sum(heights) + 0.2), layout='constrained')
n_params = model.get_num_params(non_embedding=False)
figure.suptitle(f"{printable(path)}, iteration {settings['iter_num']:,} ({n_params:,} parameters)", parse_math=False)
above, below = figure.subfigures(2, 1, height_ratios=heights)
axes = above.subplots(1, 3, width_ratios=[2, 2, 1])
image(axes[1], wte, 'wte', 'dimension', 'character', names if len(wte) <= 128 else ())
image(axes[2], model.transformer.wpe.weight.numpy(), 'wpe', 'dimension', 'position')

# the digits, or all characters if there are fewer than three, along the two directions in which their embeddings differ
# most
digits = [i for i, name in enumerate(names) if name.isdigit()]
chosen = digits if len(digits) > 2 else list(range(len(names)))
components, sizes, _ = np.linalg.svd(wte[chosen] - wte[chosen].mean(0), full_matrices=False)
points = (components * sizes)[:, :2]
points *= np.sign(points[np.abs(points).argmax(0), [0, 1]])  # else the signs depend on the processor
points = apart(points * 0.8 * min(0.36 * width / np.ptp(points[:, 0]), height / np.ptp(points[:, 1])), CIRCLE / 72)
axes[0].plot(*points.T, color='#56B4E9', linewidth=len(digits) > 2, marker='o', markersize=CIRCLE)
for i, (x, y) in zip(chosen, points):
    axes[0].text(x, y, names[i], ha='center', va='center', parse_math=False)
first, second = sizes[:2] ** 2 / (sizes ** 2).sum()
axes[0].scatter(*np.stack([points.min(0) - CIRCLE / 72, points.max(0) + CIRCLE / 72]).T, s=0)  # room for the circles
axes[0].set(title='embeddings on their first two principal components,\npoints that would overlap are moved apart',
            xticks=[], yticks=[], aspect='equal', adjustable='datalim',
            xlabel=f'first ({first:.0%} of the variance)', ylabel=f'second ({second:.0%})')

axes = below.subplots(len(layers), len(prompts) + 4, squeeze=False, width_ratios=[side] * len(prompts) + [1.65] * 4)
for j, ids in enumerate(prompts):
    text = [meta.tokenizer.decode([i]).translate(VISIBLE) for i in ids]
    for layer, (ax, weights) in enumerate(zip(axes[:, j], attention(model, ids)), 1):
        ax.imshow(weights.numpy(), cmap=SHADES, vmin=0, vmax=1)
        ax.set(xlabel='attends to', ylabel='position')
        ax.set_xticks(range(len(ids)), text, parse_math=False)
        ax.set_yticks(range(len(ids)), text, parse_math=False)
        ax.set_title(''.join(text).strip('<␣') + f', layer {layer}', parse_math=False)
for block, row in zip(layers, axes[:, len(prompts):]):
    for ax, name in zip(row, ['attn.c_attn', 'attn.c_proj', 'mlp.c_fc', 'mlp.c_proj']):
        weights = block.get_submodule(name).weight.numpy()
        image(ax, weights, name, 'input', 'output', 'qkv' if name == 'attn.c_attn' else '')
for some, cmap, low, label in ((axes[:, :len(prompts)], SHADES, 0, 'attention'),
                               (axes[:, len(prompts):], 'cividis', -1, 'weight, divided by max |w| of its image')):
    if some.size:
        colours = matplotlib.cm.ScalarMappable(matplotlib.colors.Normalize(low, 1), cmap)
        below.colorbar(colours, ax=some, location='bottom', aspect=40, label=label, ticks=[low, (low + 1) / 2, 1])
save(figure, output or os.path.join(out_dir, 'model.png'))
