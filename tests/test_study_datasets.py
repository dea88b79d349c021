"""The datasets of both studies: what each holds and what it hides, and that the first study's have not changed."""

import hashlib
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common import dataset
from common.questions import arithmetic_questions, arithmetic_text, round_robin_pairs
from study import datasets
from study.datasets import BASES, in_letters, load_questions, one_order_questions, shuffle_answers

FIRST_STUDY = {  # hashes of the texts on which split 3 was trained, made by the prepare.py of that time
    'pair': 'f6432a478c7c171c', 'rounds_1': 'bc81f53d14e7d052', 'rounds_2': '38a31a9b6f8c0d59',
    'rounds_3': '9ef6f41561848538', 'rounds_5': '60da3b2325fb4d8b', 'orders': '4beeb1e1fae38e87',
    'random': '7f39ce0b79972a2e'}
SPLIT, SEED = 3, 1340


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    """A folder with all datasets of split 3, as study/datasets.py writes them."""
    folder = tmp_path_factory.mktemp('data')
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets, 'DATA', folder)
        for write in (datasets.write_first_study, datasets.write_tables, datasets.write_loads,
                      datasets.write_examples):
            write(SPLIT)
    return folder


@pytest.fixture
def load(data, monkeypatch):
    """load(name): the questions and the lines of a dataset, through the checks that training makes."""
    monkeypatch.setattr(dataset, 'DATA', data)

    def load(name):
        meta, train_ids, _ = dataset.load_dataset(f'{name}_{SEED}', block_size=9)
        return meta.questions, meta.tokenizer.decode(train_ids.tolist()).splitlines()
    return load


def held_out(questions):
    return [q.prompt for q in questions if q.group == 'held out']


def other_order(prompt):
    return prompt[0] + prompt[3] + prompt[2] + prompt[1] + prompt[4]


def operation_answers(questions):
    """The answers of each operation, as multisets."""
    return {task: Counter(q.answer for q in questions if q.task == task) for task in {q.task for q in questions}}


@pytest.mark.parametrize('name', FIRST_STUDY)
def test_the_texts_of_the_first_study_are_those_that_it_was_trained_on(data, name):
    assert hashlib.sha256((data / f'{name}_{SEED}' / 'input.txt').read_bytes()).hexdigest()[:16] == FIRST_STUDY[name]


@pytest.mark.parametrize(('name', 'lines', 'hidden'), [
    ('pair', 196, 4), ('rounds_1', 180, 20), ('rounds_2', 160, 40), ('rounds_3', 140, 60), ('rounds_5', 100, 100),
    ('orders', 160_000, 40), ('random', 200, 0)])
def test_the_first_study_hides_both_orders_of_its_pairs_in_both_operations(load, name, lines, hidden):
    questions, text = load(name)
    prompts = held_out(questions)
    assert (len(text), len(prompts)) == (lines, hidden)
    assert {p.translate(str.maketrans('+-', '-+')) for p in prompts} == set(prompts)
    assert {other_order(p) for p in prompts} == set(prompts)


def test_one_order_of_each_pair_is_hidden_and_the_other_is_shown(load):
    questions, text = load('one_order')
    prompts = held_out(questions)
    assert len(text) == 180 and len(prompts) == 20
    pairs = [(int(p[1]), int(p[3])) for p in prompts if p[2] == '+']
    assert sorted((a, b) for a, b in pairs) == sorted((int(p[1]), int(p[3])) for p in prompts if p[2] == '-')
    assert {frozenset(pair) for pair in pairs} == {frozenset(pair) for pair in round_robin_pairs(SPLIT)[:10]}
    assert all(f'<{b}+{a}={a + b}>'.ljust(8) in text for a, b in pairs)
    assert set(held_out(one_order_questions(0))) != set(prompts)  # each split draws its own


def test_the_hidden_orders_are_among_the_questions_that_the_first_study_hid(load):
    assert set(held_out(load('one_order')[0])) < set(held_out(load('rounds_2')[0]))


def test_numbers_in_letters_have_a_carry_and_a_sign():
    assert [in_letters(n, 8) for n in (0, 7, 8, 14, -1, -7)] == ['a', 'h', 'ba', 'bg', '-b', '-h']
    assert in_letters(46, 24) == 'bw' and in_letters(23, 24) == 'x'


@pytest.mark.parametrize('base', BASES)
def test_a_table_is_right_in_its_base_and_hides_a_quarter(load, base):
    questions, text = load(f'base_{base}')
    assert len(questions) == 2 * base ** 2 and len(text) == 3 * len(questions) // 4
    assert {len(line) for line in text} == {8}
    for q in questions:  # computed with Python's own digits of a base
        a, b = (datasets.LETTERS.index(letter) for letter in (q.prompt[1], q.prompt[3]))
        said = ''.join('0123456789abcdefghijklmn'[datasets.LETTERS.index(ch)] if ch != '-' else ch for ch in q.answer)
        assert int(said, base) == (a + b if q.prompt[2] == '+' else a - b) and a < base and b < base
    hidden = held_out(questions)
    of_digit = Counter(letter for prompt in hidden for letter in (prompt[1], prompt[3]))
    assert len(hidden) == len(questions) // 4 and set(of_digit.values()) == {base}  # every digit equally often
    assert {other_order(p) for p in hidden} == set(hidden)


