# SPDX-License-Identifier: Apache-2.0
"""Where everything is, with which rights, and what makes a folder unfit."""

import errno
import grp
import os
import pathlib
import shutil
import stat
from unittest import mock

import pytest

from nova_qcache import exception
from nova_qcache.system.paths import Paths
from tests.unit.builders import KEY

MODES = {
    'cache': 0o711,
    'cache/locks': 0o700,
    'cache/generations': 0o700,
    'run': 0o711,
    'run/guests': 0o750,
    'run/control': 0o700,
    'run/leases': 0o700,
}
NO_GROUP = 'no-such-group-here'
READ_ONLY = os.statvfs_result((4096, 4096, 0, 0, 0, 0, 0, 0, os.ST_RDONLY, 255))


@pytest.fixture
def fresh(tmp_path):
    return Paths(tmp_path / 'cache', tmp_path / 'run')


def unfit(paths):
    with pytest.raises(exception.FolderUnfit) as caught:
        paths.prepare()
    return str(caught.value)


def test_all_names_of_a_cache_are_different_and_in_their_folders():
    paths = Paths(pathlib.Path('/c'), pathlib.Path('/r'))
    assert paths.record(KEY) == pathlib.Path(f'/c/{KEY.stem}.json')
    assert paths.recording(KEY) == pathlib.Path(f'/c/{KEY.stem}.recording')
    assert paths.sealed(KEY) == pathlib.Path(f'/c/{KEY.stem}.qcow2')
    assert paths.nbd_socket(KEY) == pathlib.Path(f'/r/guests/{KEY.stem}.nbd')
    assert paths.qmp_socket(KEY) == pathlib.Path(f'/r/control/{KEY.stem}.qmp')
    assert paths.control_socket(KEY) == pathlib.Path(f'/r/control/{KEY.stem}.ctl')
    assert paths.log(KEY) == pathlib.Path(f'/r/control/{KEY.stem}.log')
    assert paths.leases == pathlib.Path('/r/leases')


def test_from_conf(conf):
    group = conf.qcache
    assert Paths.from_conf(conf) == Paths(
        pathlib.Path(group.cache_path), pathlib.Path(group.run_path), group.qemu_group
    )


@pytest.mark.parametrize('umask', [0o000, 0o077])
def test_prepare_makes_folders_with_the_least_rights(tmp_path, fresh, umask):
    old = os.umask(umask)
    try:
        fresh.prepare()
    finally:
        os.umask(old)
    found = {name: stat.S_IMODE((tmp_path / name).stat().st_mode) for name in MODES}
    assert found == MODES


def test_who_only_looks_makes_no_folder(tmp_path, fresh):
    fresh.prepare(make=False)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / 'cache').write_text('')
    with pytest.raises(exception.FolderUnfit, match='it is not a folder'):
        fresh.prepare(make=False)


def test_prepare_leaves_alone_what_is_there(tmp_path, fresh):
    fresh.prepare()
    (tmp_path / 'cache').chmod(0o755)
    (tmp_path / 'cache' / 'a cache').write_text('content')
    fresh.prepare()
    assert stat.S_IMODE((tmp_path / 'cache').stat().st_mode) == 0o755
    assert (tmp_path / 'cache' / 'a cache').read_text() == 'content'


@pytest.mark.parametrize('name', MODES)
@pytest.mark.parametrize('kind', ['file', 'dangling link'])
def test_a_folder_that_is_none(tmp_path, fresh, name, kind):
    fresh.prepare()
    path = tmp_path / name
    shutil.rmtree(path)
    if kind == 'file':
        path.write_text('')
    else:
        path.symlink_to('nowhere')
    said = unfit(fresh)
    assert f'The folder {str(path)!r} cannot be used: it is not a folder' in said
    assert 'Move it away or name another folder' in said


