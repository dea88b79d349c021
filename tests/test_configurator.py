"""Settings: what a user means is taken, what cannot be meant is refused with a hint, and nothing else gets through."""

import math
import os
import re
import subprocess
import sys

import pytest
from conftest import REPO, TINY
from hypothesis import given
from hypothesis import strategies as st

from common.errors import UserError
from configurator import configure, inherit_settings, settings_of

DEFAULTS = {'out_dir': 'out', 'batch_size': 12, 'learning_rate': 6e-4, 'compile': True}


def settings(*argv, ranges={}, before=None, **namespace):  # noqa: B006
    namespace = {**DEFAULTS, '__doc__': 'A script.', '_private': 3, 'function': print, **namespace}
    result, given = configure(namespace, ranges, list(map(str, argv)))
    if before is not None:
        result = inherit_settings(namespace, result, given, before, ranges)
    assert all(namespace[key] == value or math.isnan(value) for key, value in result.items())
    return result


def test_command_line_overrides_config_file_overrides_default(tmp_path):
    config = tmp_path / 'config.py'
    config.write_text("import math\n_half = 32\nbatch_size = 2 * _half\nout_dir = 'a'\n")
    assert settings(config, '--out_dir=b') == {**DEFAULTS, 'batch_size': 64, 'out_dir': 'b'}


def test_config_files_come_first_and_key_value_last_wherever_they_stand(tmp_path):
    first, second = tmp_path / 'first.py', tmp_path / 'second.py'
    first.write_text("batch_size, out_dir, learning_rate = 2, 'first', 0.5\n")
    second.write_text("batch_size, out_dir = 2 * batch_size, 'second'\n")
    expected = {**DEFAULTS, 'batch_size': 4, 'learning_rate': 0.5, 'out_dir': 'mine'}
    for argv in (['--out_dir=mine', first, second],
                 [first, '--out_dir', 'mine', second], [first, second, '--out_dir=mine']):
        assert settings(*argv) == expected
    assert settings('--compile=False', first, '--batch_size=9', second, '--out_dir=mine') == {
        **expected, 'batch_size': 9, 'compile': False}


def test_the_model_folder_has_two_names_and_may_stand_alone(tmp_path):
    for argv in ([f'--out_dir={tmp_path}'], [f'--model_folder={tmp_path}'], ['--model_folder', tmp_path], [tmp_path]):
        assert settings(*argv, '--batch_size=3') == {**DEFAULTS, 'out_dir': str(tmp_path), 'batch_size': 3}
    assert settings(f'{tmp_path}/', f'--out_dir={tmp_path}')['out_dir'] == str(tmp_path), 'which is the same folder'
    (tmp_path / 'config.py').write_text("out_dir = 'a'")
    assert settings(tmp_path, tmp_path / 'config.py')['out_dir'] == str(tmp_path)
    (tmp_path / 'other').mkdir()
    for argv in ([tmp_path, tmp_path / 'other'], ['--out_dir=other', tmp_path], [tmp_path, '--out_dir=other']):
        with pytest.raises(UserError, match='are two model folders'):
            settings(*argv)


def test_the_home_folder_is_found_behind_an_equals_sign(monkeypatch):
    monkeypatch.setenv('HOME', '/home/me')
    namespace = dict(out_dir='out', start='', init_from='scratch')
    configure(namespace, {}, ['--out_dir=~/x', '--start=~/x'])
    assert namespace == dict(out_dir='/home/me/x', start='~/x', init_from='scratch')


@pytest.mark.parametrize('before', [[], ['--fused=True'], ['config.py']])
@pytest.mark.parametrize('text', ['false', 'False', 'FALSE'])
def test_a_choice_of_auto_true_and_false_takes_any_spelling_whatever_stands_before(tmp_path, monkeypatch, before, text):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'config.py').write_text('fused = True\n')
    ranges = {'fused': 'auto True False'}
    assert settings(*before, f'--fused={text}', fused='auto', ranges=ranges)['fused'] == 'False'
    assert settings(*before, fused='auto', ranges=ranges)['fused'] == ('True' if before else 'auto')
    assert settings('--device=true', device='auto')['device'] == 'true', 'which is no choice there'
    (tmp_path / 'config.py').write_text('device = True\n')
    with pytest.raises(UserError, match='device must be a string'):
        settings('config.py', device='auto')


