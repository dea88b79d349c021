"""The second study: each decision of its plan comes out each way on planted data, and what is missing is said to be."""

import gzip
import re
import shutil
from itertools import product

import numpy as np
import pandas as pd
import pytest
from conftest import REPO, Project
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import UserError
from common.questions import arithmetic_questions, round_robin_pairs
from study import why_base, why_examples, why_load, why_order, why_time, why_unplanned
from study.curves import accuracy_at, resampled_means, width_of_fall, width_of_memory
from study.datasets import (BASES, EXAMPLES, base_questions, in_letters, load_questions, one_order_questions,
                            quarter_held_out, questions_with_examples, training_part)
from study.inference import sign_flips
from study.runs import add_numbers
from study.why import all_numbers
from study.why_figures import draw_tables
from study.why_runs import SWEEPS, read_runs


# -----------------------------------------------------------------------------
# widths of the fall and of memory, slopes, p-values

def test_the_width_of_the_fall_is_interpolated_in_the_logarithm_of_the_width():
    assert width_of_fall([8, 16, 32], [0.8, 0.6, 0.2]) == pytest.approx(16 * 2 ** 0.5)  # 0.4 is halfway from 16 to 32
    assert width_of_fall([8, 16, 32], [0.8, 0.4, 0.0]) == pytest.approx(16)


def test_what_is_low_before_the_maximum_is_no_fall():
    assert width_of_fall([4, 8, 16, 32, 64], [0.1, 0.1, 0.6, 0.5, 0.1]) == pytest.approx(32 * 2 ** 0.5)


def test_a_fall_that_is_followed_by_a_rise_is_the_first_one():
    assert width_of_fall([8, 16, 32, 64, 128], [0.8, 0.2, 0.7, 0.1, 0.0]) < 16


@pytest.mark.parametrize('curve', [
    [0.19, 0.1, 0.0],  # the maximum is below 20 %
    [0.8, 0.6, 0.41],  # the widest is above half
    [0.2, 0.4, 0.8],  # it only rises
    [0.0, 0.0, 0.0]])
def test_a_fall_that_is_too_low_or_does_not_end_is_undefined(curve):
    assert np.isnan(width_of_fall([8, 16, 32], curve))


def test_a_maximum_of_exactly_20_percent_and_a_widest_of_exactly_half_are_defined():
    assert width_of_fall([8, 16, 32], [0.2, 0.15, 0.1]) == pytest.approx(32)


def test_the_width_of_memory_is_where_80_percent_are_reached():
    assert width_of_memory([8, 16, 32], [0.2, 0.7, 0.9]) == pytest.approx(16 * 2 ** 0.5)
    assert width_of_memory([8, 16, 32], [0.2, 0.8, 0.7]) == pytest.approx(16)
    for undefined in ([0.2, 0.5, 0.79], [0.85, 0.9, 1.0]):
        assert np.isnan(width_of_memory([8, 16, 32], undefined))


def test_other_levels_of_the_fall_and_of_memory_move_their_widths():
    curve = [0.8, 0.6, 0.2]
    assert width_of_fall([8, 16, 32], curve, fraction=0.75) == pytest.approx(16)
    assert why_unplanned.fall_to(0.6, [8, 16, 32], np.array(curve)) == pytest.approx(16)
    assert np.isnan(why_unplanned.fall_to(0.9, [8, 16, 32], np.array(curve)))  # it was never there
    assert width_of_memory([8, 16, 32], [0.2, 0.7, 0.9], level=0.7) == pytest.approx(16)


def test_many_curves_go_through_the_same_rules_as_one():
    curves = np.random.default_rng(0).random((200, 8))
    for width in (width_of_fall, width_of_memory):
        one_by_one = [width(why_base.WIDTHS, curve) for curve in curves]
        np.testing.assert_array_equal(width(why_base.WIDTHS, curves), one_by_one)


def test_a_curve_is_read_between_its_widths():
    assert accuracy_at(16 * 2 ** 0.5, [8, 16, 32], [0, 0.2, 0.6]) == pytest.approx(0.4)


def test_resampled_curves_keep_the_widths_of_a_split_together():
    table = np.array([[0.0, 1.0], [1.0, 0.0]])
    means = resampled_means(table, np.random.default_rng(0))
    assert means.shape == (10_000, 2) and means.sum(axis=1) == pytest.approx(1)
    assert {*np.unique(means)} == {0, 0.5, 1}


@given(st.floats(-2, 2), st.lists(st.floats(5, 60), min_size=3, max_size=5, unique=True))
@settings(max_examples=30)
def test_the_slope_is_that_of_least_squares(slope, memories):
    x = np.log(memories)
    y = slope * x + np.sin(x)
    if np.ptp(x) > 0.1:
        assert why_base.slopes(np.exp(y), np.array(memories)) == pytest.approx(np.polyfit(x, y, 1)[0], abs=1e-6)


def test_a_base_that_lacks_a_width_is_left_out_of_the_slope():
    memories = np.array([[10, 20, 40, 80], [10, 20, 40, np.nan], [10, 20, np.nan, np.nan]], dtype=float)
    falls = np.array([[10, 20, 40, np.nan], [10, 20, 40, 5], [10, 20, 40, 80]], dtype=float)
    assert why_base.slopes(falls, memories).tolist() == pytest.approx([1, 1, np.nan], nan_ok=True)


@given(st.lists(st.integers(-5, 5), min_size=2, max_size=7))
@settings(max_examples=30)
def test_one_sided_sign_flips_count_the_ways_to_have_as_large_a_mean(differences):
    ways = [sum(sign * d for sign, d in zip(signs, differences)) >= sum(differences)
            for signs in product((1, -1), repeat=len(differences))]
    assert sign_flips(np.array(differences, dtype=float), 'greater') == pytest.approx(np.mean(ways))


# -----------------------------------------------------------------------------
# answers as summarize.py writes them

def answers_of(questions, accuracy, **columns):
    """A graded table. accuracy: of the held-out questions of each task, others being right; or {group: accuracy}."""
    accuracy = {'held out': accuracy, 'seen': 1.0} if isinstance(accuracy, float) else accuracy
    table = pd.DataFrame([q[:4] for q in questions], columns=['task', 'prompt', 'answer', 'group'])
    parts = table.groupby(['group', 'task'])
    rank = parts.cumcount() / parts.prompt.transform('size')
    right = rank + 1e-9 < table.group.map(accuracy)
    wrong = table.answer.map(lambda answer: next(other for other in ('1', 'b', 'c', '2') if other != answer))
    return table.assign(samples=10, correct=10 * right, prob=0.5, said=table.answer.where(right, wrong), **columns)