@pytest.mark.parametrize('base', BASES)
def test_shuffled_answers_are_the_same_answers_to_the_same_questions(load, base):
    questions, text = load(f'base_{base}_shuffled')
    trained = [q for q in load(f'base_{base}')[0] if q.group == 'seen']
    assert [q.prompt for q in questions] == [q.prompt for q in trained] and len(text) == len(trained)
    assert operation_answers(questions) == operation_answers(trained)
    assert sum(a.answer == b.answer for a, b in zip(questions, trained)) < len(trained) / 4
    assert not held_out(questions)


@pytest.mark.parametrize('lines', datasets.LOADS)
def test_a_load_adds_lines_and_leaves_the_arithmetic_alone(load, lines):
    arithmetic, _ = load('rounds_2')
    answers = {q.answer for q in arithmetic if q.group == 'seen'}
    random_load, regular_load = ([q for q in load(f'load_{kind}_{lines}')[0] if q.task == 'load']
                                 for kind in ('random', 'regular'))
    for kind in ('random', 'regular'):
        questions, text = load(f'load_{kind}_{lines}')
        assert [q for q in questions if q.task != 'load'] == arithmetic and len(text) == 160 + lines
    assert [q.prompt for q in random_load] == [q.prompt for q in regular_load] and len(random_load) == lines
    assert {q.answer for q in regular_load} == {datasets.REGULAR_ANSWER}
    assert {q.answer for q in random_load} <= answers and len({q.answer for q in random_load}) > 20


@pytest.mark.parametrize('lines', datasets.LOADS)
def test_the_check_of_the_load_shuffles_the_arithmetic_as_well(load, lines):
    questions, text = load(f'load_shuffled_{lines}')
    trained = [q for q in load('rounds_2')[0] if q.group == 'seen']
    arithmetic = [q for q in questions if q.task != 'load']
    assert operation_answers(arithmetic) == operation_answers(trained) and len(text) == 160 + lines
    random_load, _ = load(f'load_random_{lines}')
    assert [q for q in questions if q.task == 'load'] == [q for q in random_load if q.task == 'load']
    assert not held_out(questions)


@pytest.mark.parametrize('lines', datasets.LOADS)
def test_both_kinds_of_load_have_one_vocabulary(data, lines):
    texts = [(data / f'load_{kind}_{lines}_{SEED}' / 'input.txt').read_text() for kind in ('random', 'regular')]
    assert set(texts[0]) == set(texts[1])


@pytest.mark.parametrize('n', datasets.EXAMPLES)
def test_fewer_examples_keep_the_number_of_lines_and_what_is_held_out(load, n):
    table, _ = load('base_24')
    answers = {}
    for kind in ('random', 'regular', 'none'):
        questions, text = load(f'examples_{n}_{kind}')
        arithmetic, others = ([q for q in questions if (q.task == 'load') == is_load] for is_load in (False, True))
        assert set(arithmetic) < set(table) and held_out(arithmetic) == held_out(table)
        assert len(text) == (n if kind == 'none' else 864) and {len(line) for line in text} == {8}
        seen = [q.prompt for q in arithmetic if q.group == 'seen']
        assert len(seen) == n and {other_order(prompt) for prompt in seen} == set(seen)
        counts = Counter((prompt[2], place, prompt[place]) for prompt in seen for place in (1, 3))
        assert set(counts.values()) == {n // 48} and len(counts) == 96  # every digit equally often, at either place
        answers[kind] = {q.prompt: q.answer for q in others}
    left_out = {q.prompt.translate(str.maketrans('+-', '*/')): q.answer for q in table
                if q.group == 'seen' and q.prompt not in seen}
    assert answers['random'].keys() == answers['regular'].keys() == left_out.keys() and not answers['none']
    assert Counter(answers['random'].values()) == Counter(left_out.values())
    assert sum(answers['random'][prompt] == answer for prompt, answer in left_out.items()) < len(left_out) / 4
    assert set(answers['regular'].values()) == {'f'}


def test_a_load_depends_on_the_split_alone():
    assert load_questions(50, ['1', '2', '3'], 4, False) == load_questions(50, ['1', '2', '3'], 4, False)
    assert load_questions(50, ['1', '2', '3'], 4, False) != load_questions(50, ['1', '2', '3'], 5, False)


@given(seed=st.integers(0, 2**32))
def test_shuffled_answers_are_those_of_the_task_and_no_rule_gives_them(seed):
    questions = arithmetic_questions([(5, 7)])
    shuffled = shuffle_answers(questions, seed)
    assert [q._replace(answer='') for q in shuffled] == [q._replace(answer='') for q in questions]
    for task in ('add', 'sub'):
        right, wrong = ([q.answer for q in some if q.task == task] for some in (questions, shuffled))
        assert sorted(right) == sorted(wrong) and sum(a == b for a, b in zip(right, wrong)) < 30  # 7 are expected
    add, sub = ([q.answer for q in shuffled if q.task == task] for task in ('add', 'sub'))
    assert shuffle_answers(questions, seed) == shuffled != shuffle_answers(questions, seed + 1)
    assert [int(a) % 2 for a in add] != [int(b) % 2 for b in sub], 'each task has a permutation of its own'


def test_each_order_has_every_line_and_the_first_is_arithmetic_texts():
    questions = arithmetic_questions([(5, 7)])
    text, first = arithmetic_text(questions, orders=3), arithmetic_text(questions)
    orders = [text[i * len(first):(i + 1) * len(first)] for i in range(3)]
    assert text == ''.join(orders) and orders[0] == first and len(set(orders)) == 3
    assert {tuple(sorted(order.split('\n'))) for order in orders} == {tuple(sorted(first.split('\n')))}
