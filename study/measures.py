"""
The measures of the first study: a number for each run, from what it answered and from its curves.
"""

import numpy as np
import pandas as pd

from common.questions import Question, arithmetic_text
from study.inference import dealt_anew_within
from study.runs import CONDITION, RUN


def neighbours_seen(held_out):
    """For each held-out question of a run, whether none of (a±1, b) and (a, b±1) is held out: a bool array."""
    places = [(task, int(prompt[1]), int(prompt[3])) for task, prompt in zip(held_out.task, held_out.prompt)]
    around = [{(task, a + 1, b), (task, a - 1, b), (task, a, b + 1), (task, a, b - 1)} for task, a, b in places]
    return np.array([neighbours.isdisjoint(places) for neighbours in around], dtype=bool)


def is_last_line(seen):
    """For each training question of a run, whether it is the last line of the text: a bool Series."""
    questions = [Question(*q) for q in zip(seen.task, seen.prompt, seen.answer.astype(str), seen.group)]
    return seen.prompt == arithmetic_text(questions).splitlines()[-1].split('=')[0] + '='


def measure_memory(seen):
    """The measures of a run with shuffled answers, of which none is held out."""
    frequency = seen.groupby(['task', 'answer']).prob.transform('size') / seen.groupby('task').prob.transform('size')
    bits = np.log2(seen.prob / frequency)
    return {'seen_acc': seen.right.mean(), 'bits_memorised': bits.sum(), 'bits_last': bits[is_last_line(seen)].sum()}


def measure_answers(answers):
    """The measures of a run at one evaluation: dict of name to number, NaN where nothing was asked."""
    seen, held_out = answers[answers.group == 'seen'], answers[answers.group == 'held out']
    if held_out.empty:
        return measure_memory(seen)
    right, near, error = held_out.right, neighbours_seen(held_out), held_out.error
    edge, dealt_anew = held_out.prompt.str.contains('[09]'), dealt_anew_within(held_out, 'task')
    return {'heldout_acc': right.mean(), 'seen_acc': seen.right.mean(),
            'gap': round(seen.right.mean() - right.mean(), 9), 'bits': -np.log2(held_out.prob).mean(),
            'abs_error': error.abs().mean(), 'off_by_one': (error.abs() == 1).mean(), 'no_number': error.isna().mean(),
            'add_acc': right[held_out.task == 'add'].mean(), 'sub_acc': right[held_out.task == 'sub'].mean(),
            'near_acc': right[near].mean(), 'far_acc': right[~near].mean(),
            'near_minus_far': right[near].mean() - right[~near].mean(),
            'chance_acc': (dealt_anew == 0).mean(), 'chance_off_by_one': (np.abs(dealt_anew) == 1).mean(),
            'inner_acc': right[~edge].mean(), 'edge_acc': right[edge].mean(),
            'inner_minus_edge': right[~edge].mean() - right[edge].mean(),
            'last_line_acc': seen.right[is_last_line(seen)].mean()}


def chosen_by_others(curves):
    """For each split, its value where the mean of the other splits is highest; NaN for a lone split.

    curves: DataFrame (iterations, splits). The others choose, because a split's own peak cannot be below its last
    value.
    """
    others = {split: curves.drop(columns=split).mean(axis=1) for split in curves}
    return pd.Series({split: np.nan if mean.isna().all() else curves[split][mean.idxmax()]
                      for split, mean in others.items()})


def fall_after_peak(curves):
    """For each split, how much it falls from where the mean of the other splits is highest to its end: a Series."""
    return chosen_by_others(curves) - curves.iloc[-1]


def measure_runs(answers, results):
    """A row for each run: RUN, its measures after the last iteration, and those of matched fit and of its curve."""
    end, fit = answers[answers.when == 'last'], answers[answers.when == 'fit']
    runs = pd.DataFrame.from_dict({run: measure_answers(table) for run, table in end.groupby(RUN)}, orient='index')
    runs = runs.rename_axis(RUN)
    results = results.assign(heldout_prob=results.heldout_prob.where(results.study != 'random'))  # nothing held out
    curves = results.sort_values('iter').groupby(RUN)
    fit_iter = fit.groupby(RUN).iter.first()
    runs['fits'] = runs.index.isin(fit_iter.index)
    runs['fit_heldout_acc'] = fit[fit.group == 'held out'].groupby(RUN).right.mean()
    runs['fit_minus_end'], runs['fit_iter'] = runs.fit_heldout_acc - runs.heldout_acc, fit_iter
    many_orders = runs.index.get_level_values('study') == 'orders'
    runs['last_line_acc'] = runs.last_line_acc.mask(many_orders)
    held_out = end[end.group == 'held out']
    of_10 = held_out[(held_out.study == 'main') & (held_out.share == 10)][['split', 'prompt']].drop_duplicates()
    runs['same_acc'] = held_out[held_out.share >= 10].merge(of_10).groupby(RUN).right.mean()
    runs['above_90'] = runs.heldout_acc >= 0.9
    runs['n_params'] = curves.n_params.last()
    runs['bits_per_param'] = runs.get('bits_memorised', np.nan) / runs.n_params
    runs['peak_prob'], runs['end_prob'] = curves.heldout_prob.max(), curves.heldout_prob.last()
    runs['fall_after_peak'] = pd.Series({
        (*condition, split): fall for condition, table in results.groupby(CONDITION) for split, fall in
        fall_after_peak(table.pivot(index='iter', columns='split', values='heldout_prob')).items()})
    return runs.reset_index()
