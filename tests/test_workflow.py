"""The documented commands, called as a user calls them: train, resume, evaluate, plot."""

import json
import pickle
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
from conftest import TINY

CLASSIC = ['iter', 'add_correct', 'add_total', 'sub_correct', 'sub_total', 'math_acc', 'facts_correct', 'facts_total',
           'facts_acc', 'train_loss', 'val_loss']
OURS = ['seen_acc', 'heldout_correct', 'heldout_total', 'heldout_acc', 'seen_prob', 'heldout_prob']
TIMING = ['train_s', 'eval_s']
MATH, FACTS = 'config/train_math_mini_14.py', 'config/train_facts_mini_14.py'


def results(project, folder, name='results.csv'):
    return pd.read_csv(project.folder / folder / name)


def same_but_for_time(a, b):
    pd.testing.assert_frame_equal(a.drop(columns=TIMING), b.drop(columns=TIMING), check_exact=True)


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
    assert set(checkpoint['model_args']) == {'n_layer', 'n_head', 'n_embd', 'block_size', 'bias', 'vocab_size', 'dropout',
                                             'mlp_expansion'}
    assert checkpoint['config']['out_dir'] == name


def test_the_papers_settings_are_the_defaults(prepared):
    checkpoint = torch.load(prepared.folder / 'math_mini_14/ckpt.pt', weights_only=True)
    paper = dict(n_layer=1, n_head=1, n_embd=14, mlp_expansion=1, bias=False, dropout=0.0, beta1=0.9, beta2=0.99,
                 learning_rate=0.01, warmup_iters=2000, min_lr=1e-4, lr_decay_iters=25000, weight_decay=0.0, grad_clip=1.0,
                 block_size=9, seed=1337)
    assert {key: checkpoint['config'][key] for key in paper} == paper


def test_one_seed_gives_one_results_csv_and_another_another(project):
    for folder, seed in (('a', 1), ('b', 1), ('c', 2)):
        project.check('train_with_eval.py', MATH, *TINY, f'--out_dir={folder}', f'--seed={seed}')
    a, b, c = (results(project, folder) for folder in 'abc')
    same_but_for_time(a, b)
    assert (a.train_loss != c.train_loss).all()


def test_a_resumed_run_equals_one_that_was_never_stopped(project):
    options = [*TINY, '--dropout=0.2', '--gradient_accumulation_steps=2', '--n_embd=56', '--batch_size=500']
    project.check('train_with_eval.py', MATH, *options, '--out_dir=whole', '--max_iters=6')
    project.check('train_with_eval.py', MATH, *options, '--out_dir=parts', '--max_iters=3')
    assert list(results(project, 'parts').iter) == [0, 2, 3]
    out = project.check('train_with_eval.py', MATH, *options, '--out_dir=parts', '--max_iters=6', '--init_from=resume')
    assert 'max_iters=6 (was 3)' in out
    same_but_for_time(results(project, 'whole'), results(project, 'parts'))
    whole, parts = (torch.load(project.folder / f / 'ckpt_last.pt', weights_only=True) for f in ('whole', 'parts'))
    assert all(torch.equal(whole['model'][k], parts['model'][k]) for k in whole['model'])


def test_resuming_refuses_what_changes_the_model(project):
    project.fails('train_with_eval.py', MATH, *TINY, '--init_from=resume', '--n_embd=28', says='n_embd=14')
    project.fails('train_with_eval.py', FACTS, *TINY, '--out_dir=math_mini_14', '--init_from=resume', says='as_math')
    project.fails('train_with_eval.py', MATH, *TINY, '--out_dir=none', '--init_from=resume', says='none not found')


def test_an_earlier_run_is_moved_aside_not_overwritten(project):
    before = (project.folder / 'math_mini_14/results.csv').read_bytes()
    for n in (1, 2):
        out = project.check('train_with_eval.py', MATH, *TINY, f'--seed={n}')
        assert f'math_mini_14.{n}' in out and '--init_from=resume' in out
    assert (project.folder / 'math_mini_14.1/results.csv').read_bytes() == before
    assert (project.folder / 'math_mini_14.2/ckpt.pt').exists()


