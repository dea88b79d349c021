"""Whatever is wrong with the input: one clear sentence, exit code 1 or 2, no traceback, nothing overwritten."""

import os
import shutil

import pytest
import torch
from conftest import TINY

MATH = 'config/train_math_mini_14.py'
TRAIN = ('train_with_eval.py', MATH, *TINY)


@pytest.fixture(autouse=True)
def nothing_is_overwritten(project):
    """The run that is there before a test is there after it, to the byte."""
    kept = {p: p.read_bytes() for name in ('both', 'math', 'facts') for p in (project.folder / f'{name}_mini_14').iterdir()
            if p.name in ('results.csv', 'ckpt_last.pt')}
    yield
    assert all(path.read_bytes() == content for path, content in kept.items())
    assert not list(project.folder.rglob('*.tmp')) and not list(project.folder.glob('*_mini_14.1'))


def test_no_data_prepared(project):
    for name in ('train.bin', 'val.bin', 'meta.pkl'):
        (project.folder / 'data/as_math' / name).unlink()
    project.fails(*TRAIN, '--out_dir=new', says='run python data/as_math/prepare.py first')
    project.fails(*TRAIN, '--out_dir=new', '--dataset=nonsense', says='as_math, both_math_and_facts, facts_char')
    (project.folder / 'math_mini_14/meta.pkl').unlink()
    project.fails('eval_as_math.py', '--out_dir=math_mini_14', says='run python data/as_math/prepare.py first')
    assert not (project.folder / 'new').exists()


def test_no_checkpoint(project):
    project.fails('eval_as_math.py', '--out_dir=nowhere', says='nowhere not found')
    project.fails('eval_capitals.py', '--out_dir=facts_mini_14', '--checkpoint=x.pt', says='no x.pt')
    (project.folder / 'empty').mkdir()
    project.fails('eval_as_math.py', '--out_dir=empty', says='ckpt.pt')
    project.fails('plot_results.py', '--model_folder', 'empty', says='no results.csv')
    project.fails('plot_results.py', '--model_folder', 'math_mini_14', '--checkpoint=x.pt', says='x.pt not found')
    project.fails(*TRAIN, '--out_dir=empty', '--init_from=resume', says='ckpt_last.pt or ckpt.pt')


@pytest.mark.parametrize('part', [0, 1, 100, 0.5, 0.99])
def test_a_truncated_checkpoint(project, part):
    path = project.folder / 'math_mini_14/ckpt.pt'
    (project.folder / 'math_mini_14/ckpt_best_math.pt').unlink(missing_ok=True)
    content = path.read_bytes()
    path.write_bytes(content[:part if isinstance(part, int) else int(part * len(content))])
    project.fails('eval_as_math.py', '--out_dir=math_mini_14', says='it is damaged or no checkpoint')


@pytest.mark.parametrize('change, says', [
    (lambda c: c.pop('model_args'), "no 'model' and 'model_args'"), (lambda c: c['model'].popitem(), 'no GPT'),
    (lambda c: c['model_args'].update(n_embd=15), 'no GPT'), (lambda c: c['model_args'].update(n_head=0), 'n_head'),
    (lambda c: c['model_args'].update(vocab_size=5), 'no GPT'), (lambda c: c.update(model=3), 'no GPT'),
    (lambda c: c['model_args'].update(n_layer='x'), 'no GPT'),
])
def test_a_checkpoint_that_is_no_gpt(project, change, says):
    path = project.folder / 'math_mini_14/strange.pt'
    checkpoint = torch.load(project.folder / 'math_mini_14/ckpt.pt', weights_only=True)
    change(checkpoint)
    torch.save(checkpoint, path)
    project.fails('eval_as_math.py', '--out_dir=math_mini_14', '--checkpoint=strange.pt', says=says)


