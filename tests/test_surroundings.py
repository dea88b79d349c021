"""What surrounds a run may fail: output, disk, folder, environment. It goes on, or says in a sentence what is wrong."""

import ast
import builtins
import errno
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from conftest import REPO, TINY, Project
from test_readme import BLOCKS

from common.answers import append_answers
from common.arguments import argument_parser, wrapped
from common.errors import UserError, print_error
from common.files import write_file

SOURCES = {path.relative_to(REPO): path.read_text(encoding='utf-8') for pattern in
           ('*.py', 'data/*/prepare.py', *(f'{room}/*.py' for room in ('common', 'fused', 'study', 'paper', 'dev')))
           for path in sorted(REPO.glob(pattern))}
SCRIPTS = [str(path) for path, source in SOURCES.items() if f'$ python {path}' in source]
MATH = 'config/train_math_mini_14.py'
TRAIN = ('train_with_eval.py', MATH, *TINY, '--fused=False', '--decay_lr=False')


def python(project, code, *argv):
    """Run a script in a fresh interpreter after some code: returns the finished process."""
    code += "; import runpy, sys; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    return subprocess.run([sys.executable, '-c', code, *argv], cwd=project.folder, capture_output=True, text=True,
                          timeout=120)


def shell(project, command):
    return subprocess.run(['bash', '-o', 'pipefail', '-c', f"P={sys.executable}; {command}"], cwd=project.folder,
                          text=True,
                          capture_output=True, timeout=120)


def is_whole(project, out_dir):
    return list(pd.read_csv(project.folder / out_dir / 'results.csv').iter) == [0, 2, 4]


# -----------------------------------------------------------------------------
# output that nobody reads


@pytest.mark.parametrize('reader', ['| head -1', '>&- 2>&-', '> /dev/full'])
def test_a_run_whose_output_goes_nowhere_goes_on_to_its_end(project, reader):
    process = shell(project, f"$P {' '.join(TRAIN)} --out_dir=unread {reader}")
    assert process.returncode == 0 and not process.stderr and is_whole(project, 'unread'), process.stderr


def test_a_sweep_whose_output_is_not_read_to_the_end_trains_all_of_its_runs(project):
    options = [arg for arg in TRAIN[1:] if 'out_dir' not in arg]
    process = shell(project, f"$P sweep.py {' '.join(options)} --seeds=2 --jobs=1 --name=unread | head -1")
    assert process.returncode == 0, process.stderr
    assert len(list(project.folder.glob('sweeps/unread/*/seed_*/results.csv'))) == 2


def test_a_report_that_cannot_be_written_ends_without_a_traceback(project):
    report = 'env -u PYTHONUNBUFFERED $P eval_as_math.py --out_dir=math_mini_14'
    assert shell(project,
                 f'{report} > /dev/full').stderr == 'error: the output cannot be written: No space left on device\n'
    assert shell(project, f'{report} | head -1').stderr == ''


@pytest.mark.parametrize('problem', [errno.EDQUOT, errno.EIO, errno.ESTALE, errno.ECONNRESET, errno.ENXIO])
def test_a_quota_or_a_file_server_that_fails_behind_the_output_ends_a_script_with_a_sentence(bare, problem):
    write = f"lambda self, text: (_ for _ in ()).throw(OSError({problem}, os.strerror({problem})))"
    process = python(bare, f"import io, os, sys; file = dict(writable=lambda self: True, write={write}); sys.stdout = "
                     "io.TextIOWrapper(io.BufferedWriter(type('File', (io.RawIOBase,), file)()))",
                     'train_with_eval.py', '--help')
    assert process.returncode == 1
    assert process.stderr == f'error: the output cannot be written: {os.strerror(problem)}\n'


def test_an_error_that_is_not_of_the_output_is_not_taken_for_one(capsys):
    print_error(OSError, OSError(errno.EIO, 'Input/output error'), None)  # e.g. of reading
    assert capsys.readouterr().err == 'OSError: [Errno 5] Input/output error\n'


# -----------------------------------------------------------------------------
# disks and folders


@pytest.mark.parametrize('limit, name', [(1, '.gitignore'), (100, 'meta.pkl'), (10000, 'ckpt_last.pt')])
def test_a_disk_that_is_full_before_anything_is_saved_leaves_no_folder_and_advises_no_resuming(project, limit, name):
    process = python(project, f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))", *TRAIN,
                     '--out_dir=new')
    assert process.returncode == 1 and process.stderr.count('\n') == 1
    assert 'resum' not in process.stdout + process.stderr
    assert f'{name}: File too large' in process.stderr and not (project.folder / 'new').exists(), process.stderr