def write_sweep(folder, name, runs):
    """Write results/NAME: its answers, and of its results what is read. runs: lists of (config, seed, when, table)."""
    (folder / name).mkdir(parents=True)
    answers = pd.concat([table.assign(config=config, seed=seed, when=when,
                                      iter=SWEEPS[name].iters if when == 'last' else int(when))
                         for config, seed, when, table in runs])
    results = answers.assign(seen_acc=(answers.said == answers.answer).where(answers.group == 'seen'),
                             heldout_acc=(answers.said == answers.answer).where(answers.group == 'held out'))
    results = results.groupby(['config', 'seed', 'iter'])[['seen_acc', 'heldout_acc']].mean().reset_index()
    for file, table in (('answers', answers), ('results', results)):
        (folder / name / f'{file}.csv.gz').write_bytes(gzip.compress(table.to_csv(index=False).encode()))


# -----------------------------------------------------------------------------
# experiment A

def order_tables(gain, widths=(28, 56), splits=8, percent=20):
    """The answers of experiment A and of the first study: held-out accuracies of 20 % plus the gain, and of 20 %."""
    one, both = [], []
    for width, split in product(widths, range(splits)):
        run = dict(n_embd=width, split=split, when='last')
        questions = [q for q in one_order_questions(split) if q.group == 'held out']
        additions = [q for q in questions if q.task == 'add']
        for tables, accuracy, task_questions in ((one, 0.2 + gain, additions), (both, 0.2, additions),
                                                 (one, 0.2, questions[10:]), (both, 0.2, questions[10:])):
            tables.append(answers_of(task_questions, accuracy, **run))
        prompts = {q.prompt for q in questions}
        other_orders = [q for q in arithmetic_questions(round_robin_pairs(split)[:10])
                        if q.group == 'held out' and q.prompt not in prompts]
        both.append(answers_of(other_orders, 1.0, **run))  # must not be compared
    one, both = (add_numbers(pd.concat(tables, ignore_index=True)) for tables in (one, both))
    return one.assign(right=one.error == 0), both.assign(right=both.error == 0, study='main', share=percent)


@pytest.mark.parametrize(('gain', 'verdict'), [
    (0.5, why_order.NEEDED), (0.3, why_order.NEEDED), (0.2, why_order.NOT_NEEDED), (0.0, why_order.NOT_NEEDED)])
def test_experiment_a_comes_out_each_way(gain, verdict):
    numbers = why_order.order_numbers(*order_tables(gain))
    assert numbers[0]['verdict'] == verdict
    tests = [number for number in numbers if number['name'] == 'gain on additions' and number['n']]
    assert [test['value'] for test in tests] == pytest.approx([gain] * 2)
    assert [test['p'] for test in tests] == pytest.approx([1 if gain == 0 else 2 / 2 ** 8] * 2)
    corrected = 8 * 2 / 2 ** 8  # the family has eight widths
    assert [test['p_holm'] for test in tests] == pytest.approx([1, 1] if gain == 0 else [corrected] * 2)


def test_experiment_a_needs_both_wide_widths():
    one, both = order_tables(0.5)
    one.loc[(one.n_embd == 56) & (one.task == 'add'), 'right'] = False
    assert why_order.order_numbers(one, both)[0]['verdict'] == why_order.NOT_NEEDED


def test_experiment_a_refuses_runs_that_ask_other_questions():
    one, both = order_tables(0.5)
    foreign = one.assign(prompt=one.prompt.where(one.split < 3, '<9+9='))
    for other in (one.assign(split=one.split + 1), foreign):
        with pytest.raises(UserError, match='do not ask the questions of the first study'):
            why_order.order_numbers(other, both)


def test_the_answer_of_the_other_order_is_recognised():
    held_out = add_numbers(pd.DataFrame(dict(
        n_embd=14, split=0, task=['add', 'sub', 'sub', 'sub'], said=['7', '-1', '1', ''], answer=['7', '1', '1', '2'],
        right=[True, False, True, False])))
    run = why_order.measures(held_out).loc[14, 0]
    assert run.tolist() == pytest.approx([1, 1 / 3, 1 / 3])


# -----------------------------------------------------------------------------
# experiment B

def base_runs(falls, noise=0.0, splits=8):
    """Held-out accuracies that are 0.8 at the narrowest width and come down to 0.4 at falls[base]."""
    rng, narrowest = np.random.default_rng(0), why_base.WIDTHS[0]
    return pd.DataFrame([{'base': base, 'n_embd': width, 'split': split, 'held-out accuracy': 0.8 if width == narrowest
                          else np.clip(0.4 - np.log(width / falls[base]) + noise * rng.normal(), 0, 0.8)}
                         for base, width, split in product(falls, why_base.WIDTHS, range(splits))])


def shuffled_runs(memories, splits=4):
    """Accuracies on shuffled answers that come up to 0.8 at memories[base]."""
    return pd.DataFrame([{'base': base, 'n_embd': width, 'split': split,
                          'accuracy on shuffled answers': np.clip(0.8 + 0.5 * np.log(width / memories[base]), 0, 1)}
                         for base, width, split in product(memories, why_base.WIDTHS, range(splits))])


MEMORIES = dict(zip(BASES, (14, 16, 18, 21, 24)))


@pytest.mark.parametrize(('slope', 'noise', 'verdict'), [
    (1, 0.05, why_base.CAPACITY), (0, 0.05, why_base.WIDTH), (0.5, 0.02, why_base.BETWEEN),
    (1.5, 0.02, why_base.BETWEEN),
    (-0.5, 0.02, why_base.AGAINST), (0.5, 0.5, why_base.UNDECIDED)])
def test_experiment_b_comes_out_each_way(slope, noise, verdict):
    falls = {base: 18 * (memory / 18) ** slope for base, memory in MEMORIES.items()}
    numbers = pd.DataFrame(why_base.primary(base_runs(falls, noise), shuffled_runs(MEMORIES))).set_index('name')
    assert numbers.verdict['verdict'] == verdict
    if verdict != why_base.UNDECIDED:
        row = numbers.loc['slope']
        assert row.low < row.value < row.high and row.value == pytest.approx(slope, abs=0.1) and row.n == 5
        by_base = numbers[['condition', 'value']].set_index('condition', append=True).value
        for base in BASES:
            assert by_base['width of the fall', f'base {base}'] == pytest.approx(falls[base], rel=0.05)
            assert by_base['width of memory', f'base {base}'] == pytest.approx(MEMORIES[base], rel=1e-6)


