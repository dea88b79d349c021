"""Data: the paper's texts to the character, questions that agree with them whatever the options, older files."""

import hashlib
import pickle
import re
import sys
import shutil
from contextlib import nullcontext

import numpy as np
import pytest
from little import paper_meta, paper_text

from common.dataset import Meta, find_meta, keep_meta, load_dataset, load_meta, read_ids, text_sha256
from common.errors import UserError
from common.files import write_file
from common.prepare import write_dataset
from common.questions import (
    FACT_END, Question, arithmetic_questions, arithmetic_text, facts_questions, facts_text, paper_questions)
from common.tokenizer import Tokenizer, vocabulary_files

SIZES = {'as_math': (1764, 17, 196, 200), 'facts_char': (1547, 51, 50, 50), 'both_math_and_facts': (3311, 66, 246, 250)}


@pytest.fixture
def data(tmp_path, monkeypatch):
    """An empty folder in the place of data/."""
    monkeypatch.setattr('common.dataset.DATA', tmp_path)
    return tmp_path


def change_meta(path, change):
    meta = pickle.loads(path.read_bytes())
    change(meta)
    path.write_bytes(pickle.dumps(meta))


# -----------------------------------------------------------------------------
# the paper's datasets, by their prepare.py


@pytest.mark.parametrize('dataset', SIZES)
def test_sizes_are_the_papers(bare, dataset):
    folder = bare.folder / 'data' / dataset
    text = (folder / 'input.txt').read_text()
    meta = pickle.loads((folder / 'meta.pkl').read_bytes())
    assert (len(text), meta['vocab_size'], len(text.splitlines()), len(meta['cases'])) == SIZES[dataset]
    for split in ('train.bin', 'val.bin'):
        ids = np.fromfile(folder / split, dtype=np.uint16)
        assert ''.join(meta['itos'][i] for i in ids) == text
    assert meta['stoi'] == {ch: i for i, ch in enumerate(sorted(set(text)))}


def test_both_is_the_sums_and_then_the_facts(bare):
    texts = {name: (bare.folder / 'data' / name / 'input.txt').read_text() for name in SIZES}
    assert texts['both_math_and_facts'] == texts['as_math'] + texts['facts_char'] == paper_text()


def test_lines_have_the_documented_form(bare):
    sums = (bare.folder / 'data/as_math/input.txt').read_text().split('\n')[:-1]
    assert all(len(line) == 8 for line in sums) and '<9-0=9> ' in sums
    facts = (bare.folder / 'data/facts_char/input.txt').read_text()
    assert facts.startswith('Capital of France is Paris \nCapital of the USA is Washington DC \n')


def test_the_shuffle_is_the_same_on_every_machine(bare):
    text = (bare.folder / 'data/as_math/input.txt').read_bytes()
    assert hashlib.sha256(text).hexdigest() == '8d87ae19e0bb86e7a9cceee9bb02668cc643b42069b74ca45bd1ef4240391fd5'


def test_prepare_runs_from_any_directory(fresh, tmp_path_factory):
    before = (fresh.folder / 'data/as_math/train.bin').read_bytes()
    (fresh.folder / 'data/as_math/train.bin').unlink()
    elsewhere = tmp_path_factory.mktemp('elsewhere')
    out = fresh.check('data/as_math/prepare.py', cwd=elsewhere)
    assert (fresh.folder / 'data/as_math/train.bin').read_bytes() == before
    assert not list(elsewhere.iterdir())
    for part in ('1,764', 'vocab size: 17', 'held out of the text: 5+7, 7+5, 5-7, 7-5'):
        assert part in out


def test_options_change_text_and_questions(fresh):
    out = fresh.check('data/both_math_and_facts/prepare.py', '--held_out', '3,4', '10,12', '--max_operand=12',
                      '--seed=5')
    assert '3+4, 4+3, 10+12, 12+10' in out.replace('held out of the text: ', '')
    meta = pickle.loads((fresh.folder / 'data/both_math_and_facts/meta.pkl').read_bytes())
    assert len(meta['cases']) == 2 * 13 * 13 + 50 and sum(case[3] for case in meta['cases']) == 8
    out = fresh.check('data/as_math/prepare.py', '--max_operand=19', '--held_out')
    assert 'train with --block_size=11 or more' in out and 'held out of the text: none' in out


def held_out_of(project, name):
    cases = pickle.loads((project.folder / f'data/{name}/meta.pkl').read_bytes())['cases']
    return {prompt.strip('<=') for _, prompt, _, held_out in cases if held_out}