@pytest.mark.parametrize(
    ('user', 'owner', 'mode', 'fits'),
    [
        (0, 0, 0o755, False),
        (0, 0, 0o1777, True),
        (0, 0, 0o775, True),
        (0, 1000, 0o755, True),
        (1000, 1000, 0o755, True),
    ],
)
def test_what_only_root_could_make_is_not_yet_to_be_made(short_folder, user, owner, mode, fits):
    """Root looks for nova-compute, which is somebody else."""
    found = mock.Mock(st_uid=owner, st_mode=stat.S_IFDIR | mode)
    paths = Paths(short_folder / 'a', short_folder / 'b')
    with (
        mock.patch('os.geteuid', autospec=True, return_value=user),
        mock.patch.object(pathlib.Path, 'stat', autospec=True, return_value=found),
    ):
        if fits:
            assert paths.missing() == [str(paths.cache_path), str(paths.run_path)]
        else:
            with pytest.raises(exception.FolderUnfit, match='only root can make it'):
                paths.missing()


def test_a_missing_parent_is_not_made(tmp_path):
    paths = Paths(tmp_path / 'no' / 'cache', tmp_path / 'run')
    said = unfit(paths)
    assert str(tmp_path / 'no' / 'cache') in said
    assert 'No such file or directory' in said
    assert 'Make it, and give it to the user that nova-compute runs as' in said
    assert not (tmp_path / 'no').exists()


def test_a_folder_that_this_user_may_not_write_to(tmp_path, fresh):
    fresh.prepare()
    with mock.patch.object(os, 'access', autospec=True, return_value=False) as access:
        said = unfit(fresh)
    access.assert_called_once_with(tmp_path / 'cache', os.W_OK | os.X_OK)
    assert f'{str(tmp_path / "cache")!r}' in said
    owner = (tmp_path / 'cache').stat().st_uid
    assert f'it belongs to user {owner}, and user {os.geteuid()} may not write there' in said
    assert 'Give it to the user that nova-compute runs as, or act as that user' in said


def test_a_folder_on_a_read_only_file_system(tmp_path, fresh):
    with mock.patch.object(os, 'statvfs', autospec=True, return_value=READ_ONLY):
        said = unfit(fresh)
    assert f'{str(tmp_path / "cache")!r}' in said
    assert 'its file system is read-only. Mount it for writing, or name another folder' in said


def test_a_folder_that_would_be_made_on_a_read_only_file_system(tmp_path, fresh):
    error = OSError(errno.EROFS, os.strerror(errno.EROFS))
    with mock.patch.object(pathlib.Path, 'mkdir', autospec=True, side_effect=error):
        said = unfit(fresh)
    assert 'Read-only file system. Mount it for writing, or name another folder' in said


REQUIRED = ['cache', 'cache/locks', 'run', 'run/guests', 'run/control', 'run/leases']


@pytest.mark.parametrize('name', REQUIRED)
@pytest.mark.parametrize('how', ['gone', 'empty mount point', 'file'])
def test_a_folder_that_has_vanished(tmp_path, fresh, name, how):
    fresh.prepare()
    fresh.require()
    path = tmp_path / name
    shutil.rmtree(path)
    if how == 'empty mount point':
        path.mkdir()
    elif how == 'file':
        path.write_text('')
    if how == 'empty mount point' and name not in ('cache', 'run'):
        fresh.require()
        return
    before = sorted(tmp_path.rglob('*'))
    with pytest.raises(exception.FolderUnfit) as caught:
        fresh.require()
    assert f'{str(tmp_path / name)!r}'[:-1] in str(caught.value)
    assert 'it has vanished, or this user may not write there any more' in str(caught.value)
    assert 'Bring it back' in str(caught.value)
    assert sorted(tmp_path.rglob('*')) == before, 'nothing is made again'


def test_a_folder_that_is_closed_to_this_user(tmp_path, fresh):
    fresh.prepare()
    closed = tmp_path / 'run' / 'leases'
    with (
        mock.patch.object(
            os, 'access', autospec=True, side_effect=lambda path, mode: path != closed
        ) as access,
        pytest.raises(exception.FolderUnfit) as caught,
    ):
        fresh.require()
    access.assert_called_with(closed, os.W_OK | os.X_OK)
    assert repr(str(closed)) in str(caught.value)