def test_the_runs_own_settings_come_before_those_that_are_given(tmp_path):
    config = tmp_path / 'config.py'
    config.write_text('batch_size = 3\n')
    before = {'batch_size': 2, 'learning_rate': 1, 'out_dir': 'a', 'gone': 7, 'function': 8}
    assert settings(before=before) == {**DEFAULTS, 'batch_size': 2, 'learning_rate': 1.0, 'out_dir': 'a'}
    expected = {**DEFAULTS, 'batch_size': 3, 'learning_rate': 1.0, 'out_dir': 'b'}
    assert settings(config, '--out_dir=b', before=before) == expected
    with pytest.raises(UserError, match="batch_size must be a whole number, not 'x' in the checkpoint"):
        settings(before={'batch_size': 'x'})


@pytest.mark.parametrize('args, key, value', [
    (['--learning_rate=1'], 'learning_rate', 1.0), (['--compile=0'], 'compile', False),
    (['--compile=False'], 'compile', False),
    (['--compile', 'False'], 'compile', False),
    (['--compile=false'], 'compile', False), (['--compile=TRUE'], 'compile', True), (['--compile'], 'compile', True),
    (['--batch_size=1e3'], 'batch_size', 1000), (['--batch_size', '4'], 'batch_size', 4),
    (['--batch_size=-4'], 'batch_size', -4),
    (['--batch_size', '-4'], 'batch_size', -4), (['--out_dir=14'], 'out_dir', '14'),
    (['--out_dir=a=b'], 'out_dir', 'a=b'),
    (['--out_dir=x y'], 'out_dir', 'x y'), (['--out_dir='], 'out_dir', ''), (['--out_dir', 'a'], 'out_dir', 'a'),
    (['--out_dir=a\n'], 'out_dir', 'a\n'), (['--out_dir=None'], 'out_dir', 'None'),
    (['--batch_size=4', '--batch_size=5'], 'batch_size', 5),
])
def test_values_take_the_type_of_the_default(args, key, value):
    result = settings(*args)
    assert result == {**DEFAULTS, key: value} and type(result[key]) is type(value)


@pytest.mark.parametrize('args, says', [
    (['--learning_rat=1'], 'did you mean learning_rate'), (['--xyz=1'], '--help lists'),
    (['--batch_size'], 'write --batch_size=value'), (['--bach_size', '4'], 'did you mean batch_size'),
    (['--batch_size', '--compile'], 'write --batch_size=value'),
    (['batch_size=4'], 'written with dashes, --batch_size=4'),
    (['--batch_size=4.5'], 'a whole number'), (['--batch_size=True'], 'a whole number'),
    (['--compile=2'], 'True or False'),
    (['--learning_rate=fast'], 'a number'), (['--learning_rate=1e999'], 'a number'), (['missing.py'], 'missing.py'),
    (['--_private=1'], '_private'), (['--function=1'], 'function'), (['--learning_rate=None'], 'a number'),
    (['--learning_rate=nan'], 'a number'), (['nowhere'], 'nowhere is neither a config file nor a model folder'),
    (['config/train_maths_mini_14.py'], 'did you mean config/train_math_mini_14.py?'),
    (['--compile=no'], 'True or False'), (['--batch_size=1e20'], 'too large'), (['--batch_size=inf'], 'a whole number'),
])
def test_what_cannot_be_meant_is_refused_with_a_hint(args, says):
    with pytest.raises(UserError, match=re.escape(says)):
        settings(*args)


