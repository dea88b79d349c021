"""The documented commands, called as a user calls them: prepare, train, evaluate, plot."""

import pickle
import re
import shutil
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
from conftest import TIMING, TINY

from common.progress import status

CLASSIC = ['iter', 'add_correct', 'add_total', 'sub_correct', 'sub_total', 'math_acc', 'facts_correct', 'facts_total',
           'facts_acc', 'train_loss', 'val_loss']
OURS = ['seen_acc', 'heldout_correct', 'heldout_total', 'heldout_acc', 'seen_prob', 'heldout_prob']
MATH = 'config/train_math_mini_14.py'


def results(project, folder, name='results.csv'):
    return pd.read_csv(project.folder / folder / name)


@pytest.mark.parametrize('size', ['14', '28', '56', '58', 'mlt'])
@pytest.mark.parametrize('kind', ['math', 'facts', 'both'])
def test_every_config_starts_evaluates_and_stops(project, kind, size):
    name = f'{kind}_mini_{size}'
    fewer = ['--batch_size=32', '--eval_iters=1', '--num_samples=1', '--n_layer=1'] if size == 'mlt' else []
    project.check('train_with_eval.py', f'config/train_{name}.py', '--max_iters=1', '--compile=False', *fewer)
    table = results(project, name)
    assert list(table.columns)[:17] == CLASSIC + OURS and list(table.iter) == [0, 1]
    assert (table.add_total.max() > 0) == (kind != 'facts') and (table.facts_total.max() > 0) == (kind != 'math')
    checkpoint = torch.load(project.folder / name / 'ckpt.pt', weights_only=True)
    assert set(checkpoint) >= {'model', 'optimizer', 'model_args', 'iter_num', 'best_val_loss', 'config'}
    assert set(checkpoint['model_args']) == set('n_layer n_head n_embd block_size bias vocab_size dropout '
                                                'mlp_expansion'.split())
    assert checkpoint['config']['out_dir'] == name
    n_params = sum(p.numel() for key, p in checkpoint['model'].items() if key != 'lm_head.weight')  # tied
    assert set(table.n_params) == {n_params} == {checkpoint['n_params']}


def test_the_papers_settings_are_the_defaults(prepared):
    checkpoint = torch.load(prepared.folder / 'math_mini_14/ckpt.pt', weights_only=True)
    paper = dict(n_layer=1, n_head=1, n_embd=14, mlp_expansion=1, bias=False, dropout=0.0, beta1=0.9, beta2=0.99,
                 learning_rate=0.01, warmup_iters=2000, min_lr=1e-4, lr_decay_iters=25000, weight_decay=0.0,
                 grad_clip=1.0,
                 block_size=9, seed=1337, temperature=0.01, top_k=10)
    assert {key: checkpoint['config'][key] for key in paper} == paper


def test_one_seed_gives_one_results_csv_and_another_another(project):
    for folder, seed in (('a', 1), ('b', 1), ('c', 2)):
        project.check('train_with_eval.py', MATH, *TINY, f'--out_dir={folder}', f'--seed={seed}')
    a, b, c = (results(project, folder) for folder in 'abc')
    pd.testing.assert_frame_equal(a.drop(columns=TIMING), b.drop(columns=TIMING), check_exact=True)
    assert (a.train_loss != c.train_loss).all()


def test_checkpoints_are_the_best_so_far_or_the_latest(project):
    """ckpt.pt has the best validation loss, or is the latest; ckpt_best_* are of the iteration with the best score."""
    mild = ['config/train_both_mini_14.py', *TINY, '--eval_interval=1', '--full_eval_interval=1', '--warmup_iters=0',
            '--batch_size=64']
    for options in ([], ['--always_save_checkpoint=True']):
        project.check('train_with_eval.py', *mild, *options, '--out_dir=best')
        # it goes on with a learning rate that is far too large, so that the final loss is worse
        project.check('train_with_eval.py', '--init_from=resume', '--out_dir=best', '--learning_rate=9',
                      '--max_iters=8')
        table = results(project, 'best')
        ckpt = torch.load(project.folder / 'best/ckpt.pt', weights_only=True)
        assert 0 < table.val_loss.idxmin() < 8 and ckpt['best_val_loss'] == table.val_loss.min()
        assert ckpt['iter_num'] == (8 if options else table.val_loss.idxmin())
    for task in ('math', 'facts'):
        best, path = table[f'{task}_acc'].max(), project.folder / f'best/ckpt_best_{task}.pt'
        assert path.exists() == (best > 0)
        if best > 0:
            found = torch.load(path, weights_only=True)
            ties = table[table[f'{task}_acc'] == best]
            assert found['iter_num'] == ties[f'{task}_prob'].idxmax() and found['best_acc'][task] == best
    assert (table.math_acc > 0).any()


