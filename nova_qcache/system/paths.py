# SPDX-License-Identifier: Apache-2.0
"""Paths of all files and sockets on a host.

::

    cache_path/  <stem>.json        record of a cache
                 <stem>.recording   cache file while it is written
                 <stem>.qcow2       sealed cache file
                 generations/       counters of bases whose own storage cannot keep them
                 statistics/        <image id>.json, past.json, history.json
                 pins/              <image id>.json, images whose caches stay
                 locks/
    run_path/    guests/  <stem>.nbd                      what guests connect to
                 control/ <stem>.qmp .ctl .log            the daemon's monitor, the recorder's
                 control server, its last words
                          <stem>.duty                     its respawn spec
                          <stem>.draft                    its empty file, while that is made
                          keeper.log                      the keeper's last words
                 leases/                                  of boots that are on their way
                 reservations/                            room for recordings that begin
                 examinations/ <stem>.examine             caches to be compared with their bases,
                               <stem>.examined            and when they were

``<stem>`` is :attr:`nova_qcache.model.key.CacheKey.stem`.
"""

import dataclasses
import errno
import grp
import os
import pathlib
import shutil
import stat

from oslo_config import cfg

from nova_qcache import exception
from nova_qcache.model.key import CacheKey

__all__ = ['Paths']

_MAKE_IT = 'Make it, and give it to the user that nova-compute runs as'
_SOCKET_PATH_BYTES = 107  # sun_path of unix(7), less the NUL