def test_a_folder_that_is_renamed_while_its_run_goes_on_keeps_what_was_saved_and_is_missed(project):
    process = project.popen(*TRAIN, '--out_dir=old', '--max_iters=1000000', '--eval_interval=50',
                            '--full_eval_interval=50')
    while not (project.folder / 'old/temp.csv').exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    (project.folder / 'old').rename(project.folder / 'renamed')
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1 and err.startswith('error: cannot write old/') and err.count('\n') == 1, err
    assert not (project.folder / 'old').exists() and (project.folder / 'renamed/ckpt_last.pt').exists()


def test_a_disk_that_cannot_append_is_named(tmp_path, monkeypatch):
    def open_without_append(path, mode='r', *args, **kwargs):
        if 'a' in mode:
            raise OSError(errno.EOPNOTSUPP, 'Operation not supported')
        return open_file(path, mode, *args, **kwargs)
    open_file = open
    monkeypatch.setattr(builtins, 'open', open_without_append)
    table = pd.DataFrame([('add', '<1+2=', '3', 'seen', 1, 1, 1.0, '3')],
                         columns='task prompt answer group samples correct prob said'.split())
    with pytest.raises(UserError, match='cannot write .*answers.csv.gz: Operation not supported'):
        append_answers(0, table, tmp_path)


def test_a_disk_that_fails_twice_is_named_for_the_first_failure(tmp_path, monkeypatch):
    def fail(*args):
        raise OSError(errno.EIO, 'Input/output error')
    monkeypatch.setattr(os, 'fsync', fail)
    monkeypatch.setattr(os, 'unlink', fail)
    with pytest.raises(UserError, match='cannot write .*results.csv: Input/output error'):
        write_file(tmp_path / 'results.csv', 'iter')


def test_data_may_be_a_link_to_another_disk(fresh, tmp_path_factory):
    (fresh.folder / 'data').rename(elsewhere := tmp_path_factory.mktemp('disk') / 'data')
    (fresh.folder / 'data').symlink_to(elsewhere)
    (elsewhere / 'animals').mkdir()
    example, = (block for block in BLOCKS if 'write_dataset' in block)
    (elsewhere / 'animals/prepare.py').write_text(re.sub('^    ', '', example, flags=re.MULTILINE))
    for prepare in sorted(fresh.folder.glob('data/*/prepare.py')):
        (prepare.parent / 'meta.pkl').unlink(missing_ok=True)
        fresh.check(prepare.relative_to(fresh.folder))
        assert (elsewhere / prepare.parent.name / 'meta.pkl').exists()


def test_common_may_be_a_link_and_data_is_beside_the_link(fresh, tmp_path_factory):
    (fresh.folder / 'common').rename(elsewhere := tmp_path_factory.mktemp('disk') / 'common')
    (fresh.folder / 'common').symlink_to(elsewhere)
    fresh.check('data/as_math/prepare.py', '--name=own')
    assert (fresh.folder / 'data/own/meta.pkl').exists()


# -----------------------------------------------------------------------------
# the locale


ASCII = dict(LC_ALL='C', PYTHONCOERCECLOCALE='0', PYTHONUTF8='0')  # the narrowest of all encodings
PREPARE = '''
import os, sys
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(os.path.dirname(HERE)))
from common.errors import report_errors; report_errors()
from common.prepare import write_dataset
from common.questions import Question
questions = [Question('Áste', 'Šiauliai ', 'ů', 'seen', ' \\n'), Question('Áste', 'Łódź ', 'ą', 'seen', ' \\n')]
write_dataset(HERE, ''.join(q.line for q in 2 * questions), questions)
'''


def test_no_letter_of_a_task_or_path_depends_on_the_locale(project):
    folder = project.folder / 'Łukasz'
    folder.mkdir()
    for name in ('common', 'fused', 'config', 'data'):
        (project.folder / name).rename(folder / name)
    for path in project.folder.glob('*.py'):
        path.rename(folder / path.name)
    (folder / 'data/Łódź').mkdir()
    (folder / 'data/Łódź/prepare.py').write_text(PREPARE, encoding='utf-8')
    project = Project(folder)
    project.check('data/Łódź/prepare.py', **ASCII)
    sweep = 'sweep.py', MATH, *TINY, '--fused=False', '--block_size=9', '--dataset=Łódź', '--seeds=1', '--name=ż'
    project.check(*sweep, **ASCII)
    run = 'sweeps/ż/math_mini_14/seed_1337'
    assert 'Áste_total' in pd.read_csv(folder / run / 'results.csv')
    assert '1 finished already' in project.check(*sweep, **ASCII)
    project.check('plot_results.py', '--model_folder', run, '--output=ę.png', **ASCII)
    project.check('eval_capitals.py', f'--out_dir={run}', '--plot', '--json=ę.json', **ASCII)
    assert (folder / 'ę.png').exists() and (folder / run / 'facts.png').exists()