def test_what_is_held_out_may_be_said_in_parts_and_by_single_questions(fresh):
    fresh.check('data/as_math/prepare.py', '--name=parts', '--held_out=3,4', '--held_out', '6,8', '5,5')
    pairs = {'3+4', '4+3', '3-4', '4-3', '6+8', '8+6', '6-8', '8-6', '5+5', '5-5'}
    assert held_out_of(fresh, 'parts') == pairs
    fresh.check('data/both_math_and_facts/prepare.py', '--name=orders', '--held_out', '5+7', '07-5', '0,1')
    assert held_out_of(fresh, 'orders') == {'5+7', '7-5', '0+1', '1+0', '0-1', '1-0'}
    text = (fresh.folder / 'data/orders/input.txt').read_text()
    assert '<7+5=12>' in text and '<5-7=-2>' in text and '<5+7=12>' not in text and '<7-5=2>' not in text


@pytest.mark.parametrize('options', [[], ['--held_out_rounds=4'], ['--max_operand=99', '--held_out_rounds=30']])
def test_what_prepare_prints_fits_into_80_columns(bare, tmp_path, options):
    for dataset in ('as_math', 'both_math_and_facts'):
        out = bare.check(f'data/{dataset}/prepare.py', '--name=wide', *options)
        shutil.rmtree(bare.folder / 'data/wide')
        assert max(map(len, out.splitlines())) <= 80 and 'train with --block_size=' in out


@pytest.mark.parametrize('rounds', [1, 9])
def test_k_rounds_hold_out_20_k_of_200_questions_into_a_folder_of_their_own(fresh, rounds):
    before = (fresh.folder / 'data/as_math/meta.pkl').read_bytes()
    out = fresh.check('data/as_math/prepare.py', f'--held_out_rounds={rounds}', '--split_seed=3', '--name=split')
    meta = pickle.loads((fresh.folder / 'data/split/meta.pkl').read_bytes())
    held_out = [tuple(map(int, re.findall(r'\d', case[1]))) for case in meta['cases'] if case[3]]
    assert len(meta['cases']) == 200 and len(held_out) == 20 * rounds and '5+7, 7+5, 5-7, 7-5' not in out
    # each digit is in exactly K pairs, so 4 K times in them: both orders of both operations
    assert [sum(digit in pair for pair in held_out) for digit in range(10)] == [4 * rounds] * 10
    assert len((fresh.folder / 'data/split/input.txt').read_text().splitlines()) == 200 - 20 * rounds
    assert (fresh.folder / 'data/as_math/meta.pkl').read_bytes() == before


@pytest.mark.parametrize('options, says', [
    (['--held_out', '1,2', '--held_out_rounds=1'], 'not allowed with'),
    (['--held_out', '5,17'], 'the operand 17, and the operands are 0..9'), (['--held_out', '5+17'], 'the operand 17'),
    (['--held_out=-1,2'], 'neither a pair'), (['--held_out', '5'], 'neither a pair'),
    (['--held_out', '5*7'], 'neither a pair'),
    (['--held_out', '0,0', '--max_operand=0'], 'hold out fewer questions'),
    (['--max_operand=-1'], 'must be from 0'), (['--max_operand=x'], 'invalid int'),
    (['--held_out_rounds=10'], 'from 0 to 9'),
    (['--held_out_rounds=-1'], 'from 0 to 9'), (['--held_out_rounds=1', '--max_operand=8'], 'even'),
    (['--name=a/b'], 'plain name'), (['--name=../as_math'], 'plain name'), (['--name=/tmp/x'], 'plain name'),
    (['--name='], 'plain name'),
    (['--name=..'], 'plain name'), (['--name=.hidden'], 'plain name'),
    (['--name=facts_char'], 'data/facts_char has a prepare.py of its own'),
])
def test_impossible_options_are_refused_and_change_nothing(bare, options, says):
    files = {path: path.read_bytes() for path in (bare.folder / 'data').rglob('*') if path.is_file()}
    bare.fails('data/as_math/prepare.py', *options, says=says)
    assert {path: path.read_bytes() for path in (bare.folder / 'data').rglob('*') if path.is_file()} == files


# -----------------------------------------------------------------------------
# what write_dataset and load_dataset hold together


