"""The model folder: files are written whole or not at all, one run at a time, nothing that no run wrote is moved."""

import errno
import fcntl
import io
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from common import run_folder
from common.errors import UserError
from common.files import write_file
from common.run_folder import claim_folder, end_results, lock_folder, remove_unused


def test_an_error_leaves_the_old_file_and_no_temporary_one(tmp_path, monkeypatch):
    class HalfWritten(io.FileIO):
        def write(self, content):
            super().write(content[:1])
            raise RuntimeError
    path = tmp_path / 'file'
    path.write_text('old')
    with monkeypatch.context() as broken, pytest.raises(RuntimeError):
        broken.setattr('common.files.open', HalfWritten, raising=False)
        write_file(path, 'new')
    assert path.read_text() == 'old' and [p.name for p in tmp_path.iterdir()] == ['file']
    write_file(path, b'new')
    assert path.read_bytes() == b'new' and [p.name for p in tmp_path.iterdir()] == ['file']
    with pytest.raises(UserError, match='^cannot write [^\n]*: Is a directory[^\n]*$'):
        write_file(tmp_path, 'x')
    with pytest.raises(UserError, match='^cannot write [^\n]*: its folder is not there$'):
        write_file(tmp_path / 'nowhere/file', 'x')


def test_links_are_followed_and_devices_left_in_place(tmp_path):
    (tmp_path / 'target').write_text('old')
    (tmp_path / 'link').symlink_to('target')
    write_file(tmp_path / 'link', 'new')
    assert (tmp_path / 'link').is_symlink() and (tmp_path / 'target').read_text() == 'new'
    os.mkfifo(tmp_path / 'pipe')
    reader = os.open(tmp_path / 'pipe', os.O_RDONLY | os.O_NONBLOCK)
    write_file(tmp_path / 'pipe', 'through')
    assert os.read(reader, 100) == b'through' and (tmp_path / 'pipe').is_fifo()
    os.close(reader)


# -----------------------------------------------------------------------------
# claiming a folder

RUN = ['ckpt.pt', 'ckpt_last.pt', 'ckpt_best_math.pt', 'results.csv', 'temp.csv', 'answers.csv.gz', 'meta.pkl',
       'vocab.json', 'merges.txt', 'plot.png', 'plot.svg', 'film.gif.7.tmp']


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """The current folder, with an earlier run in `run`."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'run').mkdir()
    for name in RUN:
        (tmp_path / 'run' / name).write_text(f'the {name} of before')
    return tmp_path


def contents(folder):
    """Every file's bytes, and False for a folder; without .lock and .gitignore, which a run puts into its folder."""
    return {path.relative_to(folder): path.is_file() and path.read_bytes() for path in folder.rglob('*')
            if not path.name.startswith('.')}


@pytest.mark.parametrize('out_dir', ['run', 'run/'])
def test_an_earlier_run_is_moved_aside_whole_and_the_next_one_behind_it(runs, capsys, out_dir):
    before = contents(runs / 'run')
    for n in (1, 2):
        claim_folder(out_dir, resume=False)
        assert not contents(runs / 'run') and f'to run.{n}\n' in capsys.readouterr().out
        write_file('run/results.csv', 'later')
    assert contents(runs / 'run.1') == before and (runs / 'run.2/results.csv').read_text() == 'later'


def test_a_run_that_goes_on_keeps_its_files_but_for_half_written_ones(runs):
    before = contents(runs / 'run')
    for name in ('ckpt_last.pt.123.tmp', 'results.csv.7.tmp', 'answers.csv.gz.7.tmp', '.gitignore.7.tmp'):
        (runs / 'run' / name).write_text('hal')
    (runs / 'run/notes.tmp').write_text('mine')
    claim_folder('run', resume=True)
    assert contents(runs / 'run') == before | {Path('notes.tmp'): b'mine'}
    assert not (runs / 'run/.gitignore.7.tmp').exists()
    assert not (runs / 'run.1').exists()


@pytest.mark.parametrize('strange', ['thesis.tex', 'prepare.py', 'data/', 'seed_1337/ckpt.pt', 'results.csv.bak',
                                     'input.txt', '.git/config'])
def test_a_folder_with_what_no_run_wrote_is_refused_and_nothing_moves(runs, strange):
    path = runs / 'run' / strange
    (path if strange.endswith('/') else path.parent).mkdir(parents=True, exist_ok=True)
    if not strange.endswith('/'):
        path.write_text('mine')
    before = contents(runs)
    with pytest.raises(UserError, match=f"^run contains {strange.split('/')[0]}, which no run wrote"):
        claim_folder('run', resume=False)
    assert contents(runs) == before
    claim_folder('run', resume=True)  # a run that goes on moves nothing