def test_counters_of_bases_may_be_away(fresh):
    """Most bases keep theirs beside them; whoever needs one here says that it is missing."""
    fresh.prepare()
    fresh.generations.rmdir()
    fresh.require()


def with_sockets_of(length):
    rest = len(f'/control/{KEY.stem}.qmp')
    return Paths(pathlib.Path('/c'), pathlib.Path('/' + 'r' * (length - rest - 1)))


def test_socket_paths_of_107_bytes_and_no_more():
    longest = with_sockets_of(107)
    assert len(str(longest.qmp_socket(KEY))) == len(str(longest.control_socket(KEY))) == 107
    longest.require_short_sockets(KEY)
    with pytest.raises(exception.SocketPathTooLong) as caught:
        with_sockets_of(108).require_short_sockets(KEY)
    said = str(caught.value)
    assert f'{str(with_sockets_of(108).qmp_socket(KEY))!r} has 108 bytes' in said
    assert 'the kernel allows 107' in said
    assert 'Set [qcache] run_path to a folder with a shorter name' in said


def test_bytes_of_a_socket_path_count_and_not_letters():
    paths = Paths(pathlib.Path('/c'), pathlib.Path('/' + '\N{SNOWMAN}' * 15))
    assert len(str(paths.control_socket(KEY))) < 107
    with pytest.raises(exception.SocketPathTooLong):
        paths.require_short_sockets(KEY)


def test_share_without_a_group_changes_nothing(tmp_path):
    with mock.patch.object(shutil, 'chown', autospec=True) as chown:
        Paths(tmp_path, tmp_path).share(tmp_path)
    chown.assert_not_called()


def test_share_gives_to_the_group(tmp_path):
    own = grp.getgrgid(os.getegid()).gr_name
    with mock.patch.object(shutil, 'chown', autospec=True) as chown:
        Paths(tmp_path, tmp_path, own).share(tmp_path / 'x')
    chown.assert_called_once_with(tmp_path / 'x', group=own)


@pytest.mark.parametrize('error', [LookupError('no such group: x'), PermissionError('not yours')])
def test_share_with_a_group_that_is_none_or_not_ours(tmp_path, error):
    paths = Paths(tmp_path, tmp_path, NO_GROUP)
    with (
        mock.patch.object(shutil, 'chown', autospec=True, side_effect=error),
        pytest.raises(exception.FolderUnfit) as caught,
    ):
        paths.share(tmp_path)
    said = str(caught.value)
    assert str(tmp_path) in said
    assert f'the group {NO_GROUP!r} ({error})' in said
    assert 'Set [qcache] qemu_group to a group that exists' in said


def test_only_the_folder_of_sockets_is_shared(tmp_path):
    with mock.patch.object(shutil, 'chown', autospec=True) as chown:
        Paths(tmp_path / 'cache', tmp_path / 'run', 'qemu').prepare()
    chown.assert_called_once_with(tmp_path / 'run' / 'guests', group='qemu')


def test_a_folder_that_could_not_be_shared_is_not_taken_for_shared_later(tmp_path):
    paths = Paths(tmp_path / 'cache', tmp_path / 'run', NO_GROUP)
    assert NO_GROUP in unfit(paths)
    assert NO_GROUP in unfit(paths)


def test_a_folder_that_has_the_group_already_needs_no_right_to_give_it(tmp_path):
    """It may belong to root, made by systemd-tmpfiles or a package."""
    path = tmp_path / 'guests'
    path.mkdir()
    group = grp.getgrgid(path.stat().st_gid).gr_name
    denied = PermissionError(1, 'Operation not permitted')
    with mock.patch.object(shutil, 'chown', autospec=True, side_effect=denied):
        Paths(tmp_path, tmp_path, group).share(path)