def test_experiment_b_is_undecided_if_fewer_than_three_bases_have_a_fall():
    falls = {base: 18.0 for base in BASES}
    runs = base_runs(falls)
    runs.loc[~runs.base.isin([8, 12]), 'held-out accuracy'] /= 8  # a maximum of a tenth
    numbers = pd.DataFrame(why_base.primary(runs, shuffled_runs(MEMORIES))).set_index('name')
    assert numbers.verdict['verdict'] == why_base.UNDECIDED and np.isnan(numbers.value['slope'])
    assert numbers.n['slope'] == 2 and numbers.value['bootstrap samples without a slope'] == 1
    assert numbers.value['width of the fall'].isna().sum() == 3
    three = why_base.primary(base_runs({base: 18.0 for base in BASES[:3]}), shuffled_runs(MEMORIES))
    assert three[0]['verdict'] == why_base.WIDTH


@pytest.mark.parametrize(('splits', 'seeds'), [(1, 4), (8, 1)])
def test_experiment_b_has_no_interval_and_no_verdict_from_a_single_split_or_seed(splits, seeds):
    runs, shuffled = base_runs(MEMORIES, splits=splits), shuffled_runs(MEMORIES, seeds)
    numbers = pd.DataFrame(why_base.primary(runs, shuffled)).set_index('name')
    assert numbers.verdict['verdict'] == why_base.UNDECIDED
    assert numbers.value['slope'] == pytest.approx(1, abs=0.1) and np.isnan(numbers.low['slope'])
    assert numbers.low[['width of the fall', 'width of memory']].isna().sum() == 5


def test_a_base_a_split_or_a_seed_that_makes_the_slope_is_seen_by_leaving_it_out():
    falls = dict(zip(BASES, (18, 18, 18, 18, 30)))  # only the last base moves
    runs, shuffled = base_runs(falls), shuffled_runs(MEMORIES)
    runs.loc[(runs.split == 5) & (runs.base == 16) & (runs.n_embd > 10), 'held-out accuracy'] = 0
    shuffled.loc[shuffled.split == 2, 'accuracy on shuffled answers'] *= 0.9
    rows = pd.DataFrame(why_unplanned.slope_rows(runs, shuffled)).set_index('condition').value
    assert rows['without base 24'] == pytest.approx(0, abs=0.05) and rows['without base 8'] > 0.5
    seeds = [rows[f'without seed {seed} of the shuffled answers'] for seed in range(4)]
    assert seeds[0] == seeds[1] == seeds[3] != seeds[2]
    assert rows['without split 0'] == pytest.approx(rows['without split 7']) != pytest.approx(rows['without split 5'])
    assert rows['fall to 40% right, bases 12 to 24'] == pytest.approx(rows['without base 8'])  # half of their maximum


def test_at_equal_passes_a_small_table_is_read_earlier():
    results = pd.DataFrame([dict(dataset=f'base_{base}_shuffled', n_embd=14, split=2, iter=iteration,
                                 heldout_acc=iteration / 1e6, seen_acc=iteration / 1e5)
                            for base, iteration in product((8, 12, 24), range(0, 30_001, 1000))])
    rows = why_unplanned.at_equal_passes(results)
    assert rows[['base', 'n_embd', 'split']].to_numpy().tolist() == [[12, 14, 2], [24, 14, 2], [8, 14, 2]]
    for column, once in (('held-out accuracy', 1e6), ('accuracy on shuffled answers', 1e5)):
        # 216, 864 and 96 training questions
        assert (once * rows[column]).tolist() == pytest.approx([7500, 30_000, 3333.3], rel=1e-4)


@pytest.mark.parametrize(('low', 'high', 'bases', 'verdict'), [
    (0.7, 1.2, 5, why_base.CAPACITY), (-0.1, 0.4, 5, why_base.WIDTH), (0.2, 0.8, 5, why_base.BETWEEN),
    (1.1, 1.8, 5, why_base.BETWEEN), (-0.1, 1.1, 5, why_base.UNDECIDED), (0.7, 1.2, 2, why_base.UNDECIDED),
    (-0.9, -0.1, 5, why_base.AGAINST), (np.nan, np.nan, 5, why_base.UNDECIDED)])
def test_the_rule_of_experiment_b(low, high, bases, verdict):
    assert why_base.decide(low, high, bases) == verdict


def test_a_split_that_lacks_a_width_is_in_no_curve():
    runs = base_runs({8: 18.0})
    runs = runs[~((runs.split == 3) & (runs.n_embd == 40))]
    assert why_base.table_of(runs, 'held-out accuracy', 8).shape == (7, 8)
    assert why_base.bootstrapped_curves(runs, 'held-out accuracy', 0).keys() == {8}


def trend_runs(accuracy_of):
    rng = np.random.default_rng(0)
    return pd.DataFrame([{'base': base, 'n_embd': width, 'split': split} | {
        f'held-out accuracy{ending}': accuracy_of(base, width) + 0.02 * rng.random() for ending in why_base.PARTS}
        for base, width, split in product(BASES, why_base.WIDTHS, range(8))])


def test_trends_over_the_base_and_beyond_the_fall_are_found_only_upwards():
    def p_values(accuracy_of):
        return {test['name']: test['p_holm'] for test in why_base.trends(trend_runs(accuracy_of))}
    up, down = p_values(lambda base, width: (base + width) / 100), p_values(lambda base, width: -(base + width) / 100)
    assert len(up) == 9 and max(up.values()) < 0.05 and min(down.values()) == 1


def test_letters_are_the_numbers_that_the_datasets_wrote():
    for base in BASES:
        numbers = range(-base + 1, 2 * base - 1)
        assert [why_base.from_letters(in_letters(n, base), base) for n in numbers] == [*numbers]
    for none in ('', '-', 'bz', 'i', 'b-', '3', 'b='):
        assert np.isnan(why_base.from_letters(none, 8))


