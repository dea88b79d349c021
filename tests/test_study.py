"""The first study: its statistics against known values; an effect that is there is found, and none where none is."""

import gzip
import shutil
from itertools import combinations, product

import numpy as np
import pandas as pd
import pytest
from conftest import REPO, Project
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from common.errors import UserError
from common.questions import arithmetic_questions, arithmetic_text, round_robin_pairs
from common.statistics import difference
from study.families import all_numbers, run_tests
from study.figures import draw_curves
from study.inference import errors_dealt_anew, holm, interval, page, sign_flips, sign_test
from study.measures import fall_after_peak, measure_answers, measure_runs
from study.runs import PLANNED, SPLITS, WIDTHS, add_numbers, condition_of, read_study
from study.unplanned import measure_run, of_curves, of_falls, unplanned_numbers

ROUNDS = {'pair': 1, 'rounds_1': 1, 'rounds_2': 2, 'rounds_3': 3, 'rounds_5': 5, 'random': 0}


# -----------------------------------------------------------------------------
# statistics

def test_eight_equal_signs_have_the_smallest_exact_p_value():
    assert sign_flips(pd.Series([0.1, 0.2, 0.3, 0.4, 0.1, 0.2, 0.3, 0.4])) == pytest.approx(2 / 256)
    assert sign_test(pd.Series([1, 2, 3, 4, 5, 6, 7, 8])) == pytest.approx(2 / 256)
    assert sign_test(pd.Series([0.0, 1, 2, 3, 4, -1])) == pytest.approx(2 * 6 / 32)  # 4 of 5: (1 + 5) / 32 on each side
    assert np.isnan(sign_flips(pd.Series([1.0]))) and np.isnan(sign_test(pd.Series([0.0, 0.0])))


@given(st.lists(st.integers(-5, 5), min_size=2, max_size=7))
@settings(max_examples=30)
def test_sign_flips_count_all_flips(differences):
    sums = [sum(sign * d for sign, d in zip(signs, differences)) for signs in product((1, -1), repeat=len(differences))]
    one_side = min(np.mean([s >= sum(differences) for s in sums]), np.mean([s <= sum(differences) for s in sums]))
    assert sign_flips(np.array(differences, dtype=float)) == pytest.approx(min(1, 2 * one_side))


@given(*[st.lists(st.integers(-3, 3), min_size=2, max_size=5)] * 2)
@settings(max_examples=30)
def test_the_test_of_a_difference_counts_all_ways_to_deal_the_seeds(a, b):
    def off(chosen):  # how far the mean of some values is from that of the others, as a whole number
        return abs(len(b) * sum(chosen) - len(a) * (sum(a + b) - sum(chosen)))
    ways = [off(chosen) >= off(a) for chosen in combinations(a + b, len(a))]
    value, low, high, p = difference(pd.Series(a), pd.Series(b))
    assert value == pytest.approx(np.mean(a) - np.mean(b)) and low <= value + 1e-9 and value - 1e-9 <= high
    if len(a) == len(b):  # otherwise two-sided means twice the smaller side
        assert p == pytest.approx(np.mean(ways))
    assert difference(a, b) == (value, low, high, p)


def test_holm_by_hand():
    # sorted: 0.01 * 4, 0.02 * 3, 0.03 * 2 which may not be below it, and the test that could not be made, the fourth
    np.testing.assert_allclose(holm([0.03, 0.01, np.nan, 0.02]), [0.06, 0.04, np.nan, 0.06])
    assert holm([0.9, 0.8]).tolist() == [1, 1]


def test_pages_test_looks_for_growth_from_the_first_column_on():
    growing = np.arange(5) + np.zeros((8, 1))
    assert page(growing) == (pytest.approx(1), pytest.approx(1 / 120 ** 8))  # one order of 5! in each of 8 blocks
    value, p = page(growing[:, ::-1])
    assert value == pytest.approx(-1) and p == pytest.approx(1)
    assert page(np.zeros((8, 5)))[0] == pytest.approx(0) and page(np.zeros((8, 5)))[1] > 0.5
    assert np.isnan(page(growing[:1])).all() and np.isnan(page(growing[:, :2])).all()