@pytest.mark.parametrize('out_dir', ['', '.', '..', '/', 'run/..', 'repo', 'repo/common/..', 'link to repo'])
@pytest.mark.parametrize('resume', [False, True])
def test_a_folder_that_this_program_lives_or_runs_in_is_refused(runs, monkeypatch, out_dir, resume):
    (runs / 'repo/common').mkdir(parents=True)
    (runs / 'link to repo').symlink_to('repo')
    monkeypatch.setattr(run_folder, '__file__', str(runs / 'repo/common/run_folder.py'))
    before = contents(runs)
    with pytest.raises(UserError, match='choose another --out_dir'):
        claim_folder(out_dir, resume)
    assert contents(runs) == before and not list(runs.parent.glob(f'{runs.name}.*'))


def test_a_folder_of_pictures_or_data_is_no_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ('data/as_math/prepare.py', 'pictures/plot.png', 'pictures/other.svg'):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text('mine')
    before = contents(tmp_path)
    for folder in ('data', 'pictures', 'data/as_math'):
        with pytest.raises(UserError, match=f'{folder} contains'):
            claim_folder(folder, resume=False)
    assert contents(tmp_path) == before


def test_an_empty_folder_and_a_new_one_below_another_are_taken_and_kept_from_git(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'empty').mkdir()
    for out_dir in ('empty', 'new/below'):
        claim_folder(out_dir, resume=False)
        assert not contents(tmp_path / out_dir) and (tmp_path / out_dir / '.gitignore').read_text() == '*\n'
    assert not list(tmp_path.glob('*.1'))


def test_a_link_stays_a_link_and_what_it_leads_to_is_moved_aside(runs):
    before = contents(runs / 'run')
    (runs / 'elsewhere').mkdir()
    (runs / 'run').rename(runs / 'elsewhere/run')
    (runs / 'link').symlink_to('elsewhere/run')
    claim_folder('link', resume=False)
    assert os.readlink(runs / 'link') == 'elsewhere/run' and not contents(runs / 'elsewhere/run')
    assert contents(runs / 'elsewhere/run.1') == before and not (runs / 'link.1').exists()


def test_a_dangling_link_becomes_a_folder_where_it_leads(runs):
    (runs / 'link').symlink_to('new')
    claim_folder('link', resume=False)
    assert (runs / 'link').is_symlink() and (runs / 'new').is_dir()


def test_one_run_at_a_time_and_a_lock_ends_with_its_process(runs):
    code = "import sys, time; sys.path.insert(0, sys.argv[1]); from common.run_folder import lock_folder; " \
           "lock = lock_folder('run'); print('locked', flush=True); time.sleep(60)"
    repo = os.path.dirname(os.path.dirname(run_folder.__file__))
    process = subprocess.Popen([sys.executable, '-c', code, repo], stdout=subprocess.PIPE)
    try:
        assert process.stdout.readline() == b'locked\n'
        before = contents(runs)
        for resume in (False, True):
            with pytest.raises(UserError,
                               match=f'another run is training in .*{process.pid} on {socket.gethostname()}'):
                claim_folder('run', resume)
        assert contents(runs) == before
    finally:
        process.kill()
        process.wait()
    lock = claim_folder('run', resume=True)
    lock.close()
    lock_folder('run')


