"""
The five figures of study/widths.md, for widths.py.
"""

import numpy as np

from common.pictures import ITERATIONS, plt, log_axis
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FixedLocator, NullLocator
from study.inference import dealt_anew_within

END, FIT, GREY = '#0072B2', '#E69F00', '#555555'  # Okabe & Ito's colours, which colour-blind readers tell apart


def draw_heat(numbers):
    """Mean held-out accuracy by width and held-out fraction, with a line around the cells of which most runs fit."""
    main = numbers[numbers.study == 'main']
    accuracy, fits = (main[main.name == name].pivot(index='share', columns='n_embd', values='value')
                      .sort_index(ascending=False) for name in ('heldout_acc', 'fits'))
    figure, ax = plt.subplots(figsize=(7.6, 4.2), layout='constrained')
    most = max(10, 10 * np.ceil(10 * np.nanmax(accuracy)))  # the scale ends at the next ten
    ax.imshow(100 * accuracy, cmap='cividis', vmin=0, vmax=most, aspect='auto')
    for (y, x), value in np.ndenumerate(100 * accuracy):
        ax.text(x, y, '' if np.isnan(value) else f'{np.floor(value + 0.5):.0f}', ha='center', va='center', fontsize=12,
                fontweight='bold', color='white' if value < 0.45 * most else 'black')
    rows, columns = accuracy.shape
    if (fits > 0.5).to_numpy().any():
        fine = np.kron(np.pad(fits > 0.5, 1).astype(float), np.ones((50, 50)))  # the line follows the cells' edges
        x, y = (np.linspace(-1.49, cells + 0.49, 50 * (cells + 2)) for cells in (columns, rows))
        line = ax.contour(x, y, fine, levels=[0.5], colors='white', linewidths=2.5)
        line.set_path_effects([withStroke(linewidth=5, foreground='black')])
    ax.set(xlim=(-0.53, columns - 0.47), ylim=(rows - 0.47, -0.53), xlabel='width (n_embd)', ylabel='held-out fraction',
           title='Final held-out accuracy (%), mean over the splits\n'
                 'outlined: most runs reached 99% training accuracy')
    ax.set_xticks(range(columns), accuracy.columns.astype(int))
    ax.set_yticks(range(rows), [f'{percent:.0f}%' + '\n(one pair)' * (percent == 2) for percent in accuracy.index])
    return figure


def draw_splits(ax, runs, numbers, name, style, label):
    """One measure over the width: a small dot for each run, and beside it the mean and its interval.

    The mean of fewer than five runs is hollow. Runs of one value would hide each other, so each split is a little
    aside: on the logarithmic axis, a factor.
    """
    offset, colour, marker, dashes = style
    there, means = runs.dropna(subset=name), numbers[numbers.name == name].sort_values('n_embd')
    aside = offset - 0.012 + 0.0018 * (there.split - 3.5)
    ax.plot(there.n_embd * np.exp(aside), 100 * there[name], linestyle='', marker=marker, markersize=3,
            color=colour, alpha=0.45, markeredgewidth=0)
    x, few = means.n_embd * np.exp(offset + 0.009), means.n < 5
    mean, low, high = (100 * means[column].fillna(means.value) for column in ('value', 'low', 'high'))
    ax.plot(x[few], mean[few], linestyle='', marker=marker, markersize=6, color=colour, markerfacecolor='white',
            zorder=3)
    ax.errorbar(x, mean, yerr=[mean - low, high - mean], color=colour, marker=marker, linestyle=dashes, linewidth=1.3,
                capsize=2.5, markersize=6, label=label)
    ax.set(ylim=(-3, 103))
    ax.grid(alpha=0.25)


def draw_widths(runs, numbers):
    """Held-out accuracy over the width, a panel for each held-out fraction: final and at matched fit."""
    runs, numbers = (table[table.study == 'main'] for table in (runs, numbers))
    widths, percents = sorted(runs.n_embd.unique()), sorted(runs.share.unique())
    figure, axes = plt.subplots(2, 3, figsize=(10, 6), sharex=True, sharey=True, layout='constrained')
    for ax, percent in zip(axes.flat, percents):
        tables = runs[runs.share == percent], numbers[numbers.share == percent]
        draw_splits(ax, *tables, 'heldout_acc', (-0.02, END, 'o', '-'), 'final')
        draw_splits(ax, *tables, 'fit_heldout_acc', (0.02, FIT, '^', '--'),
                    'at matched fit (first evaluation\nwith 99% training accuracy)')
        log_axis(ax, widths)
        ax.set(title=f'{percent:.0f}% held out')
        ax.tick_params(labelbottom=True, axis='x', labelsize=8)
    for ax in axes.flat[len(percents):]:
        ax.axis('off')
    for ax in axes[:, 0]:
        ax.set_ylabel('held-out accuracy (%)')
    axes.flat[-1].legend(*axes.flat[0].get_legend_handles_labels(), loc='center', frameon=False, fontsize=11,
                         title='small marker: one split\nlarge: mean, 95% interval\nhollow: fewer than five splits')
    return figure