@pytest.mark.parametrize('signum, code', [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_saves_and_says_how_to_go_on(project, signum, code):
    options = [*TINY[:1], '--out_dir=stopped', '--max_iters=1000000', '--eval_interval=1000000',
               '--full_eval_interval=1000000', '--batch_size=16', '--num_threads=1', '--num_samples=2']
    process = subprocess.Popen([sys.executable, 'train_with_eval.py', MATH, *options], cwd=project.folder, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    while not (project.folder / 'stopped/temp.csv').exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    time.sleep(0.5)
    process.send_signal(signum)
    out, err = process.communicate(timeout=60)
    assert process.returncode == code and 'Traceback' not in err and '--init_from=resume' in out
    assert not (project.folder / 'stopped/temp.csv').exists()
    table = results(project, 'stopped')
    last = torch.load(project.folder / 'stopped/ckpt_last.pt', weights_only=True)
    assert last['iter_num'] > table.iter.iloc[-1] == 0 and len(last['rows']) == len(table) == 1


def test_progress_without_a_terminal_is_plain_lines(prepared, project):
    out = project.check('train_with_eval.py', MATH, *TINY)
    lines = [line for line in out.splitlines() if line.startswith('iter ')]
    assert len(lines) == 3 and all('loss' in line and 'held out' in line for line in lines) and '\r' not in out
    assert 'python plot_results.py --model_folder math_mini_14' in out


def test_eval_only_prints_and_writes_nothing(project):
    before = {path: path.read_bytes() for path in (project.folder / 'math_mini_14').iterdir()}
    out = project.check('train_with_eval.py', MATH, *TINY, '--init_from=resume', '--eval_only=True')
    assert 'heldout_prob' in out
    assert {path: path.read_bytes() for path in (project.folder / 'math_mini_14').iterdir()} == before
    project.check('train_with_eval.py', MATH, *TINY, '--eval_only=True', '--out_dir=new')
    assert not (project.folder / 'new').exists()


def test_mathematics_report_agrees_with_its_json(project):
    out = project.check('eval_as_math.py', '--out_dir=math_mini_14', '--json', 'report.json', '--num_samples=3')
    assert 'addition: a down, b across' in out and 'subtraction: a down' in out and '[' in out
    report = json.loads((project.folder / 'report.json').read_text())
    assert len(report['questions']) == 200 and {row['group'] for row in report['totals']} == {
        'addition', 'subtraction', 'seen', 'held out'}
    right = sum(q['correct'] == 3 for q in report['questions'])
    assert out.count('the model says') == min(25, 200 - right) and f'... and {200 - right - 25} more' in out
    held_out = next(row for row in report['totals'] if row['group'] == 'held out')
    assert held_out['questions'] == 4 and held_out['total'] == 12
    out = project.check('eval_as_math.py', '--out_dir=math_mini_14', '--operation=subtraction', '--checkpoint=ckpt_last.pt')
    assert 'addition:' not in out and 'ckpt_last.pt' in out
    assert out == project.check('eval_as_math.py', '--out_dir=math_mini_14', '--operation=subtraction',
                                '--checkpoint=ckpt_last.pt'), 'one seed, one report'


def test_capitals_report_has_a_line_for_each(project):
    for folder in ('facts_mini_14', 'both_mini_14'):
        out = project.check('eval_capitals.py', f'--out_dir={folder}', '--json=report.json')
        assert sum('Capital of' in line for line in out.splitlines()) >= 50
        assert 'facts' in out and len(json.loads((project.folder / 'report.json').read_text())['questions']) == 50
    project.fails('eval_capitals.py', '--out_dir=math_mini_14', says='no questions of facts')
    project.fails('eval_as_math.py', '--out_dir=facts_mini_14', says='no sums to ask about')


def test_a_model_folder_is_evaluated_on_its_own_questions_whatever_becomes_of_the_data(project):
    out = project.check('eval_as_math.py', '--out_dir=math_mini_14')
    project.check('data/as_math/prepare.py', '--held_out', '1,2', '--max_operand=12')
    assert project.check('eval_as_math.py', '--out_dir=math_mini_14') == out
    for path in (project.folder / 'data/as_math').glob('*.[bp][ik]*'):
        path.unlink()
    assert project.check('eval_as_math.py', '--out_dir=math_mini_14') == out


def test_resuming_on_other_data_is_refused(project):
    project.check('data/as_math/prepare.py', '--seed=2')
    project.fails('train_with_eval.py', MATH, *TINY, '--init_from=resume', says='another text')


def test_a_nanogpt_folder_evaluates_resumes_and_evaluates_again(project):
    """Checkpoint and meta.pkl as nanoGPT writes them: no mlp_expansion, no questions, a compiled model's names."""
    meta = pickle.loads((project.folder / 'data/as_math/meta.pkl').read_bytes())
    del meta['cases']
    (project.folder / 'data/as_math/meta.pkl').write_bytes(pickle.dumps(meta))
    project.check('train_with_eval.py', MATH, *TINY, '--mlp_expansion=4', '--out_dir=other')
    checkpoint = torch.load(project.folder / 'other/ckpt.pt', weights_only=True)
    del checkpoint['model_args']['mlp_expansion'], checkpoint['config']['mlp_expansion']
    for key in ('rows', 'best_acc', 'scaler', 'data_sha256'):
        del checkpoint[key]
    checkpoint['model'] = {'_orig_mod.' + k: v for k, v in checkpoint['model'].items()}
    shutil.rmtree(project.folder / 'other')
    (project.folder / 'other').mkdir()
    torch.save(checkpoint, project.folder / 'other/ckpt.pt')
    assert '100 questions right' in project.check('eval_as_math.py', '--out_dir=other')
    project.fails('train_with_eval.py', MATH, *TINY, '--init_from=resume', '--out_dir=other', says='mlp_expansion=4')
    project.check('train_with_eval.py', MATH, *TINY, '--init_from=resume', '--out_dir=other', '--max_iters=8', '--mlp_expansion=4')
    assert '100 questions right' in project.check('eval_as_math.py', '--out_dir=other', '--checkpoint=ckpt_last.pt')


def test_a_second_run_in_the_same_folder_is_refused_while_the_first_goes_on(project):
    options = [*TINY[:1], '--max_iters=100000', '--num_threads=1', '--num_samples=2', '--out_dir=busy/']
    first = subprocess.Popen([sys.executable, 'train_with_eval.py', MATH, *options], cwd=project.folder,
                             stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while not (project.folder / 'busy/temp.csv').exists():
            assert first.poll() is None
            time.sleep(0.05)
        project.fails('train_with_eval.py', MATH, *options, says='another run is training in busy')
    finally:
        first.kill()
        first.wait()
    assert not (project.folder / 'busy.1').exists()
    out = project.check('train_with_eval.py', MATH, *TINY, '--out_dir=busy/')
    assert 'to busy.1' in out


def png_size(path):
    content = Path(path).read_bytes()
    assert content.startswith(b'\x89PNG')
    return int.from_bytes(content[16:20], 'big'), int.from_bytes(content[20:24], 'big')


def test_plots_of_one_and_of_several_folders(project):
    assert 'wrote' in project.check('plot_results.py', '--model_folder', 'math_mini_14')
    width, height = png_size(project.folder / 'math_mini_14/plot.png')
    assert width > height > 500
    project.check('plot_results.py', '--model_folder', 'math_mini_14', 'facts_mini_14', 'both_mini_14', '--operation=math',
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
