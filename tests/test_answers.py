"""answers.csv.gz: every evaluation's questions, none lost, none twice, whatever became of the run that wrote them."""

import gzip
import os
import resource
import signal
import zlib
from collections import Counter

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.answers import FILE, add_verdicts, append_answers, keep_answers_before, read_answers
from common.dataset import meta_bytes
from common.errors import UserError
from common.questions import Question, is_correct

COLUMNS = ['iter', 'task', 'prompt', 'answer', 'group', 'samples', 'correct', 'prob', 'said']
# what a csv must not turn into something else
SAID = ['12', '', 'NA', 'nan', 'x,"y"', '-3', ' 7', 'a\tb', '007', 'é', 'x\ny']


def graded(iter_num, said=SAID):
    """A graded table of an evaluation."""
    rows = [('add', f'<{i}+{iter_num}=', '12', 'seen', 10, i, 0.125 * i, text, Counter({text: 10}))
            for i, text in enumerate(said)]
    return pd.DataFrame(rows, columns=[*COLUMNS[1:], 'completions'])


def test_every_evaluation_is_appended_and_read_as_it_was(tmp_path):
    for iter_num in (0, 250, 500):
        append_answers(iter_num, graded(iter_num), tmp_path)
    found = read_answers(tmp_path)
    assert list(found.columns) == [*COLUMNS, 'right', 'always_right'] and list(found.iter.unique()) == [0, 250, 500]
    for iter_num, rows in found.groupby('iter'):
        expected = add_verdicts(graded(iter_num)).drop(columns='completions')
        pd.testing.assert_frame_equal(rows.drop(columns='iter').reset_index(drop=True), expected, check_dtype=False)
    # what the README says: pandas reads it by itself
    assert len(pd.read_csv(tmp_path / FILE)) == 3 * len(SAID)


@pytest.mark.parametrize('answer, said, correct, right', [
    ('12', '12', 10, True), ('12', '12', 4, True), ('12', '13', 4, False), ('12', ' 12x', 10, True),
    ('-3', '3', 0, False),
    ('Paris', 'paris. ', 10, True), ('Paris', 'Par', 0, False), ('12', '12 eggs', 0, False)])
def test_a_question_is_right_if_its_most_frequent_sample_is_and_always_right_if_all_are(answer, said, correct, right):
    table = pd.DataFrame([dict(task='t', prompt='p', answer=answer, group='seen', samples=10, correct=correct,
                               said=said)])
    row, = add_verdicts(table).itertuples()
    assert (row.right, row.always_right) == (right, correct == 10)


@pytest.mark.parametrize('terminator, right', [('>', True), ('\n', False)])
def test_a_number_that_ends_its_line_is_right_as_a_fact_is_wherever_it_is_judged(tmp_path, terminator, right):
    question = Question('year', 'Hastings: ', '1066', terminator=terminator)
    table = pd.DataFrame([dict(task='year', prompt='Hastings: ', answer='1066', group='seen', samples=10, correct=4,
                               prob=0.5, said='1066 AD')])
    assert list(add_verdicts(table, terminator).right) == [is_correct(question, '1066 AD')] == [right]
    append_answers(0, table, tmp_path)
    (tmp_path / 'meta.pkl').write_bytes(meta_bytes(sorted(set(question.line)), [question]))
    assert list(read_answers(tmp_path).right) == [right]


def test_equal_evaluations_are_equal_bytes(tmp_path):
    for folder in ('a', 'b'):
        (tmp_path / folder).mkdir()
        append_answers(0, graded(0), tmp_path / folder)
    assert (tmp_path / 'a' / FILE).read_bytes() == (tmp_path / 'b' / FILE).read_bytes()