def test_errors_of_letters_are_those_of_their_numbers():
    table = add_dataset(base_questions(8, [(1, 2)]), 8)
    table.loc[table.prompt == '<b+c=', 'said'] = 'e'  # 1 + 2 is 4
    table.loc[table.prompt == '<b-c=', 'said'] = 'b\n<h+h'  # 1 - 2 is 1, and a newline ends an answer
    table = why_base.add_letter_numbers(table)
    assert table.error[table.prompt == '<b+c='].tolist() == [1] and table.error[table.prompt == '<b-c='].tolist() == [2]
    run = why_base.measure_run(table.assign(right=table.error == 0))
    assert run['held-out accuracy'] == 2 / 4 and run['right or off by one'] == 3 / 4
    assert run['held-out accuracy, additions'] == 1 / 2 and run['right or off by one, subtractions'] == 1 / 2


def add_dataset(questions, base):
    return answers_of(questions, 1.0).assign(dataset=f'base_{base}')


def test_controls_are_compared_with_the_main_runs_of_the_same_split():
    def runs(base, accuracy):
        return pd.DataFrame([{'base': base, 'n_embd': width, 'split': split, 'training accuracy': 1.0,
                              'held-out accuracy': accuracy + split / 100}
                             for width, split in product(why_base.CONTROL_WIDTHS, range(8))])
    main = pd.concat([runs(8, 0.2), runs(20, 0.6)])
    numbers = pd.DataFrame(why_base.control_numbers(main, runs(8, 0.3), '4,800 iterations', 8, [8, 20]))
    values = numbers[numbers.name.str.startswith('held-out')].groupby('condition').value.mean()
    assert values['minus base 8'] == pytest.approx(0.1) and values['minus base 20'] == pytest.approx(-0.3)


def test_two_tables_are_drawn_cell_by_cell():
    tables = [answers_of([q for q in base_questions(base, [(0, 1), (2, 3)]) if q.task == 'a+b'], accuracy,
                         dataset=f'base_{base}') for base, accuracy in ((12, 0.5), (24, 1.0))]
    answers = pd.concat(tables)
    right = (answers.said == answers.answer) & ~((answers.prompt == '<b+a=') & (answers.dataset == 'base_12'))
    figure = draw_tables(answers.assign(right=right))
    assert [ax.get_title() for ax in figure.axes] == ['base 12: 1 of 4 held-out additions right',
                                                      'base 24: 4 of 4 held-out additions right']
    grid = figure.axes[0].images[0].get_array()
    assert grid.shape == (12, 12) and (grid[0, 1], grid[1, 0], grid[2, 3], grid[3, 2], grid[0, 0]) == (1, 2, 2, 2, 0)
    assert [text.get_text() for text in figure.legends[0].texts] == [
        'in the training text, right', 'held out, right', 'held out, wrong']


# -----------------------------------------------------------------------------
# experiment C

def load_answers(effect, learnt=0.5, fitted=1.0, splits=16, widths=(20, 28)):
    """{sweep: answers} of experiment C: the random load has so much more held-out accuracy than the regular one.

    learnt: of the shuffled lines; fitted: of the arithmetic with the random load.
    """
    answers = {}
    for width in why_load.LOADS:
        arithmetic = arithmetic_questions(round_robin_pairs(0)[:10])
        load = load_questions(why_load.LOADS[width], ['1', '2'], 0, True)
        tables = [answers_of(questions, accuracy, dataset=f'load_{kind}_{len(load)}', when='last')
                  for kind, questions, accuracy in (
                      ('random', arithmetic + load, {'held out': 0.3 + effect, 'seen': fitted}),
                      ('regular', arithmetic + load, {'held out': 0.3, 'seen': 1.0}),
                      ('shuffled', training_part(arithmetic) + load, {'seen': learnt}))]
        table = pd.concat([table.assign(split=split) for table in tables for split in range(splits)], ignore_index=True)
        answers[f'why_load_{width}'] = table.assign(right=table.said == table.answer) if width in widths else None
    return answers


def measured(answers):
    return {sweep: None if table is None else why_load.measure_runs(table) for sweep, table in answers.items()}


def load_numbers(answers):
    return pd.DataFrame(why_load.load_numbers(measured(answers))).set_index('name')


@pytest.mark.parametrize(('effect', 'learnt', 'fitted', 'verdict', 'competition'), [
    (0.3, 0.5, 1.0, why_load.CAUSES, why_load.NO_COMPETITION),
    (0.3, 0.5, 0.7, why_load.CAUSES, why_load.COMPETITION),
    (0.0, 0.5, 1.0, why_load.REFUTED, why_load.NO_COMPETITION),
    (-0.2, 0.5, 0.7, why_load.REFUTED, why_load.COMPETITION),
    (0.0, 0.8, 1.0, why_load.REFUTED, why_load.NO_COMPETITION),  # the check just holds
    (0.0, 0.9, 1.0, why_load.UNDECIDED, why_load.NO_COMPETITION),  # and does not
    (0.1, 0.5, 1.0, why_load.UNDECIDED, why_load.NO_COMPETITION)])
def test_experiment_c_comes_out_each_way(effect, learnt, fitted, verdict, competition):
    numbers = load_numbers(load_answers(effect, learnt, fitted))
    assert numbers.verdict['verdict'] == verdict and numbers.verdict['competition'] == competition
    assert numbers.verdict['manipulation check'] == (why_load.HOLDS if learnt <= 0.8 else why_load.HOLDS_NOT)
    tests = numbers.loc['random minus regular, held-out accuracy']
    assert tests.value.tolist() == pytest.approx([effect] * 2) and tests.n.tolist() == [16, 16]
    if effect > 0:
        assert tests.p.tolist() == [2 ** -16] * 2 and tests.p_holm.tolist() == [2 * 2 ** -16] * 2


def test_the_load_is_no_part_of_the_arithmetic():
    arithmetic = arithmetic_questions(round_robin_pairs(0)[:10])
    table = answers_of(arithmetic + load_questions(200, ['77'], 0, False), {'held out': 0.5, 'seen': 1.0})
    table = add_numbers(table.assign(said=table.said.where(table.task != 'load', '1')))
    run = why_load.measure_run(table.assign(right=table.said == table.answer))
    assert run['training accuracy, arithmetic'] == 1 and run['accuracy on the load'] == 0
    assert run['held-out accuracy'] == 0.5 and run['training accuracy, all lines'] == 160 / 360