def test_losses_between_the_full_evaluations_reach_ckpt_pt_and_no_row(project):
    project.check('train_with_eval.py', MATH, *TINY, '--eval_interval=1', '--full_eval_interval=4', '--out_dir=between',
                  '--max_iters=7', '--warmup_iters=1')
    assert list(results(project, 'between').iter) == [0, 4, 7]
    project.check('train_with_eval.py', MATH, *TINY, '--eval_interval=1', '--full_eval_interval=4', '--out_dir=between',
                  '--max_iters=6', '--warmup_iters=1', '--full_eval=False')
    table = results(project, 'between')
    assert list(table.iter) == list(range(7)) and not table.add_total.any()
    assert list(table.columns)[:17] == CLASSIC + OURS
    assert not (project.folder / 'between/answers.csv.gz').exists()
    best = torch.load(project.folder / 'between/ckpt.pt', weights_only=True)
    assert best['iter_num'] == table.iter[table.val_loss.idxmin()]


def test_an_earlier_run_is_moved_aside_not_overwritten(project):
    before = (project.folder / 'math_mini_14/results.csv').read_bytes()
    for n in (1, 2):
        out = project.check('train_with_eval.py', MATH, *TINY, f'--seed={n}')
        assert f'math_mini_14.{n}' in out and '--init_from=resume' in out
    assert (project.folder / 'math_mini_14.1/results.csv').read_bytes() == before
    assert (project.folder / 'math_mini_14.2/ckpt.pt').exists()


def test_progress_without_a_terminal_is_plain_lines_and_begins_before_the_wait(project):
    out = project.check('train_with_eval.py', MATH, *TINY)
    lines = re.findall(r'^iter .*(?:\n    .*)*', out, re.MULTILINE)
    assert all(len(line) <= 80 for line in '\n'.join(lines).splitlines())
    assert len(lines) == 3 and all('loss' in line and 'held-out' in line for line in lines) and '\r' not in out
    assert 'python plot_results.py --model_folder math_mini_14' in out
    assert 'python eval_as_math.py --out_dir=math_mini_14' in out
    assert 'math_mini_14: starting' in ''.join(out.splitlines()[:2])


@pytest.mark.parametrize('math, heldout, facts, shown', [
    (2000, 40, 0, 'held-out 50.0%, training 90.0%'), (0, 0, 500, 'training 90.0%'),
    (2000, 40, 500, 'held-out 50.0%, training 90.0%, facts 30.0%'), (0, 0, 0, '')])
def test_progress_says_the_accuracies_that_the_plots_show(math, heldout, facts, shown):
    row = dict(iter=4, math_total=math, math_acc=0.7, facts_total=facts, facts_acc=0.3, heldout_total=heldout,
               heldout_acc=0.5, seen_acc=0.9, val_loss=0.7)
    assert status(row, with_loss=False) == shown


def test_eval_only_prints_and_writes_nothing(project):
    before = {path: path.read_bytes() for path in (project.folder / 'math_mini_14').iterdir()}
    out = project.check('train_with_eval.py', '--out_dir=math_mini_14', '--init_from=resume', '--eval_only=True')
    printed = dict(line.split() for line in out.splitlines() if len(line.split()) == 2)
    last = results(project, 'math_mini_14').iloc[-1]
    for column in CLASSIC + OURS:
        assert float(printed[column]) == pytest.approx(last[column]), column
    assert {path: path.read_bytes() for path in (project.folder / 'math_mini_14').iterdir()} == before
    project.check('train_with_eval.py', MATH, *TINY, '--eval_only=True', '--out_dir=new')
    assert not (project.folder / 'new').exists()