def test_a_dataset_of_any_questions_is_read_as_it_was_written(data):
    questions = [Question('verbs', 'sing: ', 'sang', 'seen', ';\n'), Question('mul', '3*4=', '12', 'seen', ' '),
                 Question('mul', '4*3=', '12', 'held out', ' '), Question('mul', '9*9=', '81', 'seen', ' '),
                 Question('years', 'Hastings: ', '1066', 'seen', '\n')]
    write_dataset(data / 'own', 'sing: sang;\n3*4=12 \n9*9=81 \nHastings: 1066\n', questions)
    meta, train, val = load_dataset('own')
    assert meta.questions == questions and meta.has_questions and (train == val).all()
    assert meta.tokenizer.decode(train.tolist()) == (data / 'own/input.txt').read_text()
    assert {path.name for path in (data / 'own').iterdir()} == {'input.txt', 'train.bin', 'val.bin', 'meta.pkl'}


@pytest.mark.parametrize('written', [1, 2, 3])
def test_a_dataset_that_was_interrupted_while_it_was_written_is_not_taken_for_one_of_gpt2(data, monkeypatch, written):
    def interrupted(path, content, left=[written]):  # noqa: B006
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        write_file(path, content)
    monkeypatch.setattr('common.prepare.write_file', interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_dataset(data / 'sums', arithmetic_text(arithmetic_questions()), arithmetic_questions())
    with pytest.raises(UserError, match=r'^data/sums/\w+.bin not found: prepare data/sums first$'):
        load_dataset('sums')


def test_a_question_of_a_dataset_is_seen_or_held_out(data):
    with pytest.raises(UserError, match="must be 'seen' or 'held out', not 'beyond'"):
        write_dataset(data / 'own', 'abc\n9=9 \n', [Question('own', '9', '=9', 'beyond', ' ')])
    assert not (data / 'own').exists()


@pytest.mark.parametrize('text, says', [
    ('say: quack\n', r"does not contain 'say: quack \\n'"),  # the line ends otherwise than its question says
    ('say: moo \n', r"does not contain 'say: quack \\n'"),
    ('say: quack \nsay: moo \n', r"contains 'say: moo \\n', a held-out question")])
def test_a_text_that_disagrees_with_its_questions_is_refused(data, text, says):
    questions = [Question('ducks', 'say: ', 'quack', 'seen', ' \n'),
                 Question('cows', 'say: ', 'moo', 'held out', ' \n')]
    with pytest.raises(UserError, match=says):
        write_dataset(data / 'own', text, questions)
    assert not (data / 'own').exists()
    # and so is one that has been changed since
    write_dataset(data / 'own', 'say: quack \nmy \n', questions)
    stoi = pickle.loads((data / 'own/meta.pkl').read_bytes())['stoi']
    np.array([stoi[ch] for ch in text], dtype='<u2').tofile(data / 'own/train.bin')
    with pytest.raises(UserError, match=says):
        load_dataset('own')


NUMBERS = [Question('times', '3*4=', '12', 'seen', ' '), Question('times', '0*0=', '0', 'held out', ' ')]


@pytest.mark.parametrize('text', ['see 0*0=0 here, and 3*4=12 \n', '3*4=12 \n(0*0=0 )\n', '3*4=12 0*0=0 '])
def test_a_held_out_line_is_found_wherever_it_stands(data, text):
    with pytest.raises(UserError, match="the text of own contains '0.0=0 ', a held-out question"):
        write_dataset(data / 'own', text, NUMBERS)


@pytest.mark.parametrize('text', ['3*4=12 \n10*0=0 \n', 'a table: 3*4=12 \n', '10*0=0 3*4=12 '])
def test_a_line_may_stand_in_the_middle_of_another_but_not_in_the_middle_of_a_number(data, text):
    write_dataset(data / 'own', text, NUMBERS)
    assert load_dataset('own')[0].questions == NUMBERS
    with pytest.raises(UserError, match="does not contain '3.4=12 ', a training question"):
        write_dataset(data / 'own', text.replace('3*4', '13*4'), NUMBERS)


def test_lines_without_newlines_between_them_are_a_text(data):
    """As ''.join(q.line for q in questions) makes them if the terminator has no newline."""
    questions = [q._replace(group='seen') for q in arithmetic_questions()]
    write_dataset(data / 'own', ''.join(q.line for q in questions), questions)
    assert load_dataset('own')[0].questions == questions


@pytest.mark.parametrize('times', [1, 2])
def test_the_last_line_is_said_to_be_learnt_less_well_only_if_it_stands_once(data, capsys, times):
    questions = [Question('animals', 'The duck says ', 'quack', 'seen', ' \n'),
                 Question('animals', 'The cow says ', 'moo', 'seen', ' \n')]
    write_dataset(data / 'own', ''.join(q.line for q in times * questions), questions)
    out = capsys.readouterr().out.replace('\n', ' ')
    assert ("learnt less well than others: 'The cow says moo '" in out) == (times == 1)


def test_of_a_text_without_lines_only_the_end_is_printed(data, capsys):
    questions = [Question('add', f'<{a}+1=', str(a + 1)) for a in range(99)]
    write_dataset(data / 'own', ''.join(q.line for q in questions), questions)
    assert len(capsys.readouterr().out.split('learnt less well')[1]) < 90


def test_a_task_whose_questions_end_in_two_ways_is_refused_and_named(data):
    questions = [Question('own', 'a ', 'b', 'seen', ';'), Question('own', 'c ', 'd', 'seen', '.')]
    with pytest.raises(UserError, match="those of 'own' end in ';' and in '.': give them one terminator"):
        write_dataset(data / 'own', 'a b;c d.', questions)


def test_two_questions_of_a_task_with_one_prompt_are_refused_and_two_tasks_may_share_it(data):
    cow, duck = Question('own', 'say: ', 'moo', 'seen', ' \n'), Question('own', 'say: ', 'quack', 'seen', ' \n')
    with pytest.raises(UserError, match="two questions of task 'own' have the prompt 'say: '"):
        write_dataset(data / 'own', cow.line + duck.line, [cow, duck])
    write_dataset(data / 'own', cow.line + duck.line, [cow, duck._replace(task='other')])


def test_a_context_too_short_for_the_questions_is_said_and_one_longer_than_the_text_refused(data, capsys):
    text = arithmetic_text(arithmetic_questions(max_operand=19))
    write_dataset(data / 'sums', text, arithmetic_questions(max_operand=19))
    capsys.readouterr()
    load_dataset('sums', block_size=11)
    assert capsys.readouterr().out == ''
    load_dataset('sums', block_size=9)  # the config's
    assert 'block_size 9 is too small' in (out := capsys.readouterr().out) and 'train with --block_size=11' in out
    with pytest.raises(UserError, match='block_size [0-9]+ is too large'):
        load_dataset('sums', block_size=len(text))
    load_dataset('sums', block_size=len(text) - 1)
    animals = [Question('animals', 'The duck says ', 'quack', 'seen', ' \n')]
    write_dataset(data / 'animals', animals[0].line * 3, animals)
    write_dataset(data / 'capitals', facts_text(facts_questions()), facts_questions())
    for name, block_size, needed in (('animals', 9, 21), ('animals', 21, 0), ('capitals', 9, 24), ('capitals', 24, 0)):
        capsys.readouterr()
        load_dataset(name, block_size)
        out = capsys.readouterr().out
        assert f'train with --block_size={needed} or more' in out if needed else out == '', (name, block_size)


def test_what_is_not_there_is_named_with_the_command_that_makes_it(bare, data):
    (data / 'as_math').mkdir()
    shutil.copy(bare.folder / 'data/as_math/prepare.py', data / 'as_math')
    (data / 'of_ones_own').mkdir()
    (data / 'of_ones_own/train.bin').touch()
    for name in ('base_8_1342', 'base_12_1337'):  # the first is more like base_12
        (data / name).mkdir()
        (data / name / 'train.bin').touch()
    for name, hint in (('as_maths', r'did you mean as_math\?'), ('of_ones', r'did you mean of_ones_own\?'),
                       ('base_12', r'did you mean base_12_1337\?'),
                       ('nonsense', 'there are as_math, base_12_1337, base_8_1342, of_ones_own. .* '
                                    'study/datasets.py those of the studies')):
        with pytest.raises(UserError, match=f'no dataset data/{name}: {hint}'):
            load_dataset(name)
    for act in (lambda: load_dataset('as_math'), lambda: find_meta('as_math')):
        with pytest.raises(UserError, match='run python data/as_math/prepare.py first'):
            act()


def test_a_texts_hash_is_of_its_ids_in_whatever_pieces_and_type():
    ids = np.arange(2**21 + 5, dtype='<u2')
    assert text_sha256(ids) == hashlib.sha256(ids.astype('<i8').tobytes()).hexdigest() != text_sha256(ids[:-1])


# -----------------------------------------------------------------------------
# meta.pkl of others


def test_this_projects_older_meta_pkl_loads(bare, tmp_path):
    """Its cases are 4-tuples without terminators, and may be lists."""
    shutil.copy(bare.folder / 'data/both_math_and_facts/meta.pkl', tmp_path)
    change_meta(tmp_path / 'meta.pkl', lambda meta: meta.pop('terminators'))
    assert load_meta(tmp_path / 'meta.pkl').questions == paper_questions()
    change_meta(tmp_path / 'meta.pkl', lambda meta: meta.update(cases=[list(case) for case in meta['cases']]))
    assert load_meta(tmp_path / 'meta.pkl').questions == paper_questions()
    change_meta(tmp_path / 'meta.pkl', lambda meta: meta['cases'].append(('own', '<1', '2', False)))
    with pytest.raises(UserError, match="cannot be read .[^\n]* terminator must be text [^\n]*'own'[^\n]* None"):
        load_meta(tmp_path / 'meta.pkl')


def write_nanogpts(folder, text):
    """A dataset as nanoGPT's prepare.py writes it: a meta.pkl without questions."""
    folder.mkdir()
    chars = sorted(set(text))
    (folder / 'meta.pkl').write_bytes(pickle.dumps(dict(
        vocab_size=len(chars), stoi={ch: i for i, ch in enumerate(chars)}, itos=dict(enumerate(chars)))))
    for name in ('train.bin', 'val.bin'):
        np.array([chars.index(ch) for ch in text], dtype='<u2').tofile(folder / name)


def test_a_text_of_others_is_asked_what_it_can_answer_and_nothing_in_it_counts_as_held_out(data, monkeypatch):
    everything = arithmetic_questions(())
    write_nanogpts(data / 'all', arithmetic_text(everything).replace(' ', ''))
    assert load_dataset('all')[0].questions == everything
    write_nanogpts(data / 'some', paper_text()[:1764].replace('<0-0=0>', '<0-0=1>'))
    meta, *_ = load_dataset('some')
    assert [q for q in arithmetic_questions() if q not in meta.questions] == [everything[100]]
    keep_meta(meta, data / 'some')  # into a model folder
    assert load_meta(data / 'some/meta.pkl').questions == meta.questions
    write_nanogpts(data / 'other', paper_text()[1764:].replace('Capital', 'Name') + '<0123456789>+-=')
    assert load_dataset('other')[0].questions == []
    for end in ('\n', ' \r\n'):  # a few facts, whose lines end otherwise, and a text that cannot spell all the others
        text = paper_text()[1764:].replace(' \n', end)[:200]
        write_nanogpts(data / f'few{len(end)}', text)
        questions = load_dataset(f'few{len(end)}')[0].questions
        assert questions and all(q.prompt + q.answer + end in text and q.terminator == end for q in questions)
    monkeypatch.setattr('common.dataset.SEARCHED', 80)
    text = arithmetic_text(everything).replace(' ', '')[:80]
    assert load_dataset('all')[0].questions == [q for q in everything if q.line in text], \
        'of a long text only the beginning is searched, and no question of the rest counts as held out'


@pytest.mark.parametrize('dtype, text, vocab_size, refused', [
    ('<i4', [1, 2, 0, 3], 4, True), ('<i8', [1, 2, 3, 3], 4, True), ('<i4', [1, 2, 3, 3], 50257, True),
    ('<u2', [1, 0, 2, 0, 3, 0], 4, False), ('<u2', [0, 0, 1], 4, False)])
def test_ids_of_32_or_64_bits_are_refused_and_lines_of_one_character_are_not(data, dtype, text, vocab_size, refused):
    (data / 'own').mkdir()
    np.array(text, dtype).tofile(data / 'own/train.bin')
    with pytest.raises(UserError, match='ids of 32 or 64 bits') if refused else nullcontext():
        assert list(read_ids('own', 'train.bin', vocab_size, 1)) == text


def test_nanogpts_meta_pkl_gets_the_papers_questions_for_what_it_can_spell(tmp_path):
    for i, (text, tasks) in enumerate((
            (arithmetic_text(arithmetic_questions()), {'add', 'sub'}), (paper_text()[1764:], {'facts'}),
            ('<0+1=1> \n', {'add'}), (paper_text(), {'add', 'sub', 'facts'}), ('abc\n', set()))):
        write_nanogpts(tmp_path / str(i), text)
        meta = load_meta(tmp_path / str(i) / 'meta.pkl')
        assert {q.task for q in meta.questions} == tasks and not meta.has_questions
        assert meta.tokenizer.decode(meta.tokenizer.encode(text)) == text


class Hostile:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), 'w')