@pytest.mark.parametrize('argv, says', [
    (['--batch_size=0'], 'batch_size must be at least 1, not 0'),
    (['--batch_size=-3'], 'batch_size must be at least 1, not -3'),
    (['--learning_rate=-1e-9'], 'learning_rate must be at least 0, not -1e-09'),
    (['--share=1'], 'share must be at least 0 and below 1, not 1'),
    (['--share=-0.1'], 'share must be at least 0'),
])
def test_ranges_are_held(argv, says):
    ranges = {'batch_size n': (1, math.inf), 'learning_rate': (0, math.inf), 'share': (0, 1)}
    assert settings('--learning_rate=0', '--share=0', n=1, share=0.5, ranges=ranges)['share'] == 0.0
    with pytest.raises(UserError, match=says):
        settings(*argv, n=1, share=0.5, ranges=ranges)
    with pytest.raises(UserError, match='n must be at least 1, not 0 in the checkpoint'):
        settings(n=1, share=0.5, ranges=ranges, before={'n': 0})
    for seed, choice, says in ((-1, 'here', 'seed must be'), (2**32, 'here', 'seed must be'),
                               (1, 'x', 'choice must be')):
        with pytest.raises(UserError, match=says):
            settings(f'--seed={seed}', f'--choice={choice}', seed=2**32 - 1, choice='there',
                     ranges={'seed': (0, 2**32), 'choice': 'here there'})


# -----------------------------------------------------------------------------
# config files


@pytest.mark.parametrize('source, says', [
    ('learning_rat = 1', "did you mean learning_rate"), ('batch_size = "many"', 'batch_size must be a whole number'),
    ('x = = 1', 'line 1'), ('batch_size = 1\nbatch_size = 1 / 0', 'line 2: ZeroDivisionError'),
    ('def f():\n    return g\nf()', 'line 2: NameError'), ('import nonsense_module', 'line 1: ModuleNotFoundError'),
    ('batch_sizes = [1, 2]', 'did you mean batch_size'), ('width = 14', "unknown setting 'width'"),  # nobody reads it
    ('batch_sise = 4\nlearning_rate = batch_sise / 8', 'did you mean batch_size'),  # a near miss, although it is read
    ('dropout = 0.1', 'may begin with an underscore'),
    ('names = ["a", "b"]', "unknown setting 'names'"), ('compile = None', 'compile must be True or False'),
    ('out_dir = None', 'out_dir must be a string'), ('learning_rate = float("nan")', 'learning_rate must be a number'),
])
def test_a_typo_in_a_config_file_is_an_error(tmp_path, source, says):
    config = tmp_path / 'config.py'
    config.write_text(source)
    with pytest.raises(UserError, match=f'^[^\n]*{re.escape(says)}[^\n]*$'):
        settings(config)


@pytest.mark.parametrize('source, changed', [
    ('width = 14\nbatch_size = 2 * width', dict(batch_size=28)),
    ('for i in range(3):\n    batch_size = i', dict(batch_size=2)),
    ('for _a, (_b, c) in [(1, (2, 3))]:\n    batch_size = c', dict(batch_size=3)),
    ('from math import pi\nlearning_rate = pi', dict(learning_rate=math.pi)),
    ('import os\nfrom math import sqrt', {}),
    ('def double(x):\n    return 2 * x\nbatch_size = double(4)', dict(batch_size=8)),
    ('class Size:\n    small = 14\nbatch_size = Size.small', dict(batch_size=14)), ('_note = "mine"', {}),
    ('sizes = {"small": 14}\nbatch_size = sizes["small"]', dict(batch_size=14)),
    ('lr = 0.5\nlearning_rate = lr', dict(learning_rate=0.5)),
    ('batch_size = batch_size + 1', dict(batch_size=13)),
    ('batch_size = "4"', dict(batch_size=4)), ('"""Only a docstring."""', {}), ('', {}),
    ('\ufeffbatch_size = 4', dict(batch_size=4)),  # Windows' byte-order mark
    ('import numpy as np\nbatch_size = np.int64(4)\nlearning_rate = np.float32(0.5)\ncompile = np.bool_(False)',
     dict(batch_size=4, learning_rate=0.5, compile=False)),
    ('import os\nout_dir = os.path.basename(__file__)', dict(out_dir='config.py')),
])
def test_helpers_loops_and_imports_pass_and_values_keep_their_types(tmp_path, source, changed):
    config = tmp_path / 'config.py'
    config.write_text(source, encoding='utf-8')
    result = settings(config)
    assert result == {**DEFAULTS, **changed}
    assert {key: type(value) for key, value in result.items()} == {key: type(value) for key, value in DEFAULTS.items()}


def test_a_config_file_that_is_no_text_is_refused(tmp_path):
    (tmp_path / 'config.py').write_bytes(b'\xff\xfe\x00')
    with pytest.raises(UserError, match='it is not UTF-8 text'):
        settings(tmp_path / 'config.py')


