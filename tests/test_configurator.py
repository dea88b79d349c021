"""Settings: what a user means is taken, what cannot be meant is refused with a hint, and nothing else gets through."""

import math

import pytest
from hypothesis import given, strategies as st

from configurator import configure

DEFAULTS = {'out_dir': 'out', 'batch_size': 12, 'learning_rate': 6e-4, 'compile': True}


def settings(*argv, **namespace):
    namespace = {**DEFAULTS, '__doc__': 'A script.', '_private': 3, 'function': print, **namespace}
    result = configure(namespace, list(map(str, argv)))
    assert all(namespace[key] == value or math.isnan(value) for key, value in result.items())
    return result


def test_command_line_overrides_config_file_overrides_default(tmp_path):
    config = tmp_path / 'config.py'
    config.write_text("import math\n_half = 32\nbatch_size = 2 * _half\nout_dir = 'a'\n")
    assert settings(config, '--out_dir=b') == {**DEFAULTS, 'batch_size': 64, 'out_dir': 'b'}


@pytest.mark.parametrize('arg, key, value', [
    ('--learning_rate=1', 'learning_rate', 1.0), ('--compile=0', 'compile', False), ('--compile=False', 'compile', False),
    ('--batch_size=1e3', 'batch_size', 1000), ('--out_dir=14', 'out_dir', '14'), ('--out_dir=a=b', 'out_dir', 'a=b'),
    ("--out_dir='x y'", 'out_dir', 'x y'), ('--out_dir=', 'out_dir', ''),
])
def test_values_take_the_type_of_the_default(arg, key, value):
    result = settings(arg)[key]
    assert result == value and type(result) is type(value)


@pytest.mark.parametrize('args, says', [
    (['--learning_rat=1'], 'did you mean learning_rate'), (['--xyz=1'], '--help lists'),
    (['--batch_size', '4'], 'write --batch_size=value'), (['--bach_size', '4'], 'write --batch_size=value'),
    (['--batch_size=4.5'], 'a whole number'), (['--batch_size=True'], 'a whole number'), (['--compile=2'], 'True or False'),
    (['--learning_rate=fast'], 'a number'), (['--learning_rate=1e999'], 'a number'), (['missing.py'], 'missing.py'),
    (['--_private=1'], '_private'), (['--function=1'], 'function'), (['--learning_rate=None'], 'a number'),
])
def test_what_cannot_be_meant_is_refused_with_a_hint(args, says):
    with pytest.raises(SystemExit, match=says):
        settings(*args)


@pytest.mark.parametrize('source, says', [
    ('learning_rat = 1', "did you mean learning_rate"), ('batch_size = "many"', 'batch_size must be a whole number'),
    ('x = = 1', 'line 1'), ('batch_size = 1\nbatch_size = 1 / 0', 'line 2: ZeroDivisionError'),
])
def test_a_typo_in_a_config_file_is_an_error(tmp_path, source, says):
    config = tmp_path / 'config.py'
    config.write_text(source)
    with pytest.raises(SystemExit, match=says):
        settings(config)


def test_help_lists_every_setting_with_default_and_comment(prepared):
    out = prepared.check('train_with_eval.py', '--help')
    lines = [line for line in out.splitlines() if line.startswith('  --')]
    assert len(lines) >= 35
    assert all(len(line.split(None, 1)) == 2 and len(line.split('  ')[-1]) > 5 for line in lines), 'a setting has no comment'
    assert any('--n_embd=14' in line and 'width' in line for line in lines)


@given(st.sampled_from([*DEFAULTS, 'other']), st.text(max_size=20))
def test_any_argument_gives_typed_settings_or_one_clear_refusal(key, value):
    try:
        result = settings(f'--{key}={value}')
    except SystemExit as e:
        assert str(e).startswith('error: ')
    else:
        assert {k: type(v) for k, v in result.items()} == {k: type(v) for k, v in DEFAULTS.items()}