def test_a_meta_pkl_that_would_execute_code_is_refused(tmp_path):
    (tmp_path / 'meta.pkl').write_bytes(pickle.dumps({'vocab_size': Hostile(tmp_path / 'owned')}))
    with pytest.raises(UserError, match='prepare.py again'):
        load_meta(tmp_path / 'meta.pkl')
    assert not (tmp_path / 'owned').exists()


@pytest.mark.parametrize('change, says', [
    (lambda m: m.update(vocab_size=18), 'disagree'), (lambda m: m['itos'].update({0: 'x'}), 'disagree'),
    (lambda m: m.pop('stoi'), 'stoi'),
    (lambda m: m['cases'].append(('add', '<a+b=', '1', False)), 'cannot spell'),
    (lambda m: m['cases'].append(('add', '', '1', False)), 'not empty'),
    (lambda m: m['cases'].append(('add', '<1+1=', '', False)), 'not empty'),
    (lambda m: m['cases'].append(('add', '<1')), 'unpack'),
    (lambda m: m['cases'].append(('add', '<1+1=', '2', 7)), '7'),
    (lambda m: m['terminators'].update(add=''), 'not empty'),
    (lambda m: m['cases'].append(('add', '<5+7=', '13', True)), 'two questions of task'),
    (lambda m: m.update(stoi={i: i for i in range(17)}, itos={i: i for i in range(17)}), 'not made of characters'),
])
def test_a_meta_pkl_that_makes_no_sense_is_refused_and_says_why(bare, tmp_path, change, says):
    shutil.copy(bare.folder / 'data/as_math/meta.pkl', tmp_path)
    change_meta(tmp_path / 'meta.pkl', change)
    with pytest.raises(UserError, match=rf'^\S+meta.pkl cannot be read \([^\n]*{says}[^\n]*prepare.py again, '
                                        'or delete it if it is in a model folder$'):
        load_meta(tmp_path / 'meta.pkl')