@given(st.sampled_from([*DEFAULTS, 'other']), st.text(max_size=20))
def test_any_argument_gives_typed_settings_or_one_clear_refusal(key, value):
    try:
        result = settings(f'--{key}={value}')
    except UserError as e:
        assert str(e)
    else:
        assert {k: type(v) for k, v in result.items()} == {k: type(v) for k, v in DEFAULTS.items()}


# -----------------------------------------------------------------------------
# the scripts

SCRIPTS = ['train_with_eval.py', 'eval_as_math.py', 'eval_capitals.py', 'sample.py']


def without_torch(script, *args):
    """Call a script for which torch and pandas, which take seconds to import, are not there."""
    code = "import runpy, sys; sys.modules.update(torch=None, pandas=None, transformers=None); sys.path[0] = '.'; " \
           "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    return subprocess.run([sys.executable, '-c', code, script, *args], cwd=REPO, capture_output=True, text=True)


@pytest.mark.parametrize('script', SCRIPTS)
def test_help_and_a_typo_are_answered_before_torch_is_imported(script):
    process = without_torch(script, '--help')
    assert process.returncode == 0 and '$ python ' + script in process.stdout and not process.stderr
    for args, says in ((['--sed=3'], 'did you mean seed?'), (['--seed=-1'], 'seed must be'),
                       (['--seed'], '--seed=value')):
        process = without_torch(script, *args)
        assert process.returncode == 1 and not process.stdout
        assert process.stderr.startswith('error: ') and process.stderr.count('\n') == 1 and says in process.stderr
    # a call without a fault needs torch, and says something before the user waits for it
    process = without_torch(script, '--out_dir=nowhere')
    assert re.search('(torch|pandas) is not installed', process.stderr)
    assert process.stdout.startswith('nowhere: starting') == (script == 'train_with_eval.py')


@pytest.mark.parametrize('script', SCRIPTS)
def test_help_lists_every_setting_with_default_and_a_comment_that_stands_alone(script):
    out = without_torch(script, '--help').stdout
    listed = re.findall(r'^  --(\w+)=(\S.*?)(?:  +|\n +)(\S.*)$', out, re.MULTILINE)
    source = (REPO / script).read_text().split('configure(globals()')[0]
    own = re.findall(r'^(\w+) = .*?  # (.*)$', source, re.MULTILINE)
    assert [name for name, *_ in listed] == [name for name, _ in own] and len(own) >= 9
    assert all(len(comment) > 5 for *_, comment in listed), 'a setting has no comment'
    assert ('--n_embd=14' in out) == (script == 'train_with_eval.py')
    assert max(map(len, out.split('settings (')[1].splitlines())) <= 80
    for name, _, comment in listed:
        assert comment.split()[0] not in ('of', 'and', 'but', 'for', 'which', 'in', 'or'), f'{name}: {comment}'


def test_settings_of_a_script_are_those_it_would_run_with(tmp_path, monkeypatch):
    monkeypatch.chdir(REPO)
    argv = ['config/train_math_mini_28.py', '--seed=3', "--wandb_run_name=it's a \"run\"  x"]
    found = settings_of('train_with_eval.py', argv)
    expected = dict(n_embd=28, seed=3, compile=True, bias=False, wandb_entity='', learning_rate=0.01,
                    wandb_run_name="it's a \"run\"  x")
    assert {key: found[key] for key in expected} == expected
    with pytest.raises(UserError, match='^unknown setting[^\n]*did you mean seed'):
        settings_of('train_with_eval.py', ['--sed=3'])