@dataclasses.dataclass(frozen=True)
class Paths:
    cache_path: pathlib.Path
    run_path: pathlib.Path
    qemu_group: str = ''

    @classmethod
    def from_conf(cls, conf: cfg.ConfigOpts) -> 'Paths':
        group = conf.qcache
        return cls(pathlib.Path(group.cache_path), pathlib.Path(group.run_path), group.qemu_group)

    @property
    def guests(self) -> pathlib.Path:
        return self.run_path / 'guests'

    @property
    def control(self) -> pathlib.Path:
        return self.run_path / 'control'

    @property
    def leases(self) -> pathlib.Path:
        return self.run_path / 'leases'

    @property
    def revalidations(self) -> pathlib.Path:
        return self.run_path / 'examinations'

    @property
    def reservations(self) -> pathlib.Path:
        return self.run_path / 'reservations'

    @property
    def statistics(self) -> pathlib.Path:
        return self.cache_path / 'statistics'

    @property
    def pins(self) -> pathlib.Path:
        return self.cache_path / 'pins'

    @property
    def locks(self) -> pathlib.Path:
        return self.cache_path / 'locks'

    @property
    def generations(self) -> pathlib.Path:
        return self.cache_path / 'generations'

    def record(self, key: CacheKey) -> pathlib.Path:
        return self.cache_path / f'{key.stem}.json'

    def recording(self, key: CacheKey) -> pathlib.Path:
        return self.cache_path / f'{key.stem}.recording'

    def sealed(self, key: CacheKey) -> pathlib.Path:
        return self.cache_path / f'{key.stem}.qcow2'

    def nbd_socket(self, key: CacheKey) -> pathlib.Path:
        return self.guests / f'{key.stem}.nbd'

    def qmp_socket(self, key: CacheKey) -> pathlib.Path:
        return self.control / f'{key.stem}.qmp'

    def control_socket(self, key: CacheKey) -> pathlib.Path:
        return self.control / f'{key.stem}.ctl'

    def log(self, key: CacheKey) -> pathlib.Path:
        return self.control / f'{key.stem}.log'

    def draft(self, key: CacheKey) -> pathlib.Path:
        return self.control / f'{key.stem}.draft'

    def respawn_spec(self, key: CacheKey) -> pathlib.Path:
        return self.control / f'{key.stem}.duty'

    @property
    def keeper_log(self) -> pathlib.Path:
        return self.control / 'keeper.log'

    def require_short_sockets(self, key: CacheKey) -> None:
        """:raises SocketPathTooLong: if the kernel would refuse a socket of this cache"""
        for path in (self.nbd_socket(key), self.qmp_socket(key), self.control_socket(key)):
            length = len(os.fsencode(path))
            if length > _SOCKET_PATH_BYTES:
                raise exception.SocketPathTooLong(path=str(path), length=length)

    def prepare(self, *, make: bool = True) -> None:
        """Make the folders that are not there yet, each with the least rights that do.

        :param make: False: look at those that are there, and change nothing
        :raises FolderUnfit: if one cannot be made or written to, or its name belongs to something
            else
        """
        # qemu's user must pass through the two folders on its way to a cache or a socket, and may
        # list neither.
        for path, mode in (
            (self.cache_path, 0o711),
            (self.locks, 0o700),
            (self.generations, 0o700),
            (self.statistics, 0o700),
            (self.pins, 0o700),
            (self.run_path, 0o711),
            (self.guests, 0o750),
            (self.control, 0o700),
            (self.leases, 0o700),
            (self.reservations, 0o700),
            (self.revalidations, 0o700),
        ):
            self._prepare_one(path, mode, make=make)

    def missing(self) -> list[str]:
        """Return the missing folders, without those inside another missing one of ours.

        :raises FolderUnfit: if this user could not make one of them, or none but root could
        """
        found = []
        for path in (self.cache_path, self.run_path):
            if os.path.lexists(path):
                continue
            why = None
            if not path.parent.is_dir() or not os.access(path.parent, os.W_OK | os.X_OK):
                why = f'user {os.geteuid()} cannot make it'
            elif os.geteuid() == 0 and _is_closed_to_others(path.parent):
                why = 'only root can make it'  # nova-compute is somebody else
            if why is not None:
                raise exception.FolderUnfit(
                    path=str(path), reason=f'it is not there, and {why}', remedy=_MAKE_IT
                )
            found.append(str(path))
        return found

    def require(self) -> None:
        """Look whether the folders are still there, in microseconds. They are not made again: an
        empty mount point is no place for caches.

        :raises FolderUnfit: if one has vanished or is closed to this user
        """
        for path in (self.cache_path, self.locks, self.guests, self.control, self.leases):
            if not os.access(path, os.W_OK | os.X_OK):
                raise exception.FolderUnfit(
                    path=str(path),
                    reason='it has vanished, or this user may not write there any more',
                    remedy='Bring it back; if it is lost, restart nova-compute, which makes it',
                )

    def share(self, path: pathlib.Path) -> None:
        """Give a socket, cache or folder to the group that qemu runs in.

        :raises FolderUnfit: if there is no such group or this user is not in it
        """
        if not self.qemu_group or self._is_shared(path):
            return
        try:
            shutil.chown(path, group=self.qemu_group)
        except (LookupError, PermissionError) as e:
            raise exception.FolderUnfit(
                path=str(path),
                reason=f'it cannot be given to the group {self.qemu_group!r} ({e})',
                remedy='Set [qcache] qemu_group to a group that exists and that this user is in',
            ) from e

    def _is_shared(self, path: pathlib.Path) -> bool:
        try:
            return grp.getgrnam(self.qemu_group).gr_gid == path.stat().st_gid
        except (KeyError, OSError):
            return False

    def _prepare_one(self, path: pathlib.Path, mode: int, *, make: bool) -> None:
        if not make and not os.path.lexists(path):
            return
        try:
            try:
                path.mkdir(mode=mode)
                path.chmod(mode)  # whatever the umask is
            except FileExistsError:
                if not path.is_dir():
                    raise exception.FolderUnfit(
                        path=str(path),
                        reason='it is not a folder',
                        remedy='Move it away or name another folder',
                    ) from None
            if os.statvfs(path).f_flag & os.ST_RDONLY:
                raise OSError(errno.EROFS, 'its file system is read-only')
            if path == self.guests and make:
                self.share(path)
            if not os.access(path, os.W_OK | os.X_OK):
                owner = path.stat().st_uid
                raise exception.FolderUnfit(
                    path=str(path),
                    reason=f'it belongs to user {owner}, and user {os.geteuid()} may not write '
                    'there',
                    remedy='Give it to the user that nova-compute runs as, or act as that user',
                )
        except OSError as e:
            remedy = _MAKE_IT
            if e.errno == errno.EROFS:
                remedy = 'Mount it for writing, or name another folder'
            raise exception.FolderUnfit(
                path=str(path), reason=e.strerror or str(e), remedy=remedy
            ) from e


def _is_closed_to_others(folder: pathlib.Path) -> bool:
    """Return whether nobody but root may write to a folder of root's."""
    found = folder.stat()
    return found.st_uid == 0 and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