def test_a_load_is_compared_with_no_load_in_the_splits_that_have_both():
    wanted = dict(n_embd=28, when='last', study='main', share=20, group='held out')
    decoys = [dict(n_embd=20), dict(when='best'), dict(study='orders'), dict(share=10), dict(group='seen')]
    first = pd.DataFrame([dict(split=split, right=not decoy, **wanted | decoy)
                          for split, decoy in product(range(8), [{}, *decoys])])
    loads = measured(load_answers(0.2, widths=(28,)))
    time_runs = time_answers(lambda width, decay: 0.3, splits=4)  # 20% are right at 30,000
    time_runs.loc[time_runs.weight_decay != 0, 'right'] = True
    without = why_unplanned.without_load(first, time_runs)
    rows = pd.DataFrame(why_unplanned.load_rows(loads, without)).set_index('condition')
    for source, splits, (random, regular) in (('the first study', 8, (-0.5, -0.7)), ('experiment D', 4, (0.3, 0.1))):
        those = rows[rows.name == f'held-out accuracy minus that without a load in {source} (not planned)']
        expected = {'random load, width 28': random, 'regular load, width 28': regular}
        assert those.value.to_dict() == pytest.approx(expected)
        assert (those.n == splits).all()
    assert why_unplanned.load_rows(loads, why_unplanned.without_load(None, None)) == []


def test_runs_of_both_studies_with_the_same_settings_are_compared_split_by_split():
    first = pd.DataFrame([dict(n_embd=width, split=split, when='last', study='main', share=20, group='held out',
                               right=width == 28) for width, split in product((14, 20, 28), range(8))])
    time_runs = time_answers(lambda width, decay: 0.3, splits=4)
    rows = why_unplanned.repeated_rows(why_unplanned.without_load(first, time_runs))
    assert [(row['condition'], row['n']) for row in rows] == [('width 20, decay 0', 4), ('width 28, decay 0', 4)]
    assert [row['value'] for row in rows] == pytest.approx([0.2, -0.8])
    assert why_unplanned.repeated_rows(why_unplanned.without_load(first, None)) == []


def test_weight_decay_is_compared_with_none_at_30000_and_at_the_end():
    time_runs = time_answers(lambda width, decay: {0: 0.1, 0.1: 0.2, 1.0: width / 40}[decay], splits=4)
    answer, wrong = time_runs.answer.astype(int), time_runs.said != time_runs.answer
    near = (answer + np.where(time_runs.n_embd == 20, 1, 2)).astype(str)  # width 28's wrong ones are off by two
    all_rows = why_unplanned.decay_rows(time_runs.assign(said=time_runs.said.where(~wrong, near)))
    values = pd.DataFrame(all_rows).set_index('condition').groupby('name').value
    decays = [f'width {width}, decay {decay}' for width in (20, 28) for decay in ('0', '0.1', '1')]
    for name, at_30000, at_end in (
            ('off by one', [0.8] * 3 + [0] * 3, [0.6875, 0.5875, 0.2875, 0, 0, 0]),
            ('held-out accuracy minus that without weight decay', [0] * 4, [0.1, 0.4, 0.1, 0.6]),
            ('off by one minus that without weight decay', [0] * 4, [-0.1, -0.4, 0, 0])):
        conditions = decays if name == 'off by one' else [text for text in decays if not text.endswith('decay 0')]
        expected = dict(zip([f'{text}, 30,000 iterations' for text in conditions], at_30000))
        expected |= dict(zip([f'{text}, 300,000 iterations' for text in conditions], at_end))
        assert values.get_group(f'{name} (not planned)').to_dict() == pytest.approx(expected)
    assert {row['n'] for row in all_rows} == {4}


def test_what_experiment_b_lets_expect_is_its_accuracy_where_as_much_is_memorised():
    runs, shuffled = base_runs({8: 24.0}), shuffled_runs({8: 24.0})
    tables = {'why_base': runs, 'why_shuffled': shuffled}
    loads = measured(load_answers(0.2, learnt=0.8, widths=(20,)))  # which width 24 of base 8 learns, too
    row, = why_unplanned.expected_rows(tables | loads)
    assert row['condition'] == 'base 8, as with the load of width 20'
    assert row['value'] == pytest.approx(0.4, abs=0.01)
    easier = {'why_shuffled': shuffled.assign(**{'accuracy on shuffled answers': 0.9})}
    row, = why_unplanned.expected_rows(tables | loads | easier)  # no width learns as little
    assert np.isnan(row['value'])


@pytest.mark.parametrize(('differences', 'highs', 'p_holm', 'check', 'verdict'), [
    ([0.15, 0.2], [0.3, 0.3], [0.01, 0.04], True, why_load.CAUSES),
    ([0.15, 0.14], [0.3, 0.3], [0.01, 0.01], True, why_load.UNDECIDED),
    ([0.15, 0.2], [0.3, 0.3], [0.01, 0.06], True, why_load.UNDECIDED),
    ([0.01, 0.0], [0.09, 0.09], [0.5, 0.5], True, why_load.REFUTED),
    ([0.01, 0.0], [0.09, 0.1], [0.5, 0.5], True, why_load.UNDECIDED),
    ([0.01, 0.0], [0.09, 0.09], [0.5, 0.5], False, why_load.UNDECIDED)])
def test_the_rule_of_experiment_c(differences, highs, p_holm, check, verdict):
    assert why_load.decide(differences, highs, p_holm, check) == verdict


def test_a_width_of_experiment_c_that_is_missing_leaves_the_other_one():
    numbers = load_numbers(load_answers(0.3, widths=(20,)))
    assert numbers.condition['random minus regular, held-out accuracy'] == 'width 20'
    assert why_load.load_numbers(measured(load_answers(0.3, widths=()))) == []


# -----------------------------------------------------------------------------
# experiment D

def time_answers(gain_of, splits=8):
    """Answers of experiment D that are 20 % right at 30,000 and gain_of(width, decay) more at 300,000."""
    tables = []
    questions = arithmetic_questions(round_robin_pairs(0)[:10])
    for width, decay, when, split in product(why_time.WIDTHS, why_time.DECAYS, why_time.READ, range(splits)):
        accuracy = 0.2 + (gain_of(width, decay) + 0.05 * (split == 0)) * (when == 'last')
        tables.append(answers_of(questions, accuracy, n_embd=width, weight_decay=decay, when=when, split=split))
    table = pd.concat(tables, ignore_index=True)
    return table.assign(right=table.said == table.answer)


@pytest.mark.parametrize(('gain_of', 'verdict'), [
    (lambda width, decay: 0.5 * (decay == 1.0), why_time.FOUND), (lambda width, decay: 0.1, why_time.NOT_FOUND),
    (lambda width, decay: 0.0, why_time.NOT_FOUND)])
