"""
What is inside a model: its characters on two principal components, where each position attends, and the weights as images.

$ python plot_model.py --out_dir=math_mini_14

Draws model.png in the model folder, with a row of images for each layer. The attention is the mean over the heads, for one
question of each task, held out if there is such a one.
"""

import os

from common.errors import UserError, report_errors, shown
from configurator import configure

# settings
out_dir = 'out'  # the model folder
checkpoint = 'ckpt.pt'  # checkpoint file in the model folder
output = ''  # the .png, .pdf or .svg file to draw; '': model.png in the model folder
report_errors()
configure(globals())

import torch  # it takes seconds to import, so the settings are checked first

from common.checkpoint import load_model
from common.pictures import KNOWS, plt, save

VISIBLE = str.maketrans('\n ', '↵␣')
plt.rcParams.update({'axes.titlesize': 9, 'xtick.major.size': 0, 'ytick.major.size': 0})


def attention(model, ids):
    """Where each position of a text looks: a (T, T) tensor for each layer, the mean over its heads."""
    maps = []

    def keep(module, inputs, output):
        q, k, _ = output[0].unflatten(-1, (3, model.config.n_head, -1)).permute(1, 2, 0, 3)  # each (n_head, T, head size)
        future = torch.ones(len(ids), len(ids), dtype=torch.bool).triu(1)
        scores = q @ k.transpose(1, 2) / k.size(-1) ** 0.5
        maps.append(scores.masked_fill(future, -torch.inf).softmax(-1).mean(0))
    hooks = [block.attn.c_attn.register_forward_hook(keep) for block in model.transformer.h]
    model(torch.tensor([ids]))
    for hook in hooks:
        hook.remove()
    return maps


def image(cell, matrix, title, rows=()):
    """A matrix of weights: grey is 0, yellow above and blue below; the title names the largest."""
    ax, limit = figure.add_subplot(cell), matrix.abs().max().item()
    ax.imshow(matrix, cmap='cividis', vmin=-limit, vmax=limit, aspect='auto', interpolation='nearest')
    ax.set(title=f'{title}, ±{limit:.2g}', xticks=[])
    middles = [(i + 0.5) * len(matrix) / len(rows) - 0.5 for i in range(len(rows))]
    ax.set_yticks(middles, rows, fontsize=8, parse_math=False)  # rows: names of equal parts of the matrix


torch.set_grad_enabled(False)
model, meta, path, config = load_model(out_dir, [checkpoint])
vocabulary = [meta.tokenizer.decode([i]) for i in range(min(meta.tokenizer.vocab_size, 256))]
names = [ch.translate(VISIBLE) for ch in vocabulary]
questions = {q.task: q for q in sorted(meta.questions, key=lambda q: q.group == 'held out')}  # held out if there is one
columns = len(questions) + 4
figure = plt.figure(figsize=(1.65 * columns, 3.4 + 2.1 * model.config.n_layer), layout='constrained')
figure.suptitle(f"{shown(path)}, iteration {config['iter_num']:,} ({model.get_num_params(non_embedding=False):,} parameters)")
grid = figure.add_gridspec(1 + model.config.n_layer, columns, height_ratios=[1.4] + [1] * model.config.n_layer)

# the digits, or all characters if there are fewer than three, along the two directions in which their embeddings differ most
wte = model.transformer.wte.weight
digits = [i for i, ch in enumerate(vocabulary) if ch.isdigit()]
if min(wte.shape) < 2:
    raise UserError(f"{path} has a width or a vocabulary of 1, and embeddings are drawn on two components")
chosen = digits if len(digits) > 2 else list(range(len(vocabulary)))
points = wte[chosen] - wte[chosen].mean(0)
_, sizes, directions = torch.linalg.svd(points)
share = sizes ** 2 / (sizes ** 2).sum()
ax = figure.add_subplot(grid[0, :-3])
ax.plot(*(points @ directions[:2].T).T, color='#56B4E9', linewidth=len(digits) > 2, marker='o', markersize=14)
for i, (x, y) in zip(chosen, points @ directions[:2].T):
    ax.text(x, y, names[i], ha='center', va='center', parse_math=False)
ax.set(title='embeddings on their first two principal components', xlabel=f'first ({share[0]:.0%} of the variance)',
       ylabel=f'second ({share[1]:.0%})', xticks=[], yticks=[], adjustable='datalim', aspect='equal')
image(grid[0, -3:-1], wte, 'wte: characters, blue < 0 < yellow', names if len(names) <= 20 else [])
image(grid[0, -1], model.transformer.wpe.weight, 'wpe: positions')
for layer, block in enumerate(model.transformer.h):
    for j, question in enumerate(questions.values()):
        ids = meta.tokenizer.encode(question.prompt)[-model.config.block_size:]
        ax = figure.add_subplot(grid[1 + layer, j], xlabel='looks at (attention)', ylabel='position')
        ax.imshow(attention(model, ids)[layer], cmap=KNOWS, vmin=0, vmax=1)
        text = [meta.tokenizer.decode([i]).translate(VISIBLE) for i in ids]
        for set_ticks in (ax.set_xticks, ax.set_yticks):
            set_ticks(range(len(ids)), text, fontsize=min(9, 90 / len(ids)), parse_math=False)
        asked = ''.join(text).strip('<␣')
        ax.set_title(asked + (',\n' if len(asked) > 12 else ', ') + f'layer {layer + 1}', parse_math=False)
    for j, name in enumerate(['attn.c_attn', 'attn.c_proj', 'mlp.c_fc', 'mlp.c_proj']):
        image(grid[1 + layer, len(questions) + j], block.get_submodule(name).weight, name, ['q', 'k', 'v'] if j == 0 else [])
save(figure, output or os.path.join(out_dir, 'model.png'))
