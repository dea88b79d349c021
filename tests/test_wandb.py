"""wandb_log: every evaluation reaches Weights & Biases, in its offline mode; without it nothing is imported."""

import os
import struct

import pandas as pd
import pytest
from conftest import TINY

pytest.importorskip('wandb')
TRAIN = ['config/train_math_mini_14.py', *TINY, '--out_dir=logged']


@pytest.fixture(autouse=True)
def no_settings_of_wandb(monkeypatch):
    for key in [key for key in os.environ if key.startswith('WANDB_')]:
        monkeypatch.delenv(key)


def train(project, *options, **env):
    """Call the script in a process with an environment of its own."""
    return project.run('train_with_eval.py', *TRAIN, *options, HOME=str(project.folder), **env)


def records(path):
    """The records of a .wandb file, which is a leveldb log: 7 bytes, then checksum, length, type and data of each."""
    from wandb.proto.wandb_internal_pb2 import Record
    content = path.read_bytes()
    assert len(content) < 32768, 'one block, in which records are not split'
    position = 7
    while position < len(content):
        length, = struct.unpack_from('<H', content, position + 4)
        yield Record.FromString(content[position + 7:position + 7 + length])
        position += 7 + length


def test_each_evaluation_is_logged_with_its_iteration_and_the_settings(project):
    process = train(project, '--wandb_log=True', '--wandb_project=capacity', '--wandb_run_name=first',
                    WANDB_MODE='offline')
    assert process.returncode == 0, process.stderr
    path, = (project.folder / 'logged/wandb').glob('offline-run-*/run-*.wandb')
    logged = list(records(path))
    run, = (record.run for record in logged if record.WhichOneof('record_type') == 'run')
    settings = {item.key: item.value_json for item in run.config.update}
    assert (run.project, run.display_name) == ('capacity', 'first')
    assert settings['n_embd'] == '14' and settings['out_dir'] == '"logged"' and settings['max_iters'] == '4'
    steps = [record.history for record in logged if record.WhichOneof('record_type') == 'history']
    assert [step.step.num for step in steps] == [0, 2, 4]
    table = pd.read_csv(project.folder / 'logged/results.csv')
    for step, (_, row) in zip(steps, table.iterrows()):
        values = {item.key or item.nested_key[0]: float(item.value_json) for item in step.item}
        assert {key: values[key] for key in table.columns} == pytest.approx(dict(row))
    # a resumed run asks the last questions again, and logs them and what comes after; settings that are given win
    process = project.run('train_with_eval.py', '--init_from=resume', '--out_dir=logged', '--max_iters=6',
                          '--wandb_run_name=',
                          HOME=str(project.folder), WANDB_MODE='offline')
    assert process.returncode == 0, process.stderr
    other, = {*(project.folder / 'logged/wandb').glob('offline-run-*/run-*.wandb')} - {path}
    logged = list(records(other))
    resumed, = (record.run for record in logged if record.WhichOneof('record_type') == 'run')
    assert resumed.display_name == 'logged', 'the model folder by default'
    assert resumed.run_id == run.run_id and resumed.project == 'capacity'
    assert [record.history.step.num for record in logged if record.WhichOneof('record_type') == 'history'] == [4, 6]


def test_wandb_is_imported_only_when_asked_for(project):
    (project.folder / 'wandb.py').write_text('raise ImportError("broken on purpose")')
    project.check('train_with_eval.py', *TRAIN)
    assert not (project.folder / 'logged/wandb').exists()
    project.fails('train_with_eval.py', *TRAIN, '--wandb_log=True', says='(broken on purpose): pip install wandb')
    assert not (project.folder / 'logged.1').exists(), 'the earlier run stays where it is'
    project.check('train_with_eval.py', *TRAIN, '--eval_only=True')


def test_without_a_login_the_error_says_what_to_do(project):
    process = train(project, '--wandb_log=True')
    assert process.returncode == 1 and 'Traceback' not in process.stderr
    assert 'error: wandb cannot start a run' in process.stderr and 'WANDB_MODE=offline' in process.stderr