def test_experiment_d_comes_out_each_way(gain_of, verdict):
    numbers = pd.DataFrame(why_time.time_numbers(time_answers(gain_of))).set_index('name')
    assert numbers.verdict['verdict'] == verdict
    tests = numbers.loc['held-out accuracy at 300,000 minus 30,000']
    assert tests.value.tolist() == pytest.approx([gain_of(width, decay) + 0.05 / 8 for width in why_time.WIDTHS
                                                  for decay in why_time.DECAYS])
    if verdict == why_time.FOUND:
        assert tests.p_holm.tolist() == pytest.approx([1, 1, 6 * 2 / 2 ** 8] * 2)  # six conditions


@pytest.mark.parametrize(('gains', 'p_holm', 'verdict'), [
    ([0.15] + [0.0] * 5, [0.04] + [1] * 5, why_time.FOUND), ([0.14] * 6, [0.04] * 6, why_time.NOT_FOUND),
    ([0.2] * 6, [0.06] * 6, why_time.NOT_FOUND), ([-0.2] * 6, [0.04] * 6, why_time.NOT_FOUND)])
def test_the_rule_of_experiment_d(gains, p_holm, verdict):
    assert why_time.decide(gains, p_holm) == verdict


# -----------------------------------------------------------------------------
# experiment E

def example_numbers(effect, learnt=0.2, fitted=1.0, all_right=0.8, width=20, kinds=('random', 'regular', 'none')):
    """The rows of experiment E if a random load adds so much held-out accuracy, and a regular one nothing to 0.3.

    learnt: of 864 lines with shuffled answers; fitted: of the arithmetic with the random load; all_right: of the
    held-out questions with all examples.
    """
    base_8, base_12, table = (base_questions(base, quarter_held_out(0, base)[0]) for base in (8, 12, 24))
    runs = {('why_examples' if kind != 'none' else f'why_examples_{n}', f'examples_{n}_{kind}'):
            (questions_with_examples(n, kind, 0), {'held out': 0.3 + effect * (kind == 'random'),
                                                   'seen': fitted if kind == 'random' else 1.0})
            for n, kind in product(EXAMPLES, kinds)}
    runs |= {('why_base', 'base_24'): (table, all_right), ('why_base', 'base_8'): (base_8, 0.1),
             ('why_base', 'base_12'): (base_12, 0.4),
             ('why_shuffled', 'base_24_shuffled'): (training_part(table), {'seen': learnt})}
    tables = {}
    for (sweep, dataset), (questions, accuracy) in runs.items():
        answers = answers_of(questions, accuracy, dataset=dataset, when='last', n_embd=width)
        tables.setdefault(sweep, []).append(answers.assign(right=answers.said == answers.answer))
    measured = dict.fromkeys(['why_base', 'why_shuffled', 'why_examples', *(f'why_examples_{n}' for n in EXAMPLES)])
    for sweep, parts in tables.items():
        measure = why_examples.measure_runs if 'examples' in sweep else why_base.measure_runs
        one = measure(pd.concat([part.assign(split=0) for part in parts]))  # and all splits are alike
        measured[sweep] = pd.concat([one.assign(split=split) for split in range(8)], ignore_index=True)
    return pd.DataFrame(why_examples.example_numbers(measured)).set_index('name')


@pytest.mark.parametrize(('effect', 'learnt', 'fitted', 'verdict', 'competition'), [
    (0.25, 0.2, 1.0, why_load.CAUSES, why_load.NO_COMPETITION),
    (0.0, 0.2, 1.0, why_load.REFUTED, why_load.NO_COMPETITION),
    (-0.25, 0.2, 0.5, why_load.REFUTED, why_load.COMPETITION),
    (0.0, 0.9, 1.0, why_load.UNDECIDED, why_load.NO_COMPETITION),  # the check does not hold
    (0.125, 0.2, 1.0, why_load.UNDECIDED, why_load.NO_COMPETITION)])
def test_experiment_e_comes_out_each_way(effect, learnt, fitted, verdict, competition):
    numbers = example_numbers(effect, learnt, fitted)
    assert numbers.verdict['verdict'] == verdict and numbers.verdict['competition'] == competition
    assert numbers.verdict['manipulation check'] == (why_load.HOLDS if learnt <= 0.8 else why_load.HOLDS_NOT)
    tests = numbers.loc['held-out accuracy, random minus regular load']
    assert tests.value.tolist() == pytest.approx([effect] * 2, abs=0.01) and tests.n.tolist() == [8, 8]
    if effect > 0:
        assert tests.p.tolist() == [2 ** -8] * 2 and tests.p_holm.tolist() == [2 * 2 ** -8] * 2
    minus_base_8_and_12 = numbers.loc['held-out accuracy, no load minus the base with as many examples per digit']
    assert minus_base_8_and_12.value.tolist() == pytest.approx([0.2, -0.1], abs=0.03)
    few = numbers.loc['held-out accuracy, all examples minus these with the random load']
    assert few.value.tolist() == pytest.approx([0.5 - effect] * 2, abs=0.01)


def test_experiment_e_has_no_verdict_without_its_width_and_compares_what_is_there():
    numbers = example_numbers(0.25, width=14)
    assert 'verdict' not in numbers.index and 'p' not in numbers
    assert numbers.loc['held-out accuracy, random minus no load'].value.tolist() == pytest.approx([0.25] * 2, abs=0.01)
    numbers = example_numbers(0.25, kinds=('random',))
    assert 'verdict' not in numbers.index and not numbers.index.str.contains('minus no load').any()
    assert why_examples.example_numbers(dict.fromkeys(['why_base', 'why_shuffled', 'why_examples'])) == []


@pytest.mark.parametrize(('differences', 'verdict'), [
    ([0.15, -0.15], why_load.HOLDS), ([0.0, 0.16], why_load.HOLDS_NOT), ([-0.16, 0.0], why_load.HOLDS_NOT)])
def test_the_prediction_of_experiment_e_comes_out_each_way(differences, verdict):
    rows = {(n, width, 'none', 'as many'): dict(value=value) for n, difference in zip((576, 720), differences)
            for width, value in ((20, difference), (14, 0.9))}
    row, = why_examples.prediction_rows(rows)
    del rows[720, 20, 'none', 'as many']
    assert row['verdict'] == verdict and why_examples.prediction_rows(rows) == []