def panels_by_width(widths, title, ylabel, xlabel):
    """A grid with a panel for each width, and room for a legend beside the title: (figure, axes)."""
    figure, axes = plt.subplots(2, -(-len(widths) // 2), figsize=(9, 5), sharex=True, sharey=True, squeeze=False,
                                layout='constrained')
    for ax, width in zip(axes.flat, widths):
        ax.set_title(f'width {width}')
        ax.grid(alpha=0.25)
        ax.set_axisbelow(True)
    for ax in axes.flat[len(widths):]:
        ax.axis('off')
    figure.suptitle(title, x=0.05, ha='left')
    figure.supxlabel(xlabel)
    figure.supylabel(ylabel)
    return figure, axes.flat


def draw_curves(results):
    """The probability of the held-out answers over the training at 20% held out, a panel for each width."""
    of_20 = results[(results.study == 'main') & (results.share == 20) & (results.iter > 0)]
    widths = sorted(of_20.n_embd.unique())
    figure, axes = panels_by_width(widths, 'Held-out questions, 20% held out', 'probability of the right answer (%)',
                                   'iteration (log scale)')
    axes[0].set(xscale='log', xlim=(250, of_20.iter.max()))
    axes[0].xaxis.set_major_locator(FixedLocator([500, 2000, 10000]))
    axes[0].xaxis.set_minor_locator(NullLocator())
    for ax, width in zip(axes, widths):
        curves = 100 * of_20[of_20.n_embd == width].pivot(index='iter', columns='split', values='heldout_prob')
        thin = ax.plot(curves.index, curves, color=GREY, linewidth=0.5, alpha=0.6)
        thick = ax.plot(curves.index, curves.mean(axis=1), color=END, linewidth=2)
        ax.xaxis.set_major_formatter(ITERATIONS)
    figure.legend([thin[0], thick[0]], ['one split', 'mean over the splits'], loc='outside upper right', ncols=2,
                  frameon=False)
    axes[0].set_ylim(bottom=0)  # of all panels, and last, because this ends the search for their common top
    return figure


def draw_errors(answers):
    """A histogram of prediction minus answer for the held-out questions at 20% held out, a panel for each width."""
    asked = answers[(answers.study == 'main') & (answers.share == 20)]
    asked = asked[(asked.group == 'held out') & (asked.when == 'last')]
    widths = sorted(asked.n_embd.unique())
    figure, axes = panels_by_width(widths, 'Held-out questions, 20% held out', 'held-out questions (%)',
                                   'prediction minus right answer; predictions without a number are in no bar')
    bins = range(-5, 6)

    def percent_of(errors):  # predictions without a number are NaN and in no bin
        return [100 * (errors.clip(-5, 5) == error).mean() for error in bins]
    for ax, width in zip(axes, widths):
        of_width = asked[asked.n_embd == width]
        dealt_anew = dealt_anew_within(of_width, ['split', 'task'])
        bars = ax.bar(bins, percent_of(of_width.error), color=[END if error == 0 else '#9CC7E0' for error in bins],
                      edgecolor='black', linewidth=0.6)
        dots = ax.plot(bins, percent_of(dealt_anew), color='black', linestyle='', marker='.', markersize=5)
        ax.set_xticks([-5, -2, 0, 2, 5], ['≤−5', '−2', '0', '2', '≥5'])
    figure.legend([bars[5], bars[0], dots[0]], ['right', 'wrong', 'baseline: answers dealt anew'],
                  loc='outside upper right', ncols=3, frameon=False)
    return figure


def draw_random(runs, numbers):
    """Shuffled answers: training accuracy over the width, with the bits memorised per parameter."""
    runs, numbers = (table[table.study == 'random'] for table in (runs, numbers))
    widths = sorted(runs.n_embd.unique())
    figure, ax = plt.subplots(figsize=(6.4, 4.2), layout='constrained')
    draw_splits(ax, runs, numbers, 'seen_acc', (0, END, 'o', '-'), 'training accuracy')
    bits = numbers[numbers.name == 'bits_per_param'].set_index('n_embd').value
    log_axis(ax, widths, [f'{width}\n{bits[width]:.2f}' for width in widths])
    ax.set(xlabel='width (n_embd), and below it the bits memorised per parameter', ylabel='final training accuracy (%)',
           title='200 shuffled answers\nsmall: one split; large: mean over the splits, 95% interval')
    return figure


def figures(runs, numbers, answers, results):
    """The figures by name; those whose runs are all missing are left out.

    runs: a row for each run. numbers: numbers.csv. answers, results: all rows of the runs' files. See widths.py.
    """
    drawn = {'heat': draw_heat(numbers), 'widths': draw_widths(runs, numbers)}
    if ((runs.study == 'main') & (runs.share == 20)).any():
        drawn |= {'curves': draw_curves(results), 'errors': draw_errors(answers)}
    if (runs.study == 'random').any():
        drawn['random'] = draw_random(runs, numbers)
    return drawn