@given(st.integers(0, 10**6))
@settings(max_examples=10)
def test_the_value_of_pages_test_is_the_mean_rank_correlation(seed):
    blocks = np.random.default_rng(seed).random((6, 4))
    assert page(blocks)[0] == pytest.approx(np.mean([stats.spearmanr(range(4), block).statistic for block in blocks]))


def test_ties_make_pages_test_conservative():
    rng = np.random.default_rng(0)  # accuracies of four questions, with no trend
    p_values = np.array([page(rng.binomial(4, 0.3, (8, 4)) / 4)[1] for _ in range(400)])
    assert 0.005 < (p_values < 0.05).mean() < 0.07  # 0.05, give or take two standard errors


def test_intervals_are_wilsons_for_shares_and_of_a_bootstrap_for_means():
    assert interval(pd.Series([True] * 8)) == (pytest.approx(8 / (8 + 1.959964 ** 2)), pytest.approx(1))
    values = pd.Series(np.random.default_rng(0).normal(size=200))
    low, high = interval(values)  # of many values, a bootstrap's is nearly that of the normal distribution
    half = 1.96 * values.std() / 200 ** 0.5
    assert (low, high) == (pytest.approx(values.mean() - half, abs=0.01), pytest.approx(values.mean() + half, abs=0.01))
    assert interval(values) == (low, high) and interval(pd.Series([0.5] * 8)) == (0.5, 0.5)
    assert np.isnan(interval(pd.Series([0.5]))).all()


# -----------------------------------------------------------------------------
# tests of the study, from simulated measures

def simulated_runs(accuracy_of, fall=0.0):
    """The table of measure_runs; accuracy_of(rng, study, share, width) is a run's, and matched fit is random.

    fall: the mean of how far probabilities fall after their peak.
    """
    rows = []
    for (kind, share, width), split in product(PLANNED, range(SPLITS)):
        rng = np.random.default_rng([split, share, width, len(kind)])
        accuracy = accuracy_of(rng, kind, share, width)
        rows.append(dict(study=kind, share=share, n_embd=width, split=split, heldout_acc=accuracy, gap=1 - accuracy,
                         same_acc=accuracy, fits=width >= 10, fit_heldout_acc=rng.random() if width >= 10 else np.nan,
                         fall_after_peak=fall + rng.normal()))
    return pd.DataFrame(rows)


def p_values(runs):
    tests = pd.DataFrame(run_tests(runs))
    return tests.set_index(['name', tests.share.fillna(0), tests.n_embd.fillna(0)]).p_holm


def test_a_planted_effect_is_found_and_what_is_not_there_is_not():
    def accuracy_of(rng, kind, share, width):
        return 0.4 - 0.005 * width - 0.003 * share + 0.1 * (kind == 'orders') + 0.02 * rng.random()
    p = p_values(simulated_runs(accuracy_of, fall=5.0))
    for found in ('accuracy falls with width', 'gap grows with width', 'accuracy falls with the share',
                  'probability falls after its peak', 'orders minus main', 'pair minus main',
                  'accuracy on the same questions falls with the share'):
        assert (p[found] < 0.05).all(), found
    for absent in ('accuracy at matched fit falls with width', 'decay 0.1 minus main', 'decay 1.0 minus main'):
        assert (p[absent] > 0.05).all(), absent
    assert p['probability falls after its peak'].tolist() == [pytest.approx(5 * 2 / 256)] * 5
    assert p['orders minus main'].tolist() == [pytest.approx(3 * 2 / 256)] * 3


def test_the_opposite_effect_is_none():
    p = p_values(simulated_runs(lambda rng, kind, share, width: 0.005 * width + 0.003 * share + 0.02 * rng.random()))
    for name in ('accuracy falls with width', 'gap grows with width', 'accuracy falls with the share',
                 'accuracy on the same questions falls with the share'):
        assert (p[name] == 1).all(), name