def test_experiment_e_has_no_verdict_without_experiment_b():
    measured = dict.fromkeys(['why_base', 'why_shuffled', 'why_examples'])
    tables = [answers_of(questions_with_examples(n, kind, 0), 0.5, dataset=f'examples_{n}_{kind}', when='last',
                         n_embd=20, split=0) for n, kind in product(EXAMPLES, ('random', 'regular'))]
    table = pd.concat(tables)
    measured['why_examples'] = why_examples.measure_runs(table.assign(right=table.said == table.answer))
    numbers = pd.DataFrame(why_examples.example_numbers(measured))
    assert len(numbers) and 'verdict' not in numbers


# -----------------------------------------------------------------------------
# the command

@pytest.fixture(scope='module')
def results(tmp_path_factory):
    """A folder of results with some of the runs of each experiment, three quarters of what is held out being right."""
    folder = tmp_path_factory.mktemp('results')
    for name in ('study', 'study_random'):
        shutil.copytree(REPO / 'results' / name, folder / name)
    accuracy, held = 0.75, 'held out'
    write_sweep(folder, 'why_order', [(f'math_mini,n_embd={width}', 1337 + split, 'last',
                                       answers_of(one_order_questions(split), accuracy))
                                      for width, split in product((28, 56), range(2))])
    tables = {(base, split): base_questions(base, round_robin_pairs(split, base)[:base // 4 * base // 2])
              for base, split in product((8, 12, 16), range(2))}
    large_table = ('math_mini,n_embd=20,dataset=base_24', 1337, 'last', answers_of(base_questions(24, [(0, 1)]), 1.0))
    write_sweep(folder, 'why_base', [
        (f'math_mini,n_embd={width},dataset=base_{base}', 1337 + split, 'last',
         answers_of(questions, 0.9 * (width <= 2 * base)))
        for (base, split), questions in tables.items() for width in why_base.WIDTHS] + [large_table])
    write_sweep(folder, 'why_shuffled', [
        (f'math_mini,n_embd={width},dataset=base_{base}_shuffled', 1337 + split, 'last',
         answers_of(training_part(questions), {'seen': 1.0 * (width > 2 * base)}))
        for (base, split), questions in tables.items() for width in why_base.WIDTHS])
    write_sweep(folder, 'why_more_passes', [(f'math_mini,n_embd={width}', 1337, 'last', answers_of(
        base_questions(20, [(1, 2), (3, 4), (5, 6)]), accuracy)) for width in (14, 20)])
    arithmetic = arithmetic_questions(round_robin_pairs(0)[:10])
    write_sweep(folder, 'why_load_20', [(f'math_mini,dataset=load_{kind}_200', 1337 + split, 'last', answers_of(
        (training_part(arithmetic) if kind == 'shuffled' else arithmetic) + load_questions(200, ['1'], 0, True),
        {held: accuracy, 'seen': 0.5})) for kind, split in product(('random', 'regular', 'shuffled'), range(2))])
    write_sweep(folder, 'why_time', [(f'math_mini,n_embd={width},weight_decay={decay}', 1337 + split, when, answers_of(
        arithmetic, accuracy)) for width, decay, when, split in product((20, 28), (0, 0.1), why_time.READ, range(2))])
    write_sweep(folder, 'why_examples', [(f'math_mini,n_embd=20,dataset=examples_288_{kind}', 1337, 'last', answers_of(
        questions_with_examples(288, kind, 0), accuracy)) for kind in ('random', 'regular')])
    return folder


def test_the_loads_need_no_first_study(results, tmp_path, capsys):
    shutil.copytree(results / 'why_load_20', tmp_path / 'why_load_20')
    numbers = all_numbers({name: read_runs(tmp_path, name) for name in SWEEPS}, tmp_path)
    assert 'random minus regular, held-out accuracy' in {*numbers.name}
    assert numbers.verdict.isna().all()  # runs are missing
    assert not numbers.name.str.contains('without a load').any() and 'study is not there' in capsys.readouterr().out


@pytest.mark.slow
def test_an_unfinished_study_says_how_many_runs_are_there_and_gives_the_rest(bare, results):
    process = bare.run('study/why.py', results)
    assert process.returncode == 0, process.stderr
    assert 'Runs: A 4 of 64, B 99 of 528, C 6 of 96, D 8 of 48, E 2 of 192' in process.stdout
    assert {path.name for path in (results / 'why').iterdir()} == {'numbers.csv', 'order.png', 'base.png', 'tables.png',
                                                                   'load.png', 'time.png', 'examples.png'}
    numbers = pd.read_csv(results / 'why/numbers.csv').set_index(['name', 'condition']).value
    assert numbers['width of the fall', 'base 8'] == pytest.approx(14 * (20 / 14) ** 0.5, rel=1e-4)
    text = bare.check('study/why.py', results, '--markdown')
    assert '- why_base: 49 of 320 runs' in text and '- why_load_28: 0 of 48 runs' in text and 'nan' not in text
    assert 'no verdict is drawn while runs are missing' in text and '**verdict' not in text
    assert '| slope (not planned) | at equal passes |' in text


def test_without_any_run_there_is_a_table_of_what_is_missing(tmp_path):
    numbers = all_numbers(dict.fromkeys(SWEEPS), tmp_path)
    assert (numbers.name == 'runs').all() and (numbers.value == 0).all() and numbers.n.sum() == 928


def test_a_folder_without_runs_is_refused(bare, tmp_path):
    bare.fails('study/why.py', tmp_path / 'nowhere', says='no runs of the study in')
    bare.fails('study/why.py', tmp_path, says='no runs of the study in')
    assert not [*tmp_path.iterdir()]
    (tmp_path / 'why').mkdir()
    (tmp_path / 'why/numbers.csv').write_text('a,b\n1,2\n')
    bare.fails('study/why.py', tmp_path, '--markdown', says='numbers.csv cannot be read')


def test_runs_that_were_stopped_or_are_not_of_the_plan_are_refused(tmp_path):
    table = answers_of(one_order_questions(0), 1.0)
    write_sweep(tmp_path / 'stopped', 'why_order', [('math_mini,n_embd=14', 1337, 'last', table)])
    path = tmp_path / 'stopped/why_order/answers.csv.gz'
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()).replace(b'30000', b'20000')))
    with pytest.raises(UserError, match='end at .20000., not at 30000'):
        read_runs(tmp_path / 'stopped', 'why_order')
    write_sweep(tmp_path / 'other', 'why_order', [('math_mini', 1337, 'last', table)])
    with pytest.raises(UserError, match='holds a run that is not of the plan'):
        read_runs(tmp_path / 'other', 'why_order')