@pytest.mark.parametrize('problem', [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_where_files_cannot_be_locked_a_run_goes_on_and_says_so(runs, monkeypatch, capsys, problem):
    def no_flock(*args):
        raise OSError(problem, os.strerror(problem))
    monkeypatch.setattr(fcntl, 'flock', no_flock)
    first = claim_folder('run', resume=True)
    assert first and f'run cannot be locked ({os.strerror(problem)})' in capsys.readouterr().out
    claim_folder('run', resume=True)  # a lock that nobody holds any more cannot be told from one that somebody does


@pytest.mark.parametrize('name', ['.DS_Store', '._ckpt.pt', 'Thumbs.db', '.nfs0001', '.ipynb_checkpoints/', '@eaDir/',
                                  'lost+found/', 'desktop.ini', '.fuse_hidden0001', '$RECYCLE.BIN/', '@Recycle/',
                                  '.zfs/', 'System Volume Information/', '.localized', '~$plot.png'])
def test_what_the_system_puts_into_a_folder_makes_it_neither_strange_nor_a_run(runs, name):
    for folder in ('run', 'fresh'):
        (runs / folder).mkdir(exist_ok=True)
        (runs / folder / name).mkdir() if name.endswith('/') else (runs / folder / name).write_text('of the system')
        claim_folder(folder, resume=False)
    assert (runs / 'run.1/ckpt.pt').exists() and not (runs / 'fresh.1').exists() and (runs / 'fresh' / name).exists()


@pytest.mark.parametrize('problem', [errno.EBUSY, errno.EACCES],
                         ids=['a disk is mounted there', 'its parent is not ours'])
def test_of_a_folder_that_cannot_be_renamed_the_content_is_moved_each_time(runs, monkeypatch, capsys, problem):
    rename, before = os.rename, contents(runs / 'run')

    def rename_within(old, new):
        if Path(old) == runs / 'run':
            raise OSError(problem, os.strerror(problem))
        rename(old, new)
    monkeypatch.setattr(os, 'rename', rename_within)
    (runs / 'run/lost+found').mkdir()
    for n in (1, 2):
        lock = claim_folder('run/', resume=False)
        assert f'to run/earlier.{n}\n' in capsys.readouterr().out
        with pytest.raises(UserError, match='another run'):
            lock_folder('run')
        lock.close()
        assert {path.name for path in (runs / 'run').glob('[!.]*')} == {'lost+found',
                                                                        *(f'earlier.{m + 1}' for m in range(n))}
        write_file('run/results.csv', 'later')
    assert contents(runs / 'run/earlier.1') == before
    assert contents(runs / 'run/earlier.2') == {Path('results.csv'): b'later'}


def test_a_folder_that_cannot_be_made_is_refused_and_leaves_nothing(runs):
    (runs / 'file').write_text('precious')
    for out_dir in ('file', 'file/below', '/proc/nowhere'):
        with pytest.raises(UserError, match=f'^cannot use {out_dir} as out_dir: [^\n]*$'):
            claim_folder(out_dir, resume=False)
    assert (runs / 'file').read_text() == 'precious'


def test_a_folder_in_which_nothing_was_saved_is_removed_and_any_other_stays(tmp_path):
    for name in ('meta.pkl', '.gitignore', '.lock'):
        write_file(tmp_path / name, 'ours')
    (tmp_path / 'saved').mkdir()
    for name in ('meta.pkl', 'ckpt_last.pt'):
        write_file(tmp_path / 'saved' / name, 'ours')
    remove_unused(tmp_path / 'saved')
    remove_unused(tmp_path / 'nowhere')
    remove_unused(tmp_path)
    assert len(contents(tmp_path)) == 4
    (tmp_path / 'saved/ckpt_last.pt').unlink()
    remove_unused(tmp_path / 'saved')
    remove_unused(tmp_path)
    assert not tmp_path.exists()


def test_a_table_that_cannot_be_renamed_does_not_hide_what_ended_the_run(tmp_path, capsys):
    end_results(tmp_path)
    (tmp_path / 'temp.csv').write_text('a row')
    (tmp_path / 'results.csv').mkdir()
    end_results(tmp_path)
    assert 'could not rename ' in capsys.readouterr().out
    (tmp_path / 'results.csv').rmdir()
    end_results(tmp_path)
    assert (tmp_path / 'results.csv').read_text() == 'a row'


LISTENING = "import hashlib, sys, time; sys.path.insert(0, sys.argv[1]); from common.signals import stop_by_signal\n" \
            "stop = stop_by_signal(); print('ready', flush=True)\nwhile not stop.code: time.sleep(0.01)\n" \
            "print(stop.code, flush=True)\n"


def listening(then):
    """A process that waits for a signal, prints the stop's code, and goes on with some code."""
    repo = os.path.dirname(os.path.dirname(run_folder.__file__))
    process = subprocess.Popen([sys.executable, '-c', LISTENING + then, repo], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == 'ready\n'
    return process


@pytest.mark.parametrize('signum', [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize('then', ['time.sleep(60)', "hashlib.pbkdf2_hmac('sha256', b'', b'', 10**9)"],
                         ids=['Python', 'C'])
def test_the_first_signal_asks_and_the_second_ends_even_a_process_that_never_returns_to_python(signum, then):
    process = listening(then)
    process.send_signal(signum)
    assert process.stdout.readline() == f'{128 + signum}\n'
    process.send_signal(signum)
    try:
        assert process.wait(20) == 128 + signum
    finally:
        process.kill()


@pytest.mark.parametrize('signum', [signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU])
def test_a_schedulers_warning_asks_as_often_as_it_comes_and_leaves_time_to_save_after_its_sigterm(signum):
    process = listening("print('saving', flush=True); time.sleep(0.5); print('saved', flush=True)")
    process.send_signal(signum)
    assert process.stdout.readline() == f'{128 + signum}\n' and process.stdout.readline() == 'saving\n'
    for again in (signum, signum, signal.SIGTERM):
        process.send_signal(again)
    assert process.stdout.readline() == 'saved\n' and process.wait(20) == 0


def test_a_foreign_gitignore_is_neither_moved_nor_overwritten(tmp_path):
    (tmp_path / 'own').mkdir()
    (tmp_path / 'own/.gitignore').write_text('precious')
    claim_folder(str(tmp_path / 'own'), resume=False)
    assert (tmp_path / 'own/.gitignore').read_text() == 'precious'
    (tmp_path / 'repository/.git').mkdir(parents=True)
    with pytest.raises(UserError, match='.git, which no run wrote'):
        claim_folder(str(tmp_path / 'repository'), resume=False)


def test_a_run_behind_a_link_and_two_dots_is_moved_aside_and_not_overwritten(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'other/sub').mkdir(parents=True)
    (tmp_path / 'link').symlink_to(tmp_path / 'other/sub')
    (tmp_path / 'other/x').mkdir()
    (tmp_path / 'other/x/ckpt.pt').write_text('precious')
    claim_folder('link/../x', resume=False)
    assert (tmp_path / 'other/x.1/ckpt.pt').read_text() == 'precious' and not (tmp_path / 'x').exists()
