"""Data: the paper's texts to the character, and questions that agree with them whatever the options."""

import hashlib
import pickle

import numpy as np
import pytest
from hypothesis import given, strategies as st

from data.as_math.prepare import arithmetic_cases, arithmetic_text

SIZES = {'as_math': (1764, 17, 196, 200), 'facts_char': (1547, 51, 50, 50), 'both_math_and_facts': (3311, 66, 246, 250)}


@pytest.mark.parametrize('dataset', SIZES)
def test_sizes_are_the_papers(prepared, dataset):
    folder = prepared.folder / 'data' / dataset
    text = (folder / 'input.txt').read_text()
    meta = pickle.loads((folder / 'meta.pkl').read_bytes())
    characters, vocab_size, lines, questions = SIZES[dataset]
    assert (len(text), meta['vocab_size'], len(text.splitlines()), len(meta['cases'])) == SIZES[dataset]
    for split in ('train.bin', 'val.bin'):
        ids = np.fromfile(folder / split, dtype=np.uint16)
        assert ''.join(meta['itos'][i] for i in ids) == text
    assert meta['stoi'] == {ch: i for i, ch in enumerate(sorted(set(text)))}


def test_both_is_the_sums_and_then_the_facts(prepared):
    texts = {name: (prepared.folder / 'data' / name / 'input.txt').read_text() for name in SIZES}
    assert texts['both_math_and_facts'] == texts['as_math'] + texts['facts_char']


def test_lines_have_the_documented_form(prepared):
    sums = (prepared.folder / 'data/as_math/input.txt').read_text().split('\n')[:-1]
    assert all(len(line) == 8 for line in sums) and '<9-0=9> ' in sums
    facts = (prepared.folder / 'data/facts_char/input.txt').read_text()
    assert facts.startswith('Capital of France is Paris \nCapital of the USA is Washington DC \n')


def test_the_shuffle_is_the_same_on_every_machine(prepared):
    text = (prepared.folder / 'data/as_math/input.txt').read_bytes()
    assert hashlib.sha256(text).hexdigest() == '8d87ae19e0bb86e7a9cceee9bb02668cc643b42069b74ca45bd1ef4240391fd5'


def test_prepare_runs_from_any_directory(project, tmp_path_factory):
    before = (project.folder / 'data/as_math/train.bin').read_bytes()
    (project.folder / 'data/as_math/train.bin').unlink()
    elsewhere = tmp_path_factory.mktemp('elsewhere')
    out = project.check('data/as_math/prepare.py', cwd=elsewhere)
    assert (project.folder / 'data/as_math/train.bin').read_bytes() == before
    assert not list(elsewhere.iterdir())
    for part in ('1,764', 'vocab size: 17', 'held out of the text: 5+7, 7+5, 5-7, 7-5'):
        assert part in out


@given(max_operand=st.integers(1, 30), seed=st.integers(0, 2**32), data=st.data())
def test_text_holds_every_seen_line_and_no_held_out_one(max_operand, seed, data):
    operand = st.integers(0, max_operand)
    held_out = data.draw(st.lists(st.tuples(operand, operand), max_size=3))
    cases = arithmetic_cases(held_out, max_operand)
    assert len(cases) == 2 * (max_operand + 1) ** 2
    if all(held for *_, held in cases):
        return
    lines = arithmetic_text(cases, seed).split('\n')[:-1]
    assert len({len(line) for line in lines}) == 1
    assert sorted(line.rstrip() for line in lines) == sorted(p + a + '>' for _, p, a, held in cases if not held)
    for _, prompt, answer, held in cases:
        expression = prompt.strip('<=')
        assert int(answer) == eval(expression)
        a, b = map(int, expression.replace('-', '+').split('+'))
        assert held == ((a, b) in held_out or (b, a) in held_out)


def test_options_change_text_and_questions(project):
    out = project.check('data/both_math_and_facts/prepare.py', '--held_out', '3,4', '10,12', '--max_operand=12', '--seed=5')
    assert '3+4, 4+3, 10+12, 12+10' in out.replace('held out of the text: ', '')
    meta = pickle.loads((project.folder / 'data/both_math_and_facts/meta.pkl').read_bytes())
    assert len(meta['cases']) == 2 * 13 * 13 + 50 and sum(case[3] for case in meta['cases']) == 8
    assert 'a sum takes 11 characters' in project.check('data/as_math/prepare.py', '--max_operand=19')
    assert 'held out of the text: none' in project.check('data/as_math/prepare.py', '--held_out')


@pytest.mark.parametrize('options, says', [
    (['--held_out', '5,17'], 'outside the operands 0..9'), (['--held_out=-1,2'], 'outside'),
    (['--held_out', '5'], 'not a pair'), (['--held_out', '0,0', '--max_operand=0'], 'no expression to train on'),
    (['--max_operand=-1'], 'must be from 0'), (['--max_operand=x'], 'invalid int'),
])
def test_impossible_options_are_refused_and_change_nothing(project, options, says):
    before = (project.folder / 'data/as_math/meta.pkl').read_bytes()
    project.fails('data/as_math/prepare.py', *options, says=says)
    assert (project.folder / 'data/as_math/meta.pkl').read_bytes() == before