@pytest.mark.parametrize('option, says', [
    ('--block_size=0', 'block_size'), ('--n_embd=-14', 'n_embd'), ('--n_layer=0', 'n_layer'),
    ('--batch_size=0', 'batch_size'),
    ('--max_iters=-1', 'max_iters'), ('--learning_rate=-1', 'learning_rate'), ('--seed=-1', 'seed'),
    ('--dropout=1.5', 'dropout'),
    ('--temperature=-1', 'temperature'), ('--beta2=1', 'beta2'), ('--lr_decay_iters=0', 'lr_decay_iters'),
    ('--eval_interval=0', 'eval_interval'), ('--num_samples=0', 'num_samples'), ('--grad_clip=-1', 'grad_clip'),
    ('--init_from=same', 'init_from must be scratch, resume, gpt2 or a folder'), ('--seed=4294967296', 'seed must be'),
    ('--dtype=float16', 'dtype must be auto or float32 or bfloat16'), ('--backend=mpi', 'backend must be'),
    ('--fused=maybe', 'fused must be'),
])
def test_settings_that_cannot_be_are_refused_before_torch_is_imported(option, says):
    process = without_torch('train_with_eval.py', '--out_dir=same', option)
    assert process.returncode == 1 and process.stderr.startswith('error: ') and says in process.stderr, process.stderr
    assert process.stderr.count('\n') == 1 and not os.path.exists(REPO / 'same')


@pytest.mark.parametrize('option, meant', [
    ('--lr=0.1', 'learning_rate'), ('--epochs=3', 'max_iters'), ('--steps=3', 'max_iters'),
    ('--resume', 'init_from=resume'), ('--wd=0.1', 'weight_decay'), ('--d_model=9', 'n_embd')])
def test_what_other_programs_call_a_setting_is_understood_where_it_is_one(option, meant):
    assert f'did you mean {meant}?' in without_torch('train_with_eval.py', option).stderr
    assert '--help lists all settings' in without_torch('eval_as_math.py', option).stderr


@pytest.mark.parametrize('path', sorted(REPO.glob('config/*.py')), ids=lambda path: path.stem)
def test_a_config_file_holds_only_what_is_different_in_its_run(path):
    scope, defaults = {}, settings_of(REPO / 'train_with_eval.py', [])
    exec(path.read_text(), scope)
    repeated = {key for key, value in scope.items() if key in defaults and defaults[key] == value}
    assert repeated <= {'n_embd'} and {'out_dir', 'n_embd'} <= scope.keys() and path.stem == 'train_' + scope['out_dir']


def test_a_schedule_that_ends_before_its_warm_up_is_refused_and_a_resumed_run_is_judged_by_its_own(project):
    train = ['train_with_eval.py', *TINY, '--out_dir=short']
    project.fails(*train, '--lr_decay_iters=100', says='lr_decay_iters (100) must be greater than warmup_iters (2000)')
    project.check(*train, '--lr_decay_iters=100', '--warmup_iters=1')
    resume = ['train_with_eval.py', '--init_from=resume', project.folder / 'short', '--max_iters=6']
    project.check(*resume, '--lr_decay_iters=50')
    project.fails(*resume, '--lr_decay_iters=1', says='lr_decay_iters (1) must be greater than warmup_iters (1)')


def test_resuming_without_a_folder_says_what_is_missing(project):
    project.fails('train_with_eval.py', '--init_from=resume', says='folder out not found: name another with --out_dir')


def test_an_uncaught_user_error_is_one_sentence_and_any_other_error_a_traceback():
    for raised, ends in (("UserError('mend it')", 'error: mend it\n'), ("ValueError('a bug')", 'ValueError: a bug\n'),
                         ("RuntimeError('an illegal memory access')", 'RuntimeError: an illegal memory access\n'),
                         ("RuntimeError('out of memory')",
                          'error: not enough memory (out of memory): choose a smaller batch or model\n'),
                         ('KeyboardInterrupt', '')):
        code = f'from common.errors import UserError, report_errors; report_errors(); raise {raised}'
        process = subprocess.run([sys.executable, '-c', code], cwd=REPO, capture_output=True, text=True)
        assert process.stderr.endswith(ends)
        assert ('Traceback' in process.stderr) == ('a bug' in raised or 'illegal' in raised)
        assert process.returncode == (1 if ends else -2)


def test_a_closed_pipe_ends_a_script_silently_and_no_training():
    code = "from common.errors import say\nfor i in range(100000): say('x' * 100)\n"
    command = f'{sys.executable} -c "{code}" | head -1; echo ${{PIPESTATUS[0]}}'
    process = subprocess.run(['/bin/bash', '-c', command], cwd=REPO, capture_output=True, text=True)
    assert process.stdout == 'x' * 100 + '\n0\n' and process.stderr == ''
