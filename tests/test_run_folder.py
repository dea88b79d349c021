"""Files are written whole or not at all, and what is no regular file is never replaced."""

import os

import pytest

from atomic_io import atomic_open


def test_an_error_leaves_the_old_file_and_no_temporary_one(tmp_path):
    path = tmp_path / 'file'
    path.write_text('old')
    with pytest.raises(RuntimeError):
        with atomic_open(path) as f:
            f.write('half of the n')
            raise RuntimeError
    assert path.read_text() == 'old' and [p.name for p in tmp_path.iterdir()] == ['file']
    with atomic_open(path, 'wb') as f:
        f.write(b'new')
    assert path.read_bytes() == b'new' and [p.name for p in tmp_path.iterdir()] == ['file']


def test_links_are_followed_and_devices_left_in_place(tmp_path):
    (tmp_path / 'target').write_text('old')
    (tmp_path / 'link').symlink_to('target')
    with atomic_open(tmp_path / 'link') as f:
        f.write('new')
    assert (tmp_path / 'link').is_symlink() and (tmp_path / 'target').read_text() == 'new'
    os.mkfifo(tmp_path / 'pipe')
    reader = os.open(tmp_path / 'pipe', os.O_RDONLY | os.O_NONBLOCK)
    with atomic_open(tmp_path / 'pipe') as f:
        f.write('through')
    assert os.read(reader, 100) == b'through' and (tmp_path / 'pipe').is_fifo()
    os.close(reader)