@pytest.mark.parametrize('path', SOURCES, ids=str)
def test_every_text_file_and_output_that_is_read_names_its_encoding(path):
    for node in ast.walk(ast.parse(SOURCES[path])):
        if isinstance(node, ast.Call):
            called, given = ast.unparse(node.func), {keyword.arg for keyword in node.keywords}
            if called.startswith('subprocess.'):
                assert not {'text', 'universal_newlines'} & given, f'line {node.lineno}: text=True'
            modes = [arg.value for arg in node.args[1:2] if isinstance(arg, ast.Constant)]
            if called.endswith(('.read_text', '.write_text')) or called in ('open', 'gzip.open', 'io.open') and not (
                    modes and 'b' in modes[0]):
                assert 'encoding' in given, f'line {node.lineno}: {called}'


# -----------------------------------------------------------------------------
# the environment


@pytest.mark.parametrize('variables', [dict(RANK='abc'), dict(RANK='0'), dict(RANK='0', WORLD_SIZE='x'),
                                       dict(RANK='0', WORLD_SIZE='1', MASTER_ADDR='localhost')])
def test_half_of_what_torchrun_sets_is_refused(project, variables):
    project.fails(*TRAIN, '--out_dir=new', says='start with torchrun', **variables)
    assert not (project.folder / 'new').exists()


def test_a_number_of_processes_without_a_rank_is_nobodys(project):
    project.check(*TRAIN, '--out_dir=one')
    project.check(*TRAIN, '--out_dir=alone', WORLD_SIZE='2')  # it would train on half of each batch
    tables = [pd.read_csv(project.folder / folder / 'results.csv').train_loss for folder in ('one', 'alone')]
    assert list(tables[0]) == list(tables[1])


@pytest.mark.parametrize('script', SCRIPTS)
def test_without_the_environment_a_script_says_how_to_get_it(script, tmp_path):
    environment = {key: value for key, value in os.environ.items() if key != 'PYTHONPATH'}
    process = subprocess.run([sys.executable, '-S', REPO / script], cwd=tmp_path, env=environment, capture_output=True,
                             text=True)
    assert process.returncode == 1 and process.stderr.count('\n') == 1, process.stderr
    assert re.match(r'error: \w+ is not installed for .*pip install -r requirements.txt$',
                    process.stderr), process.stderr


def test_without_docstrings_scripts_run(fresh):
    assert wrapped(None) == ''
    for command in (['train_with_eval.py', '--help'], ['data/facts_char/prepare.py']):
        process = subprocess.run([sys.executable, '-OO', *command], cwd=fresh.folder, capture_output=True, text=True)
        assert process.returncode == 0 and process.stdout and not process.stderr, process.stderr


@pytest.mark.parametrize('script', ['train_with_eval.py', 'sweep.py'])
def test_without_what_windows_lacks_a_script_runs(project, script):
    """Windows has no fcntl and no SIGHUP."""
    code = "import signal, sys; sys.modules['fcntl'] = None; del signal.SIGHUP"
    assert python(project, code, script, '--help').returncode == 0
    if script == 'train_with_eval.py':
        process = python(project, code, *TRAIN, '--out_dir=windows')
        assert process.returncode == 0 and is_whole(project, 'windows'), process.stderr


@pytest.mark.parametrize('compile', [False, True])
@pytest.mark.parametrize('variables',
                         [dict(TORCHINDUCTOR_CACHE_DIR='torchinductor_me'), dict(TMPDIR='.', LOGNAME='me')])
def test_a_compilers_cache_that_cannot_be_made_is_named_if_one_compiles(project, monkeypatch, variables, compile):
    monkeypatch.delenv('TORCHINDUCTOR_CACHE_DIR', raising=False)  # torch sets it
    (project.folder / 'torchinductor_me').touch()  # the second case is torch's own choice
    out = project.check(*TRAIN, '--out_dir=cached', f'--compile={compile}', **variables)
    assert out.count('torch.compile failed') == out.count('torchinductor_me') == compile and is_whole(project, 'cached')


# -----------------------------------------------------------------------------
# somebody else's program


@pytest.mark.parametrize('room, known',
                         [('', 'plot_results'), ('common', 'common.errors'), ('fused', 'fused.fused_step'),
                                         ('study', 'study.widths'), ('paper', 'paper.authors'), ('dev', 'dev.bench')])
