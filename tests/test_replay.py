"""The authors' published losses, from their initial weights and their order of batches: our model is theirs."""

import numpy as np
import pandas as pd
import pytest
from paper.authors import SWEEPS, compare, draw, markdown
from conftest import REPO
from paper.replay import replay
from paper.table import table

from common.pictures import plt
from common.questions import facts_questions, facts_text
from common.sweeps import read_sweep

AUTHORS = pd.read_csv(REPO / 'results/authors_curves.csv').set_index(['sweep', 'config', 'iter']).sort_index()
TEXT = facts_text(facts_questions())
CHARS = sorted(set(TEXT))
IDS = np.array([CHARS.index(ch) for ch in TEXT])


# theirs is bfloat16, which rounds more
@pytest.mark.parametrize('n_embd, tolerance', [(14, 2e-5), (28, 2e-5), (56, 8e-5)])
def test_untrained_models_have_the_authors_losses(n_embd, tolerance):
    published = AUTHORS.loc[('paper', f'facts_mini_{n_embd}', 0), ['train_loss', 'val_loss']]
    losses = next(replay(IDS, len(CHARS), n_embd))[1:]
    assert losses == pytest.approx(published.tolist(), abs=tolerance)
    assert losses[0] != losses[1]  # two estimates, from other windows of one text: their order is tested as well


@pytest.mark.slow
def test_the_model_has_the_authors_losses_after_250_iterations():
    published = AUTHORS.loc[('paper', 'facts_mini_14', 250), ['train_loss', 'val_loss']]
    *_, (iter_num, *losses) = replay(IDS, len(CHARS), max_iters=250)
    assert iter_num == 250 and losses == pytest.approx(published.tolist(), abs=2e-3)


def test_the_committed_replay_is_the_one_that_the_tests_run():
    table = pd.read_csv(REPO / 'results/replay.csv')
    assert set(table.batches) == {'theirs', 'other'} and len(table) == 4 * 11
    for (batches, dtype), rows in table.groupby(['batches', 'dtype']):
        assert rows.iter.tolist() == list(range(0, 2501, 250))
        losses = next(replay(IDS, len(CHARS), dtype=dtype, order_seed=1 if batches == 'other' else None))[1:]
        assert rows.iloc[0, 3:].tolist() == pytest.approx(losses, abs=1e-5)


def test_the_values_of_the_paper_are_those_of_its_curves():
    values = pd.read_csv(REPO / 'results/paper_values.csv').dropna(subset='loss')
    for _, row in values.iterrows():
        end = AUTHORS.loc[(row.sweep, row.config, 30000)]
        assert min(abs(row.loss - end.train_loss), abs(row.loss - end.val_loss)) < 1e-3, row.config


def run(loss, wrong):
    return pd.DataFrame({'iter': [0, 250], 'train_loss': [3.0, loss], 'add_correct': [0, 1000 - wrong],
                         'add_total': 1000,
                         'sub_correct': [0, 1000], 'sub_total': 1000, 'facts_correct': 0, 'facts_total': 0})


def test_a_run_is_outside_if_no_seed_is_as_far():
    row = compare(run(0.9, 10), [run(0.5, 0), run(0.6, 20), run(0.7, 0)])
    assert row['outside'] == 0.5 and row['outside_by_chance'] == 0.5
    assert (row['wrong_sums'], row['our_wrong_sums']) == (1, '0 to 2')
    half = 4.302653 * 0.1 * (4 / 3) ** 0.5  # Student's t with two degrees of freedom
    assert (row['low'], row['high']) == pytest.approx((0.6 - half, 0.6 + half))
    assert 'wrong_facts' not in row


def test_a_single_seed_that_stopped_early_is_compared_where_it_stopped_and_judged_by_nothing():
    theirs = pd.concat([run(0.9, 10), run(0.4, 0)[1:].assign(iter=500)])
    row = compare(theirs, [run(0.8, 20)])
    assert (row['iter'], row['loss'], row['our_loss'], row['wrong_sums'], row['our_wrong_sums']) == (250, 0.9, 0.8, 1,
                                                                                                     '2')
    line = markdown(pd.DataFrame([{'sweep': 'mlt', 'config': 'c', 'wrong_facts': None, 'our_wrong_facts': None,
                                   **row}]))
    assert line.endswith('| mlt | c | 1 | 250 | 0.9000 | 0.8000 |  |  |  | 1; 2 |  |')


def test_runs_that_stop_between_the_authors_evaluations_are_compared_at_the_last_that_both_have():
    theirs = pd.concat([run(0.9, 10), run(0.4, 0)[1:].assign(iter=2000)])
    ours = pd.concat([run(0.8, 20), run(0.7, 0)[1:].assign(iter=1260)])
    row = compare(theirs, [ours])
    assert (row['iter'], row['loss'], row['our_loss']) == (250, 0.9, 0.8)
    figure = draw([('c', theirs, [ours])])
    assert figure.axes[1].get_ylim()[1] == pytest.approx(0.99), 'up to 1.1 times the loss at iteration 1000, or before'
    plt.close(figure)


def test_the_table_says_where_runs_ended_that_are_not_as_long_as_the_papers():
    summary = pd.DataFrame([dict(config=config, iters=end, metric='final_train_loss', seeds=1, mean=0.5, std=0.0)
                            for config, end in (('math_mini_14', 30000), ('math_mini_28', 12000))])
    assert [line.split('|')[1:4] for line in table(summary, 'paper')[2:]] == [
        [' math_mini_14 ', ' 1 ', ' 100 / 100 '], [' math_mini_28, 12,000 iterations ', ' 1 ', ' 97.8 / 97.8 ']]


@pytest.mark.slow
def test_the_committed_comparison_is_that_of_the_committed_runs():
    committed = pd.read_csv(REPO / 'results/authors_against_ours.csv').set_index(['sweep', 'config'])
    runs = {(name, config): [*seeds.values()] for name in committed.index.unique('sweep')
            for config, seeds in read_sweep(REPO / 'results' / name).items()}
    assert [*runs] == [*committed.index]
    for (name, config), ours in runs.items():
        again = pd.Series(compare(AUTHORS.loc[SWEEPS[name], config].reset_index(), ours))
        there = committed.loc[name, config][again.index]
        pd.testing.assert_series_equal(again, there, check_names=False, check_dtype=False, rtol=1e-4)


def test_the_committed_table_is_that_of_the_committed_comparison():
    text = (REPO / 'results/authors_against_ours.md').read_text(encoding='utf-8')
    assert markdown(pd.read_csv(REPO / 'results/authors_against_ours.csv')) + '\n' == text
