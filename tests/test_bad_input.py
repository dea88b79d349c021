"""Whatever is wrong with a script's input: one clear sentence, exit code 1 or 2, no traceback, nothing overwritten."""

import os
import pickle
import shutil

import numpy as np
import pytest
from conftest import TINY

from common.dataset import load_dataset
from common.errors import UserError
from common.results import CLASSIC_COLUMNS

MATH = 'config/train_math_mini_14.py'
TRAIN = ('train_with_eval.py', MATH, *TINY)


@pytest.fixture(autouse=True)
def nothing_is_overwritten(project):
    """The run that is there before a test is there after it, to the byte."""
    kept = {path: path.read_bytes() for name in ('both', 'math', 'facts')
            for path in (project.folder / f'{name}_mini_14').iterdir()
            if path.name in ('results.csv', 'ckpt_last.pt', 'answers.csv.gz')}
    assert len(kept) == 9
    yield
    assert all(path.read_bytes() == content for path, content in kept.items())
    assert not list(project.folder.rglob('*.tmp')) and not list(project.folder.glob('*_mini_14.1'))


def test_no_data_prepared(project):
    for name in ('train.bin', 'val.bin', 'meta.pkl'):
        (project.folder / 'data/as_math' / name).unlink()
    project.fails(*TRAIN, '--out_dir=new', says='run python data/as_math/prepare.py first')
    project.fails(*TRAIN, '--out_dir=new', '--dataset=nonsense', says='as_math, both_math_and_facts, facts_char')
    project.fails(*TRAIN, '--out_dir=new', '--dataset=', says='no dataset data/')
    (project.folder / 'math_mini_14/meta.pkl').unlink()
    project.fails('eval_as_math.py', '--out_dir=math_mini_14', says='run python data/as_math/prepare.py first')
    assert not (project.folder / 'new').exists()


def test_no_checkpoint(project):
    project.fails('eval_as_math.py', '--out_dir=nowhere', says='nowhere not found')
    project.fails('eval_capitals.py', '--out_dir=facts_mini_14', '--checkpoint=x.pt', says='no x.pt')
    (project.folder / 'empty').mkdir()
    project.fails('eval_as_math.py', '--out_dir=empty', says='ckpt.pt')
    project.fails('plot_results.py', '--model_folder', 'empty', says='no results.csv')
    project.fails(*TRAIN, '--out_dir=empty', '--init_from=resume', says='ckpt_last.pt or ckpt.pt')
    for script in ('eval_as_math.py', 'eval_capitals.py'):
        project.fails(script, says='name the model folder with --out_dir')
        project.fails(script, '--out_dir=math_mini_14', '--init_from=gpt2', says='name the model folder with --out_dir')


@pytest.mark.parametrize('part', [0, 1, 100, 0.5, 0.99])
def test_a_truncated_checkpoint(project, part):
    path = project.folder / 'math_mini_14/ckpt.pt'
    content = path.read_bytes()
    path.write_bytes(content[:part if isinstance(part, int) else int(part * len(content))])
    project.fails('eval_as_math.py', '--out_dir=math_mini_14', '--checkpoint=ckpt.pt',
                  says='it is damaged or')


@pytest.mark.parametrize('name, content, says', [
    ('train.bin', lambda c: c[:-1], 'incomplete'), ('train.bin', lambda c: b'', 'is empty'),
    ('train.bin', lambda c: c[:1000], 'does not contain'),
    ('val.bin', lambda c: b'\xff' * 100, 'outside the vocabulary'),
    ('meta.pkl', lambda c: c[:100], 'cannot be read'), ('meta.pkl', lambda c: b'garbage', 'cannot be read'),
    ('meta.pkl', lambda c: b'', 'cannot be read'),
    ('meta.pkl', lambda c: b"cos\nsystem\n(S'touch owned'\ntR.", 'os.system'),
])
def test_damaged_data(project, name, content, says):
    path = project.folder / 'data/as_math' / name
    path.write_bytes(content(path.read_bytes()))
    project.fails(*TRAIN, says=says)
    assert not (project.folder / 'owned').exists()


@pytest.mark.parametrize('dtype', ['<u2', '<i4', '<i8'])
def test_ids_of_another_width_are_named_although_they_are_in_the_vocabulary(tmp_path, monkeypatch, dtype):
    """Read as uint16, each is followed by zeros, which are newlines; nothing else tells, if there are no questions."""
    monkeypatch.setattr('common.dataset.DATA', tmp_path)
    text = 'some text\nof two lines'
    chars = sorted(set(text))
    stoi = {ch: i for i, ch in enumerate(chars)}
    meta = dict(vocab_size=len(chars), stoi=stoi, itos=dict(enumerate(chars)))
    (tmp_path / 'meta.pkl').write_bytes(pickle.dumps(meta))
    for name in ('train.bin', 'val.bin'):
        np.array([stoi[ch] for ch in text], dtype=dtype).tofile(tmp_path / name)
    if dtype == '<u2':
        assert len(load_dataset('.')[1]) == len(text)
        return
    with pytest.raises(UserError, match='train.bin has ids of 32 or 64 bits: write it with dtype np.uint16'):
        load_dataset('.')