def test_every_fact_is_a_line_of_its_own_that_ends_as_the_paper_ends_it():
    assert paper_meta().questions == paper_questions()
    text = paper_text()
    for q in facts_questions():
        assert text.count(q.prompt) == 1 and q.terminator == FACT_END and q.prompt + q.answer + FACT_END in text


def test_a_model_folder_keeps_what_was_loaded_whatever_the_files_have_become_since(data, tmp_path):
    questions = arithmetic_questions(max_operand=3)
    write_dataset(data / 'sums', arithmetic_text(questions), questions)
    before = pickle.loads((data / 'sums/meta.pkl').read_bytes())
    meta, *_ = load_dataset('sums')
    write_dataset(data / 'sums', arithmetic_text(questions[:9]), questions[:9])
    out = tmp_path / 'out'
    out.mkdir()
    keep_meta(meta, out)
    now, other = (pickle.loads((folder / 'meta.pkl').read_bytes()) for folder in (out, data / 'sums'))
    assert now == before != other


def test_gpt2s_vocabulary_goes_into_the_model_folder_if_it_is_there(tmp_path):
    for folder in ('bpe', 'out'):
        (tmp_path / folder).mkdir()
    for path in ('bpe/vocab.json', 'bpe/merges.txt'):
        (tmp_path / path).write_text(path)
    keep_meta(Meta(Tokenizer(3, None, None, bpe=True), [], has_questions=False), tmp_path / 'out')
    assert not list((tmp_path / 'out').iterdir()), "OpenAI's is not copied"
    files = tuple(vocabulary_files(tmp_path / 'bpe'))
    keep_meta(Meta(Tokenizer(3, None, None, bpe=True, files=files), [], has_questions=False), tmp_path / 'out')
    assert {path.name: path.read_text() for path in (tmp_path / 'out').iterdir()} == {
        'vocab.json': 'bpe/vocab.json', 'merges.txt': 'bpe/merges.txt'}


def test_writing_a_dataset_leaves_a_notebooks_own_way_with_errors_alone(data):
    before = sys.excepthook
    write_dataset(data / 'sums', arithmetic_text(arithmetic_questions()), arithmetic_questions())
    assert sys.excepthook is before
