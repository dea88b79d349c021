"""sample.py as a user calls it: what it writes, and what it says if it cannot."""

import pytest
import torch
from conftest import TINY

from common.checkpoint import load_model

GREEDY = ['--out_dir=both_mini_14', '--top_k=1', '--max_new_tokens=60']
LINE = '---------------\n'


def test_samples_are_those_of_the_plain_loop(project):
    model, meta, *_ = load_model(project.folder / 'both_mini_14', ['ckpt.pt'])
    ids = torch.tensor([meta.tokenizer.encode('Capital of ')])
    expected = meta.tokenizer.decode(model.generate(ids, 60, temperature=0)[0].tolist())
    for greedy in ('--top_k=1', '--temperature=0'):
        out = project.check('sample.py', '--out_dir=both_mini_14', greedy, '--max_new_tokens=60', '--start=Capital of ',
                            '--num_samples=3')
        assert out == 3 * (expected + '\n' + LINE)


def test_the_beginning_may_be_a_file_and_is_a_newline_by_default(project):
    (project.folder / 'prompt.txt').write_text('<3+4=')
    out = project.check('sample.py', *GREEDY, '--start=FILE:prompt.txt')
    assert out == project.check('sample.py', *GREEDY, '--start=<3+4=') and out.count(LINE) == out.count('<3+4=') == 10
    assert out == project.check('sample.py', *GREEDY, '--start', '<3+4=')
    assert project.check('sample.py', *GREEDY, '--num_samples=1').startswith('\n')


def test_samples_follow_their_seed_and_checkpoint_and_differ_from_each_other(project):
    wild = ['--out_dir=both_mini_14', '--temperature=1.5', '--max_new_tokens=20', '--num_samples=5']
    out = project.check('sample.py', *wild, '--seed=1')
    assert out == project.check('sample.py', *wild, '--seed=1', '--checkpoint=ckpt.pt')
    assert out != project.check('sample.py', *wild, '--seed=2')
    assert len(set(out.split(LINE)[:5])) == 5
    project.check('train_with_eval.py', 'config/train_both_mini_14.py', *TINY, '--seed=5', '--out_dir=other')
    assert out != project.check('sample.py', *wild, '--seed=1', '--out_dir=other')
    project.fails('sample.py', *wild, '--checkpoint=other.pt', says='no other.pt')


@pytest.mark.parametrize('options, says', [
    (['--start=<3*4= é3'], "does not know '*', 'é'"), (['--start='], '--start is empty'),
    (['--num_samples=0'], 'num_samples'), (['--start=FILE:nowhere.txt'], 'cannot read nowhere.txt: No such file'),
    (['--start=FILE:'], 'cannot read'), (['--start=FILE:data'], 'cannot read data: Is a directory'),
    (['--start=FILE:ckpt.pt'], 'not UTF-8'), (['--start=FILE:empty.txt'], 'empty.txt is empty'),
    (['--start=FILE:tab.txt'], "does not know '\\t'"), (['--max_new_tokens=0'], 'max_new_tokens'),
    (['--temperature=-1'], 'temperature'), (['--top_k=-1'], 'top_k'), (['--seed=-1'], 'seed'),
    (['--device=abacus'], 'abacus'),
    (['--out_dir=nowhere'], 'nowhere not found'), (['--init_from=gpt3'], 'gpt3 is neither a folder nor one of gpt2'),
    (['--num_sample=3'], 'did you mean num_samples')])
def test_what_cannot_be_sampled_is_refused_with_one_sentence(project, options, says):
    (project.folder / 'empty.txt').write_text('')
    (project.folder / 'tab.txt').write_text('\t')
    (project.folder / 'ckpt.pt').write_bytes((project.folder / 'math_mini_14/ckpt.pt').read_bytes())
    project.fails('sample.py', '--out_dir=math_mini_14', *options, says=says)