@pytest.mark.parametrize('name, content, says', [
    ('train.bin', lambda c: c[:-1], 'truncated'), ('train.bin', lambda c: b'', 'truncated'),
    ('train.bin', lambda c: c[:1000], 'lacks the line'), ('val.bin', lambda c: b'\xff' * 100, 'outside the vocabulary'),
    ('meta.pkl', lambda c: c[:100], 'cannot be read'), ('meta.pkl', lambda c: b'garbage', 'cannot be read'),
    ('meta.pkl', lambda c: b'', 'cannot be read'), ('meta.pkl', lambda c: b"cos\nsystem\n(S'touch owned'\ntR.", 'os.system'),
])
def test_damaged_data(project, name, content, says):
    path = project.folder / 'data/as_math' / name
    path.write_bytes(content(path.read_bytes()))
    project.fails(*TRAIN, says=says)
    assert not (project.folder / 'owned').exists()


def test_data_that_holds_the_held_out_lines(project):
    other = project.folder / 'data/other'
    shutil.copytree(project.folder / 'data/as_math', other)
    project.check('data/other/prepare.py', '--held_out', '1,2')
    shutil.copy(project.folder / 'data/as_math/meta.pkl', other)
    project.fails(*TRAIN, '--out_dir=new', '--dataset=other', says='run python data/other/prepare.py again')


@pytest.mark.parametrize('option, says', [
    ('--block_size=1764', 'block_size 1764 is too large'), ('--block_size=0', 'block_size'), ('--n_head=4', 'multiple of n_head'),
    ('--n_embd=-14', 'n_embd'), ('--n_layer=0', 'n_layer'), ('--batch_size=0', 'batch_size'), ('--max_iters=-1', 'max_iters'),
    ('--learning_rate=-1', 'learning_rate'), ('--seed=99999999999999999999', 'seed'), ('--device=meta', 'meta'),
    ('--dropout=1.5', 'dropout'), ('--device=abacus', 'abacus'),
    ('--device=cuda:99', 'cuda:99'), ('--dtype=int8', 'int8'), ('--init_from=nothing', 'init_from'), ('--seed=-1', 'seed'),
    ('--temperature=0', 'temperature'), ('--lr_decay_iters=100', 'lr_decay_iters'), ('--beta2=1', 'beta'),
])
def test_impossible_settings(project, option, says):
    project.fails(*TRAIN, option, says=says)


def test_an_out_dir_that_cannot_be(project):
    (project.folder / 'file').write_text('precious')
    project.fails(*TRAIN, '--out_dir=file', says='cannot use file')
    project.fails(*TRAIN, '--out_dir=file/below', says='cannot use file/below')
    project.fails(*TRAIN, '--out_dir=/proc/nowhere', says='cannot use /proc/nowhere')
    assert (project.folder / 'file').read_text() == 'precious'


@pytest.mark.skipif(os.geteuid() == 0, reason='root may write everywhere')
def test_an_out_dir_that_is_read_only(project):
    (project.folder / 'locked').mkdir(mode=0o500)
    project.fails(*TRAIN, '--out_dir=locked/new', says='Permission denied')


@pytest.mark.parametrize('content, says', [
    ('', 'it is empty'), ('iter,loss\n1,2\n', 'no column add_correct'),
    ('iter,add_correct,add_total,sub_correct,sub_total,math_acc,facts_correct,facts_total,facts_acc,train_loss,val_loss\n',
     'no rows'), ('a\x00b', 'results.csv'),
    ('iter,add_correct,add_total,sub_correct,sub_total,math_acc,facts_correct,facts_total,facts_acc,train_loss,val_loss\n'
     'x,y,z\n', 'cannot be read')])
def test_a_results_csv_without_results(project, content, says):
    (project.folder / 'strange').mkdir()
    (project.folder / 'strange/results.csv').write_text(content)
    project.fails('plot_results.py', '--model_folder', 'strange', says=says)


def test_evaluation_options_that_make_no_sense(project):
    for option, says in (('--num_samples=0', 'above 0'), ('--temperature=-1', 'above 0'), ('--top_k=x', 'invalid'),
                         ('--device=abacus', 'abacus'), ('--operation=division', 'invalid choice')):
        project.fails('eval_as_math.py', '--out_dir=math_mini_14', option, says=says)
    project.fails('eval_as_math.py', '--out_dir=math_mini_14', '--json=/proc/x/y.json', says='cannot write')
    project.fails('plot_results.py', '--model_folder', 'math_mini_14', '--output=x.docx', says='cannot write a .docx')
    project.fails('plot_results.py', '--model_folder', 'math_mini_14', '--output=/proc/x/y.png', says='cannot write')