def test_labels_give_what_all_runs_of_a_sweep_share(tmp_path):
    table = answers_of(arithmetic_questions(), 1.0)
    write_sweep(tmp_path, 'why_time', [(f'math_mini,n_embd=20,weight_decay={decay}', 1339, when, table)
                                       for decay, when in product(('0', '0.1'), ('30000', 'last'))])
    runs = read_runs(tmp_path, 'why_time')
    assert {*zip(runs.n_embd, runs.dataset, runs.weight_decay, runs.split, runs.when)} == {
        (20, 'rounds_2', decay, 2, when) for decay, when in product((0.0, 0.1), ('30000', 'last'))}
    write_sweep(tmp_path, 'why_load_20', [('math_mini,dataset=load_random_200', 1337, 'last', table)])
    assert {*read_runs(tmp_path, 'why_load_20').n_embd} == {20}


@pytest.mark.slow
def test_the_committed_numbers_are_those_of_the_committed_runs():
    there = pd.read_csv(REPO / 'results/why/numbers.csv')
    again = all_numbers({name: read_runs(REPO / 'results', name) for name in SWEEPS}, REPO / 'results')
    pd.testing.assert_frame_equal(again, there, check_dtype=False, rtol=1e-4)


@pytest.mark.slow
def test_the_page_of_tables_is_what_is_printed():
    printed = Project(REPO).check('study/why.py', '--markdown', PYTHONPATH='')
    assert printed == (REPO / 'study/why_tables.md').read_text()


def test_the_page_has_the_committed_numbers():
    numbers, page = pd.read_csv(REPO / 'results/why/numbers.csv'), (REPO / 'study/why.md').read_text(encoding='utf-8')
    text = ' '.join(page.split())
    runs = numbers[numbers.name == 'runs'].groupby('experiment')[['value', 'n']].sum()
    assert re.findall(r'\| ([A-E]): .*? \| (\d+ of \d+) \|', page) == [
        (experiment, f'{row.value:.0f} of {row.n:.0f}') for experiment, row in runs.iterrows()]
    widths = re.findall(r'^\| (\d+) \| \d+ \| ([^|]+) \| ([^|]+) \|$', page, re.MULTILINE)
    assert [int(base) for base, *_ in widths] == BASES
    by_base = numbers.set_index(['name', 'condition'])
    for base, *cells in widths:
        for name, cell in zip(('width of the fall', 'width of memory'), cells):
            row = by_base.loc[name, f'base {base}']
            assert cell == f'{row.value:.1f} ({row.low:.1f} to {row.high:.1f})' or (
                np.isnan(row.value) and cell.startswith('undefined'))
    slope, = numbers[numbers.name == 'slope'].itertuples()
    assert f'is {slope.value:.2f} ({slope.low:.2f} to {slope.high:.2f})' in text
    sentence = re.search(r'Width 20 answers (.*?)\. ', text)[1]
    said = re.findall(r'(\d+)% \((\d+) to (\d+)\)(?: of the held-out questions)? in base (\d+)', sentence)
    assert len(said) == 4
    for *percents, base in said:
        row, = numbers[(numbers.name == 'held-out accuracy') & (numbers.condition == f'base {base}')
                       & (numbers.n_embd == 20)].itertuples()
        assert [int(percent) for percent in percents] == [round(100 * x) for x in (row.value, row.low, row.high)]
    loads = numbers[(numbers.experiment == 'C') & numbers.condition.isin(['random', 'regular'])]
    for row in loads[loads.name == 'held-out accuracy'].itertuples():
        assert f'{100 * row.value:.1f}% ({100 * row.low:.1f} to {100 * row.high:.1f})' in text
    expected = numbers[numbers.name == 'held-out accuracy where as much is memorised (not planned)']
    is_base_8 = expected.condition.str.startswith('base 8')
    for width in (20, 28):
        of_width = expected.condition.str.endswith(f'width {width}')
        (base_8,), others = 100 * expected[of_width & is_base_8].value, 100 * expected[of_width & ~is_base_8].value
        assert re.search(rf'{base_8:.0f}%[^.;]*{others.min():.0f} to {others.max():.0f}%', text)
    unplanned = numbers[numbers.name == 'slope (not planned)'].set_index('condition').value
    without = unplanned[unplanned.index.str.startswith('without')]
    assert f'is {without.min():.2f} to {without.max():.2f}' in text
    row, = numbers[numbers.condition == 'fall to 20% right'].itertuples()
    assert f'is {row.value:.2f} ({row.low:.2f} to {row.high:.2f})' in text


def test_the_page_has_the_first_studys_numbers_of_width_20():
    numbers, page = pd.read_csv(REPO / 'results/study/numbers.csv'), (REPO / 'study/why.md').read_text(encoding='utf-8')
    numbers = numbers[(numbers.name == 'heldout_acc') & (numbers.study == 'main') & (numbers.n_embd == 20)
                      & (numbers.share > 2)]
    values = [f'{100 * value:.1f}' for value in numbers.sort_values('share', ascending=False).value]
    assert f"width 20 answers {', '.join(values[:-1])} and {values[-1]}%" in ' '.join(page.split())


def test_every_interval_of_the_page_is_a_row_of_the_committed_numbers():
    numbers, page = pd.read_csv(REPO / 'results/why/numbers.csv'), (REPO / 'study/why.md').read_text(encoding='utf-8')
    scale = numbers.unit.map({'%': 100, 'width': 1, 'slope': 1})
    rows = (numbers[['value', 'low', 'high']].mul(scale, axis=0)).dropna().to_numpy()
    text = ' '.join(page.split('## The plan')[0].split())
    intervals = re.findall(r'(-?[0-9.]+)(?:%| points?)?(?: more| less| lower)?(?: \(|, )'
                           r'(-?[0-9.]+) to (-?[0-9.]+)[);]', text)
    assert len(intervals) > 50
    for interval in intervals:
        digits = max(len(number.partition('.')[2]) for number in interval)
        said = np.array(interval, dtype=float)
        flipped = -said[[0, 2, 1]]  # so many points less
        assert any((np.abs(rows - x) < 0.5001 * 10.0 ** -digits).all(axis=1).any() for x in (said, flipped)), interval