def test_where_nothing_is_planted_hardly_anything_is_found():
    p = p_values(simulated_runs(lambda rng, kind, share, width: rng.binomial(20, 0.2) / 20))
    assert p.count() == 10 + 8 + 5 + 5 + 12 + 8 and (p < 0.05).sum() <= 1


def test_a_split_that_lacks_a_run_is_left_out_of_a_test_and_only_there():
    runs = simulated_runs(lambda rng, kind, share, width: rng.random())
    runs = runs[~((runs.study == 'main') & (runs.share == 20) & (runs.n_embd == 56) & (runs.split == 3))]
    tests = pd.DataFrame(run_tests(runs))
    fewer = tests[tests.n == 7]
    assert set(fewer.name) == {name for name in tests.name if not name.startswith('width')} | {'width 28 minus 56'}
    assert set(fewer.share.fillna(20)) == {20} and set(fewer.n_embd.dropna()) == {56}
    assert (tests.n[tests.n != 7] == 8).all()
    unfinished = pd.DataFrame(run_tests(runs[runs.n_embd != 28]))
    assert unfinished.p[unfinished.name == 'gap grows with width'].isna().all()  # no split has all widths


# -----------------------------------------------------------------------------
# measures, from answers

def answers_of(questions, accuracy, rng):
    """A graded table in which the seen questions are right, and as many of the held-out ones as the accuracy says."""
    held_out = np.array([q.group == 'held out' for q in questions])
    right = ~held_out
    right[rng.permutation(np.flatnonzero(held_out))[:round(accuracy * held_out.sum())]] = True
    said = [str(int(q.answer) + (0 if ok else rng.choice([-2, -1, 1]))) for q, ok in zip(questions, right)]
    table = pd.DataFrame(questions,
                         columns=['task', 'prompt', 'answer', 'group', 'terminator']).drop(columns='terminator')
    return table.assign(samples=10, correct=10 * right, prob=np.where(right, 0.9, 0.05), said=said)


def simulate(folder, accuracy_of, datasets, widths=(8, 10, 14, 28), splits=3, setting=''):
    """Write a sweep of the study as summarize.py does; from width 10 on, the matched fit answers everything."""
    folder.mkdir(parents=True)
    answers, results = [], []
    for split, dataset, width in product(range(splits), datasets, widths):
        rng, run = np.random.default_rng([split, width]), {'config': f'study,n_embd={width}{setting},dataset={dataset}',
                                                           'seed': 1337 + split}
        questions = arithmetic_questions(round_robin_pairs(split)[:1 if dataset == 'pair' else 5 * ROUNDS[dataset]])
        accuracy = accuracy_of(width)
        for when, iters, value in [('last', 500, accuracy)] + [('fit', 250, 1.0)] * (width >= 10):
            answers.append(answers_of(questions, value, rng).assign(when=when, iter=iters, **run))
        curve = {'iter': [0, 250, 500], 'heldout_prob': [0, 0.9, accuracy], 'heldout_acc': [0, 1, accuracy],
                 'n_params': 100 * width}
        results.append(pd.DataFrame(curve).assign(**run))
    for name, tables in (('answers', answers), ('results', results)):
        (folder / f'{name}.csv.gz').write_bytes(gzip.compress(pd.concat(tables).to_csv(index=False).encode()))


@pytest.fixture(scope='module')
def little_study(tmp_path_factory):
    """The folder of a study of which only some runs are there, and of the controls only random labels."""
    folder = tmp_path_factory.mktemp('results') / 'study'
    simulate(folder, lambda width: 1 - width / 50, ['rounds_1', 'rounds_2', 'rounds_5'])
    simulate(folder.with_name('study_random'), lambda width: 0, ['random'], widths=(14, 28))
    return folder


