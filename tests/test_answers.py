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

from common.answers import ANSWERS, add_verdicts, append_answers, read_answers
from common.dataset import meta_bytes
from common.errors import UserError
from common.files import append_file, cut_file, size_of
from common.questions import Question, is_right

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
    assert list(found.columns) == [*COLUMNS, 'terminator', 'right', 'always_right']
    assert list(found.iter.unique()) == [0, 250, 500]
    for iter_num, rows in found.groupby('iter'):
        expected = add_verdicts(graded(iter_num), '>').drop(columns='completions')
        rows = rows.drop(columns=['iter', 'terminator']).reset_index(drop=True)
        pd.testing.assert_frame_equal(rows, expected, check_dtype=False)
    # pandas reads it by itself
    assert len(pd.read_csv(tmp_path / ANSWERS)) == 3 * len(SAID)


@pytest.mark.parametrize('answer, said, correct, right', [
    ('12', '12', 10, True), ('12', '12', 4, True), ('12', '13', 4, False), ('12', ' 12x', 10, True),
    ('-3', '3', 0, False),
    ('Paris', 'paris. ', 10, True), ('Paris', 'Par', 0, False), ('12', '12 eggs', 0, False)])
def test_a_question_is_right_if_its_most_frequent_sample_is_and_always_right_if_all_are(answer, said, correct, right):
    table = pd.DataFrame([dict(task='t', prompt='p', answer=answer, group='seen', samples=10, correct=correct,
                               said=said)])
    row, = add_verdicts(table, '>').itertuples()
    assert (row.right, row.always_right) == (right, correct == 10)


@pytest.mark.parametrize('task, terminator, right', [('year', '>', True), ('year', '\n', False), ('7', '\n', False)])
def test_a_number_that_ends_its_line_is_right_as_a_fact_is_wherever_it_is_judged(tmp_path, task, terminator, right):
    question = Question(task, 'Hastings: ', '1066', terminator=terminator)
    table = pd.DataFrame([dict(task=task, prompt='Hastings: ', answer='1066', group='seen', samples=10, correct=4,
                               prob=0.5, said='1066 AD')])
    assert list(add_verdicts(table, terminator).right) == [is_right('1066', terminator, '1066 AD')] == [right]
    append_answers(0, table, tmp_path)
    (tmp_path / 'meta.pkl').write_bytes(meta_bytes(sorted(set(question.line)), [question]))
    assert list(read_answers(tmp_path).right) == [right]


def test_answers_to_a_task_that_the_dataset_lacks_are_refused(tmp_path):
    append_answers(0, graded(0), tmp_path)
    (tmp_path / 'meta.pkl').write_bytes(meta_bytes('a>', [Question('own', 'a', 'a')]))
    with pytest.raises(UserError, match="has the task 'add', which the dataset of [^\n]* lacks"):
        read_answers(tmp_path)


def test_equal_evaluations_are_equal_bytes(tmp_path):
    for folder in ('a', 'b'):
        (tmp_path / folder).mkdir()
        append_answers(0, graded(0), tmp_path / folder)
    assert (tmp_path / 'a' / ANSWERS).read_bytes() == (tmp_path / 'b' / ANSWERS).read_bytes()


@given(evaluations=st.integers(1, 4), keep=st.integers(0, 4), cut=st.floats(0, 1))
@settings(max_examples=60)
def test_what_is_asked_again_is_dropped_and_so_is_what_was_half_written(tmp_path_factory, evaluations, keep, cut):
    folder, sizes = tmp_path_factory.mktemp('answers'), [0]
    for i in range(evaluations):
        append_answers(250 * i, graded(i), folder)
        sizes.append(size_of(folder / ANSWERS))
    whole, keep = (folder / ANSWERS).read_bytes(), min(keep, evaluations)
    append_file(folder / ANSWERS, whole[:int(cut * len(whole))])
    cut_file(folder / ANSWERS, sizes[keep])
    assert (folder / ANSWERS).read_bytes() == whole[:sizes[keep]]
    # and the run goes on as one that has never stopped
    append_answers(250 * keep, graded(keep), folder)
    assert list(read_answers(folder).iter.unique()) == [250 * i for i in range(keep + 1)]


def test_a_file_that_lost_a_part_of_what_it_had_is_refused_and_one_that_is_gone_begins_anew(tmp_path, capsys):
    (tmp_path / 'short').write_bytes(b'abc')
    with pytest.raises(UserError, match='short has been cut off since'):
        cut_file(tmp_path / 'short', 5)
    cut_file(tmp_path / 'gone', 5)
    assert 'gone is gone, so what it had is lost' in capsys.readouterr().out
    assert (tmp_path / 'short').read_bytes() == b'abc' and not (tmp_path / 'gone').exists()


@pytest.mark.parametrize('said', ['\r', 'Par\ris', ' \r\n', '"', ',\n'])
def test_a_prediction_may_hold_any_character(tmp_path, said):
    append_answers(0, graded(0).assign(said=said), tmp_path)
    assert set(read_answers(tmp_path).said) == {said}


def test_an_evaluation_that_a_run_of_an_earlier_version_repeats_counts_once(tmp_path):
    """Its checkpoints have no sizes."""
    for iter_num in (0, 250, 250):
        append_answers(iter_num, graded(iter_num), tmp_path)
    assert read_answers(tmp_path).groupby('iter').size().to_dict() == {0: len(SAID), 250: len(SAID)}


def test_a_folder_without_readable_answers_is_refused_with_one_sentence(tmp_path):
    with pytest.raises(UserError, match=f'^no {ANSWERS} in [^\n]*$'):
        read_answers(tmp_path)
    append_answers(0, graded(0), tmp_path)
    whole = (tmp_path / ANSWERS).read_bytes()
    for content in (whole[:-1], whole[:len(whole) // 2], whole[:5], b'', b'garbage', whole + b'garbage',
                    gzip.compress(b''), gzip.compress(','.join(COLUMNS).encode()), gzip.compress(b'iter,prompt\n0,a'),
                    gzip.compress(gzip.decompress(whole).replace(b',0.125,', b',,'))):
        (tmp_path / ANSWERS).write_bytes(content)
        try:
            read_answers(tmp_path)
        except UserError as e:
            assert 'cannot be read' in str(e) and '\n' not in str(e)
        else:
            assert content == whole + b'garbage', content
    with pytest.raises(UserError, match='^cannot write [^\n]*: No such file or directory$'):
        append_answers(0, graded(0), tmp_path / 'nowhere')
    assert zlib.decompress(whole, wbits=31).decode().startswith(','.join(COLUMNS))


@pytest.mark.parametrize('earlier', [0, 1])
def test_a_full_disk_leaves_the_answers_as_they_were(tmp_path, earlier):
    """Files may not grow beyond a limit, so half of the last evaluation is written before the disk is full."""
    for iter_num in range(earlier):
        append_answers(iter_num, graded(iter_num), tmp_path)
    before = (tmp_path / ANSWERS).read_bytes() if earlier else b''
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
    assert (tmp_path / ANSWERS).read_bytes() == before
    append_answers(earlier, graded(earlier), tmp_path)
    assert list(read_answers(tmp_path).iter.unique()) == list(range(earlier + 1))