def test_a_model_folder_is_evaluated_on_its_own_questions_whatever_becomes_of_the_data(project):
    out = project.check('eval_as_math.py', '--out_dir=math_mini_14')
    project.check('data/as_math/prepare.py', '--held_out', '1,2', '--max_operand=12')
    assert project.check('eval_as_math.py', '--out_dir=math_mini_14') == out
    for path in (project.folder / 'data/as_math').glob('*.[bp][ik]*'):
        path.unlink()
    assert project.check('eval_as_math.py', '--out_dir=math_mini_14') == out


def test_a_nanogpt_folder_evaluates_resumes_and_evaluates_again(project):
    """Checkpoint and meta.pkl as nanoGPT writes them: no mlp_expansion, no questions, a compiled model's names."""
    meta = pickle.loads((project.folder / 'data/as_math/meta.pkl').read_bytes())
    del meta['cases'], meta['terminators']
    (project.folder / 'data/as_math/meta.pkl').write_bytes(pickle.dumps(meta))
    project.check('train_with_eval.py', MATH, *TINY, '--mlp_expansion=4', '--out_dir=other')
    checkpoint = torch.load(project.folder / 'other/ckpt.pt', weights_only=True)
    del checkpoint['model_args']['mlp_expansion'], checkpoint['config']['mlp_expansion']
    for key in ('rows', 'best_acc', 'data_sha256', 'seconds', 'n_params', 'wandb_id', 'sizes'):
        del checkpoint[key]
    checkpoint['best_val_loss'] = torch.tensor(checkpoint['best_val_loss'])  # nanoGPT's is a tensor
    checkpoint['model'] = {'_orig_mod.' + key: value for key, value in checkpoint['model'].items()}
    shutil.rmtree(project.folder / 'other')
    (project.folder / 'other').mkdir()
    torch.save(checkpoint, project.folder / 'other/ckpt.pt')
    assert '100 questions right' in project.check('eval_as_math.py', '--out_dir=other')
    resume = ['train_with_eval.py', '--init_from=resume', '--out_dir=other', '--max_iters=8']
    project.fails(*resume, '--mlp_expansion=1', says='mlp_expansion=4')
    project.check(*resume)
    assert list(results(project, 'other').iter)[-1] == 8
    assert '100 questions right' in project.check('eval_as_math.py', '--out_dir=other', '--checkpoint=ckpt_last.pt')


def test_a_second_run_in_the_same_folder_is_refused_while_the_first_goes_on(project):
    options = [*TINY[:1], '--num_threads=1', '--num_samples=2', '--out_dir=busy']
    first = project.popen('train_with_eval.py', MATH, *options, '--max_iters=100000')
    try:
        while not (project.folder / 'busy/temp.csv').exists():
            assert first.poll() is None, first.communicate()
            time.sleep(0.05)
        project.fails('train_with_eval.py', MATH, *options, says='another run is training in')
    finally:
        first.kill()
        first.communicate()
    assert not (project.folder / 'busy.1').exists()
    out = project.check('train_with_eval.py', MATH, *TINY, '--out_dir=busy')
    assert 'to busy.1' in out


# -----------------------------------------------------------------------------
# plots


def png_size(path):
    content = Path(path).read_bytes()
    assert content.startswith(b'\x89PNG')
    return int.from_bytes(content[16:20], 'big'), int.from_bytes(content[20:24], 'big')


def test_plots_of_one_and_of_several_folders(project):
    assert 'wrote' in project.check('plot_results.py', '--model_folder', 'math_mini_14')
    width, height = png_size(project.folder / 'math_mini_14/plot.png')
    assert width > height > 500
    project.check('plot_results.py', '--model_folder', 'math_mini_14', 'facts_mini_14', 'both_mini_14',
                  '--operation=math',
                  '--output=grid.png')
    assert png_size(project.folder / 'grid.png')[0] > width
    project.check('plot_results.py', '--model_folder', 'math_mini_14', '--output=plot.svg')
    svg = (project.folder / 'plot.svg').read_text()
    assert svg.rstrip().endswith('</svg>')


def test_plots_the_eleven_classic_columns_and_a_run_that_goes_on(project):
    classic = project.folder / 'classic'
    classic.mkdir()
    results(project, 'both_mini_14')[CLASSIC].to_csv(classic / 'results.csv', index=False)
    project.check('plot_results.py', '--model_folder', 'classic')
    (classic / 'results.csv').rename(classic / 'temp.csv')
    project.check('plot_results.py', '--model_folder', 'classic/')
    png_size(classic / 'plot.png')