@pytest.mark.slow
def test_an_unfinished_study_gives_numbers_figures_and_tables_and_says_what_is_missing(bare, little_study):
    process = bare.run('study/widths.py', little_study)
    assert process.returncode == 0, process.stderr
    counted = 'Runs: main 36 of 320, orders 0 of 24, decay 0.1 0 of 24, decay 1.0 0 of 24, random 6 of 64'
    assert counted in process.stdout
    assert 'the study lacks a control' in process.stdout and not process.stderr
    assert {path.name for path in little_study.glob('*.png')} == {
        'heat.png', 'widths.png', 'curves.png', 'errors.png', 'random.png'}
    numbers = pd.read_csv(little_study / 'numbers.csv')
    cell = numbers[(numbers.share == 20) & (numbers.n_embd == 10) & numbers.test.isna()].set_index('name')
    for name, value in {'heldout_acc': 0.8, 'gap': 0.2, 'fit_heldout_acc': 1, 'fits': 1, 'above_90': 0,
                        'peak_prob': 0.9,
                        'end_prob': 0.8, 'fall_after_peak': 0.1,
                        'bits': -0.8 * np.log2(0.9) - 0.2 * np.log2(0.05)}.items():
        assert cell.value[name] == pytest.approx(value, rel=1e-5) and cell.n[name] == 3, name
    assert numbers[(numbers.name == 'fits') & (numbers.n_embd == 8) & (numbers.study
                                                                       == 'main')].value.tolist() == [0, 0, 0]
    tables = bare.check('study/widths.py', little_study, '--markdown')
    assert '| 10 | 80.0 (all, n = 3) | 80.0 (all, n = 3) | 80.0 (all, n = 3) |\n' in tables
    assert 'There are no runs yet.' in tables and 'nan' not in tables


def test_what_is_no_study_is_answered_with_a_sentence(little_study, tmp_path, bare):
    bare.fails('study/widths.py', tmp_path, '--markdown', says='run study/widths.py without --markdown')
    with pytest.raises(UserError, match='no answers.csv.gz'):
        read_study(tmp_path)
    # its datasets are not those of the main runs
    with pytest.raises(UserError, match='holds a run that is not of the study'):
        read_study(little_study.with_name('study_random'))


def test_runs_that_were_stopped_are_not_taken_for_finished(little_study, tmp_path):
    for name in ('answers.csv.gz', 'results.csv.gz'):
        table = pd.read_csv(little_study / name)
        table[~((table.seed == 1338) & (table.iter == 500))].to_csv(tmp_path / name, index=False)
    shutil.copy(little_study / 'answers.csv.gz', tmp_path)
    with pytest.raises(UserError, match='end at different iterations'):
        read_study(tmp_path)


def test_controls_are_told_apart_by_their_folder_and_weight_decay():
    assert condition_of('study,n_embd=6,dataset=rounds_5', 'main') == ('main', 50, 6)
    assert condition_of('study,n_embd=14', 'orders') == ('orders', 20, 14)
    assert condition_of('study,n_embd=56,weight_decay=1.0,dataset=rounds_2', 'decay') == ('decay 1.0', 20, 56)
    assert condition_of('study,n_embd=28,dataset=random', 'random') == ('random', 0, 28)


def answered(questions, said, prob=0.5):
    """The answers of one run that said this; what is not named is answered right."""
    table = pd.DataFrame([q[:4] for q in questions], columns=['task', 'prompt', 'answer', 'group']).assign(prob=prob)
    table = add_numbers(table.assign(said=[said.get(q.prompt, q.answer) for q in questions]))
    return table.assign(right=table.error == 0)


def measured(questions, said, prob=0.5):
    return measure_answers(answered(questions, said, prob))


def test_errors_operations_and_neighbours_by_hand():
    # of 3+4, 4+3, 3+5 and 5+3 each has a neighbour among the others (3+4 and 3+5, 4+3 and 5+3); 0+9 and 9+0 have none
    questions = arithmetic_questions([(3, 4), (3, 5), (0, 9)])
    assert sum(q.group == 'held out' for q in questions) == 12
    run = measured(questions, {'<3+4=': '8', '<5-3=': '5', '<9-0=': '', '<1+1=': '3'})
    assert run['heldout_acc'] == 9 / 12 and run['seen_acc'] == pytest.approx(187 / 188) and run['bits'] == 1
    assert run['abs_error'] == pytest.approx((1 + 3) / 11) and run['off_by_one'] == 1 / 12
    assert run['no_number'] == 1 / 12
    assert run['add_acc'] == pytest.approx(5 / 6) and run['sub_acc'] == pytest.approx(4 / 6)
    assert run['near_acc'] == 3 / 4 and run['far_acc'] == 6 / 8 and run['near_minus_far'] == 0
    assert run['edge_acc'] == 3 / 4 and run['inner_acc'] == 6 / 8 and run['inner_minus_edge'] == 0