@given(evaluations=st.integers(0, 4), keep=st.integers(-1, 5), cut=st.floats(0, 1))
@settings(max_examples=60)
def test_what_is_asked_again_is_dropped_and_so_is_what_was_half_written(tmp_path_factory, evaluations, keep, cut):
    folder = tmp_path_factory.mktemp('answers')
    whole = []
    for i in range(evaluations):
        append_answers(250 * i, graded(i), folder)
        whole.append((folder / FILE).read_bytes() if (folder / FILE).exists() else b'')
    half = gzip.compress(graded(9).to_csv().encode(), mtime=0)
    if evaluations:
        with open(folder / FILE, 'ab') as f:
            f.write(half[:int(cut * (len(half) - 1))])
    keep_answers_before(250 * keep, folder)
    kept = max(0, min(keep, evaluations))
    if evaluations:
        content = (folder / FILE).read_bytes()
        assert content == (whole[kept - 1] if kept else b'')
        # and the run goes on as one that has never stopped
        append_answers(250 * kept, graded(kept), folder)
        assert list(read_answers(folder).iter.unique()) == [250 * i for i in range(kept + 1)]
    else:
        assert not (folder / FILE).exists()


def test_of_a_file_that_was_written_anew_as_one_piece_no_row_is_kept_twice(tmp_path):
    for i in range(3):
        append_answers(250 * i, graded(i), tmp_path)
    (tmp_path / FILE).write_bytes(gzip.compress(gzip.decompress((tmp_path / FILE).read_bytes())))
    keep_answers_before(500, tmp_path)
    append_answers(500, graded(2), tmp_path)
    assert read_answers(tmp_path).groupby('iter').size().to_dict() == {i: len(SAID) for i in (0, 250, 500)}


def test_a_folder_without_readable_answers_is_refused_with_one_sentence(tmp_path):
    with pytest.raises(UserError, match=f'^no {FILE} in [^\n]*$'):
        read_answers(tmp_path)
    append_answers(0, graded(0), tmp_path)
    whole = (tmp_path / FILE).read_bytes()
    for content in (whole[:-1], whole[:len(whole) // 2], whole[:5], b'', b'garbage', whole + b'garbage',
                    gzip.compress(b''), gzip.compress(','.join(COLUMNS).encode()), gzip.compress(b'iter,prompt\n0,a')):
        (tmp_path / FILE).write_bytes(content)
        try:
            read_answers(tmp_path)
        except UserError as e:
            assert 'cannot be read' in str(e) and '\n' not in str(e)
        else:
            assert content == whole + b'garbage', content
    with pytest.raises(UserError, match='^cannot write [^\n]*: No such file or directory$'):
        append_answers(0, graded(0), tmp_path / 'nowhere')
    assert zlib.decompress(whole, wbits=31).decode().startswith(','.join(COLUMNS))


def test_answers_that_are_damaged_are_kept_aside_with_a_word(tmp_path, capsys):
    path = tmp_path / 'answers.csv.gz'
    for iter_num in (0, 2):
        append_answers(iter_num, graded(iter_num), tmp_path)
    content = bytearray(path.read_bytes())
    content[len(content) // 4] ^= 255
    path.write_bytes(content)
    keep_answers_before(4, tmp_path)
    assert (tmp_path / 'answers.csv.gz.damaged').read_bytes() == bytes(content)
    assert 'is damaged' in capsys.readouterr().out


@pytest.mark.parametrize('earlier', [0, 1])
def test_a_full_disk_leaves_the_answers_as_they_were(tmp_path, earlier):
    """Files may not grow beyond a limit, so half of the last evaluation is written before the disk is full."""
    for iter_num in range(earlier):
        append_answers(iter_num, graded(iter_num), tmp_path)
    before = (tmp_path / FILE).read_bytes() if earlier else b''
    process = os.fork()
    if not process:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 20,) * 2)
        try:
            append_answers(earlier, graded(earlier), tmp_path)
        except UserError as e:
            os._exit(7 if 'cannot write' in str(e) else 1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 7
    assert (tmp_path / FILE).read_bytes() == before
    append_answers(earlier, graded(earlier), tmp_path)
    assert list(read_answers(tmp_path).iter.unique()) == list(range(earlier + 1))