def test_a_program_that_imports_ours_keeps_its_own_error_reports_and_output(room, known):
    code = ("import importlib, sys\n"
            "state = lambda: (sys.excepthook, sys.stdout, sys.stdout.errors, sys.stderr.errors)\n"
            "before = state()\nfor name in sys.argv[1:]: importlib.import_module(name); assert state() == before, name")
    modules = ['.'.join(path.with_suffix('').parts) for path, source in SOURCES.items()
               if path.parent == Path(room) and '\nreport_errors()' not in source]  # those with it act at once
    assert known in modules
    process = subprocess.run([sys.executable, '-c', code, *modules], cwd=REPO, capture_output=True, text=True,
                             timeout=120)
    assert process.returncode == 0, process.stderr


@pytest.mark.parametrize('command, name', [
    ('plot_results.py --model_folder math_mini_14', 'plot.png'),
    ('plot_results.py --answers --model_folder math_mini_14', 'answers.png'),
    ('plot_model.py --out_dir=math_mini_14', 'model.png'),
    ('eval_as_math.py --out_dir=math_mini_14 --plot', 'grid.png')])
def test_no_picture_depends_on_a_notebooks_backend_or_the_users_matplotlibrc(project, command, name):
    drawn = []
    for env in (dict(MPLBACKEND=''),
                dict(MPLBACKEND='module://matplotlib_inline.backend_inline', MATPLOTLIBRC='other')):
        project.check(*command.split(), **env)
        drawn.append((project.folder / 'math_mini_14' / name).read_bytes())
        rc = 'text.usetex: True\nlines.linewidth: 9\nsavefig.bbox: tight\nbackend: QtAgg\n'
        for path in ('matplotlibrc', 'other'):  # the first of them is read, and its last line is not UTF-8
            (project.folder / path).write_bytes(rc.encode() + b'# caf\xe9')
    assert drawn[0] == drawn[1]


@pytest.mark.parametrize('command', ['plot_results.py --model_folder math_mini_14',
                                     'eval_as_math.py --out_dir=math_mini_14 --plot'])
def test_without_any_folder_for_matplotlibs_cache_one_sentence_says_so(project, command):
    code = "import os, tempfile; tempfile.tempdir = '/proc/nowhere'; os.environ['MPLCONFIGDIR'] = '/proc/nowhere'"
    process = python(project, code, *command.split())
    assert process.returncode == 1 and 'Traceback' not in process.stderr
    last = process.stderr.splitlines()[-1]
    assert last.startswith('error: matplotlib cannot be imported: ') and 'MPLCONFIGDIR' in last


@pytest.mark.parametrize('script', [script for script in SCRIPTS if 'argparse' in SOURCES[Path(script)]
                                    and re.search('common.pictures|study.figures', SOURCES[Path(script)])])
def test_scripts_that_draw_start_where_a_notebooks_backend_is_missing(script, tmp_path):
    process = subprocess.run([sys.executable, REPO / script, '--help'], cwd=tmp_path, capture_output=True, text=True,
                             env={**os.environ, 'MPLBACKEND': 'module://matplotlib_inline.backend_inline'})
    assert process.returncode == 0, process.stderr


def test_a_program_that_draws_keeps_its_settings_when_it_imports_ours():
    code = ("import os, matplotlib; matplotlib.rcParams['lines.linewidth'] = 7; import common.pictures; "
            "assert matplotlib.rcParams['lines.linewidth'] == 7 and 'MPLBACKEND' not in os.environ")
    environment = {key: value for key, value in os.environ.items() if key != 'MPLBACKEND'}
    assert subprocess.run([sys.executable, '-c', code], cwd=REPO, env=environment).returncode == 0


def test_a_tilde_behind_an_equals_sign_is_the_home_folder_in_every_option_that_is_text_or_a_path(monkeypatch):
    monkeypatch.setenv('HOME', '/home/me')
    parser = argument_parser('')
    for option in ('--model_folder', '--sweep'):
        parser.add_argument(option, nargs='+' if option == '--model_folder' else None)
    parser.add_argument('--output', type=Path)
    args = parser.parse_args(['--model_folder=~/x', '--sweep=~/y', '--output=~/z'])
    assert (args.model_folder, args.sweep, args.output) == (['/home/me/x'], '/home/me/y', Path('/home/me/z'))


def test_a_prompt_file_may_begin_with_windows_mark_and_lie_in_the_home_folder(project):
    (project.folder / 'prompt.txt').write_text('<3+4=', encoding='utf-8-sig')
    for path, home in (('prompt.txt', ''), ('~/prompt.txt', str(project.folder))):
        out = project.check('sample.py', '--out_dir=math_mini_14', f'--start=FILE:{path}', '--num_samples=1', HOME=home)
        assert out.startswith('<3+4=')