def test_the_baseline_gives_each_prediction_to_all_other_questions():
    assert errors_dealt_anew(np.array([7.0, 8, np.nan]), np.array([7, 9, 8])) == pytest.approx(
        [-2, -1, 1, 0, np.nan, np.nan], nan_ok=True)
    run = measured(arithmetic_questions([(3, 4), (3, 5)]), {})  # sums of 7, 7, 8, 8 and differences of 1, -1, 2, -2
    assert run['heldout_acc'] == 1 and run['chance_acc'] == 4 / 24 and run['chance_off_by_one'] == 12 / 24


def test_the_question_of_the_last_line_is_the_one_that_no_window_begins_with():
    questions = arithmetic_questions([(3, 4)])
    last = arithmetic_text(questions).splitlines()[-1].strip()
    assert measured(questions, {})['last_line_acc'] == 1
    assert measured(questions, {last.split('=')[0] + '=': '99'})['last_line_acc'] == 0


def test_bits_memorised_are_those_above_the_frequencies_of_the_answers():
    questions = arithmetic_questions([])
    answers = {task: pd.Series([q.answer for q in questions if q.task == task]).value_counts()
               for task in ('add', 'sub')}
    entropy = sum(100 * stats.entropy(counts, base=2) for counts in answers.values())
    assert measured(questions, {}, prob=1.0)['bits_memorised'] == pytest.approx(entropy) and 806 < entropy < 807
    guessed = np.array([answers[q.task][q.answer] / 100 for q in questions])
    assert measured(questions, {}, prob=guessed)['bits_memorised'] == pytest.approx(0)


def test_the_peak_is_chosen_by_the_other_splits():
    curves = pd.DataFrame({0: [0.1, 0.5, 0.2], 1: [0.1, 0.3, 0.4], 2: [0.1, 0.3, 0.1]}, index=[0, 250, 500])
    assert fall_after_peak(curves).tolist() == pytest.approx([0.3, -0.1, 0.2])  # split 1 has its own peak at the end
    assert np.isnan(fall_after_peak(curves[[0]])[0])
    # no fall: a split's own peak would always show one
    noise = pd.DataFrame(np.random.default_rng(0).random((100, 60)))
    assert 18 < (fall_after_peak(noise) > 0).sum() < 42


# -----------------------------------------------------------------------------
# what was not planned

def test_agreement_of_two_orders_by_hand():
    questions = arithmetic_questions([(3, 4), (3, 5), (2, 5)])  # sums of 7, 8 and 7
    run = measure_run(answered(questions, {'<3+5=': '9', '<2+5=': '6', '<5+2=': '6'}))
    assert run['same_mirrored'] == 2 / 3  # 3+4 and 4+3 are 7, 2+5 and 5+2 are 6, but 3+5 is 9 and 5+3 is 8
    assert run['same_equal_sum'] == 0 and run['same_others'] == 0
    run = measure_run(answered(questions, {'<3+5=': '7'}))
    # four of 7 agree with their others, and 3+5
    assert run['same_equal_sum'] == 1 and run['same_others'] == (8 + 8) / 24
    assert run['same_mirrored_minus_same_equal_sum'] == pytest.approx(2 / 3 - 1)