def test_data_that_holds_the_held_out_lines(project):
    project.check('data/as_math/prepare.py', '--held_out', '1,2', '--name=other')
    shutil.copy(project.folder / 'data/as_math/meta.pkl', project.folder / 'data/other')
    project.fails(*TRAIN, '--out_dir=new', '--dataset=other', says="'<1+2=3>'")


@pytest.mark.parametrize('option, says', [
    ('--block_size=1764', 'block_size 1764 is too large'), ('--n_head=4', 'multiple of n_head'),
    ('--n_embd=1e12', 'model'),
    ('--device=meta', 'meta'), ('--device=abacus', 'abacus'),
    ('--device=cuda:99', 'cuda:99'),
    ('--init_from=nothing', 'nothing'),
    ('--init_from=', 'init_from must be'), ('--learning_rate=0', 'learning_rate must be above 0'),
])
def test_impossible_settings(project, option, says):
    project.fails(*TRAIN, option, says=says)


@pytest.mark.parametrize('out_dir, says', [
    ('file', 'cannot use file'), ('file/below', 'cannot use file/below'), ('/proc/nowhere', '/proc/nowhere'),
    ('', 'out_dir'),
    ('.', 'contains this program'), ('..', 'contains this program'), ('data', 'which no run wrote'),
    ('config', 'which no run wrote'),
    ('common', 'which no run wrote'), ('data/as_math', 'which no run wrote'),
])
def test_an_out_dir_that_cannot_be(project, out_dir, says):
    (project.folder / 'file').write_text('precious')
    before = {path for path in project.folder.rglob('*') if '__pycache__' not in str(path)
              and not path.name.startswith('.')}
    project.fails(*TRAIN, f'--out_dir={out_dir}', says=says)
    assert (project.folder / 'file').read_text() == 'precious'
    assert {path for path in project.folder.rglob('*') if '__pycache__' not in str(path)
            and not path.name.startswith('.')} == before


@pytest.mark.skipif(os.geteuid() == 0, reason='root may write everywhere')
def test_an_out_dir_that_is_read_only(project):
    (project.folder / 'locked').mkdir(mode=0o500)
    project.fails(*TRAIN, '--out_dir=locked/new', says='Permission denied')


HEAD = ','.join(CLASSIC_COLUMNS) + '\n'
OUR_HEAD = HEAD[:-1] + ',seen_acc,heldout_acc\n'


@pytest.mark.parametrize('content, says', [
    ('', 'No columns'), ('iter,loss\n1,2\n', 'no column add_correct'), (HEAD, 'no rows'), ('a\x00b', 'results.csv'),
    (HEAD + '1,2,3\n', 'numbers are missing in it'), (HEAD + 2 * ('0,' * 10 + '0\n'), 'iterations do not grow'),
    (OUR_HEAD + '0,' * 12 + '0\n' + '0,' * 11 + '0.5', 'numbers are missing in it'),
    (OUR_HEAD + '0,' * 10 + '0.5', 'numbers are missing in it'), (HEAD + ','.join('x' * 11) + '\n', 'cannot be read')])
def test_a_results_csv_without_results(project, content, says):
    (project.folder / 'strange').mkdir()
    (project.folder / 'strange/results.csv').write_text(content)
    project.fails('plot_results.py', '--model_folder', 'strange', says=says)


def test_evaluation_options_that_make_no_sense(project):
    for option, says in (('--num_samples=0', 'num_samples must be at least 1'),
                         ('--temperature=-1', 'temperature must be at least 0'),
                         ('--top_k=x', 'top_k must be a whole number'), ('--device=abacus', 'abacus'),
                         ('--operation=division', 'operation must be addition'),
                         ('--json=/proc/x/y.json', 'cannot write')):
        project.fails('eval_as_math.py', '--out_dir=math_mini_14', option, says=says)
    for kind in ('--answers', '--film'):
        project.fails('plot_results.py', kind, '--model_folder', 'math_mini_14', '--operation=facts',
                      says='--operation is for')
    project.fails('plot_results.py', '--model_folder', 'math_mini_14', '--output=x.docx', says='cannot write a .docx')
    project.fails('plot_results.py', '--model_folder', 'math_mini_14', '--output=/proc/x/y.png', says='cannot write')