def test_signs_and_near_answers_by_hand():
    questions = arithmetic_questions([(3, 4), (0, 5)])
    run = measure_run(answered(questions, {'<3-4=': '1', '<5-0=': '-5', '<0-5=': '-9', '<0+5=': ''}))
    assert run['sign_right'] == 2 / 4 and run['near'] == 4 / 8  # 3-4 is off by two, and what has no number is not near
    assert run['nine_minus_zero'] != run['nine_minus_zero']  # there is no 9
    questions = arithmetic_questions([(3, 9), (0, 5), (0, 9)])
    run = measure_run(answered(questions, {'<3+9=': '1', '<0-5=': '1', '<5-0=': '1'}))
    assert run['nine_minus_zero'] == pytest.approx(3 / 4 - 2 / 4)  # 0 and 9 together count for neither


def test_what_copies_a_line_with_a_digit_in_common_is_never_right():
    questions = arithmetic_questions(round_robin_pairs(0)[:10])
    assert measure_run(answered(questions, {}))['copied'] == 0
    questions = arithmetic_questions([(3, 4)])
    run = measure_run(answered(questions, {'<3+4=': '5', '<4+3=': '20', '<3-4=': '1', '<4-3=': '9'}))
    assert run['copied'] == 2 / 4  # 3+2 is 5 and 3-2 is 1; no sum is 20, and neither 4-b nor a-3 is 9
    assert run['copied_dealt_anew'] == 1 / 4  # 4+1 is 5
    assert run['right_minus_dealt_anew'] == -1 / 4  # 4-3 is 1


def test_the_width_of_the_fall_of_each_fraction_and_what_is_memorised_there():
    runs = simulated_runs(lambda rng, kind, share, width: float(width <= 14 - (share == 50) * 6))
    runs['seen_acc'] = runs.n_embd / 56
    numbers = pd.DataFrame(of_falls(runs)).set_index(['name', 'share']).value
    assert numbers['width_of_fall', 10] == pytest.approx((14 * 20) ** 0.5)  # halfway in the logarithm
    assert numbers['width_of_fall', 50] == pytest.approx((8 * 10) ** 0.5)
    assert numbers['shuffled_acc_at_fall', 50] == pytest.approx(9 / 56)
    assert of_falls(runs[runs.study == 'main']) == []


def test_where_to_stop_is_chosen_by_the_other_splits():
    results = pd.DataFrame([dict(study='main', share=20, n_embd=14, split=split, iter=i, heldout_acc=0.5 * (i == 250))
                            for split, i in product(range(3), (0, 250, 500))])
    runs = simulated_runs(lambda rng, kind, share, width: 0.1 + 0.1 * (kind == 'decay 1.0')).assign(bits=3.0)
    numbers = pd.DataFrame(of_curves(runs, results)).set_index('name')
    assert numbers.value['stopped_minus_final'] == 0.5 and numbers.value['best_iter'] == 250
    decayed = numbers[numbers.study == 'decay 1.0'].value
    assert decayed['heldout_acc minus main'].tolist() == pytest.approx([0.1] * 3)
    assert decayed['bits minus main'].tolist() == [0] * 3


def test_no_curve_leaves_its_panel():
    results = pd.DataFrame([dict(study='main', share=20, n_embd=width, split=split, iter=i,
                                 heldout_prob=i * width / 56e3)
                            for width, split, i in product(WIDTHS, range(2), (0, 500, 1000))])
    for ax in draw_curves(results).axes:  # the narrowest comes first and has the lowest curve
        assert ax.get_ylim()[0] == 0 and ax.get_ylim()[1] >= 100 and len(ax.lines) == 3


@pytest.mark.slow
def test_the_committed_numbers_are_those_of_the_committed_runs():
    answers, results = read_study(REPO / 'results/study')
    runs = measure_runs(answers, results)
    for name, again in {'numbers': all_numbers(runs), 'unplanned': unplanned_numbers(answers, runs, results)}.items():
        there = pd.read_csv(REPO / f'results/study/{name}.csv')
        pd.testing.assert_frame_equal(again, there, check_dtype=False, rtol=1e-4)


@pytest.mark.slow
def test_the_page_of_tables_is_what_is_printed():
    printed = Project(REPO).check('study/widths.py', '--markdown', PYTHONPATH='')
    assert printed == (REPO / 'study/widths_tables.md').read_text()
