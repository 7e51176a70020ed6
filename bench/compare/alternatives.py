# SPDX-License-Identifier: Apache-2.0
"""What a user could choose, each as what the first and the second guest of an image stand on."""

from collections.abc import Callable, Iterator
import contextlib
import os
import pathlib
import subprocess

from bench import rig
from bench.compare import blocks
from bench.compare import memory_limit
from bench.compare.host import Host
from bench.compare.host import Node
from nova_qcache.model.plan import EXPORT_NAME

__all__ = ['ALTERNATIVES', 'Alternative', 'Qcache']

Guest = contextlib.AbstractContextManager[Node]
"""What a guest's qemu opens; it is made for the guest and goes with it."""


class Alternative:
    """Made anew on each host."""

    keeps = False
    """Whether the second guest of an image finds something of the first one's."""
    prepared_bytes = 0
    """What was written before the first guest could start."""

    def __init__(self, host: Host) -> None:
        self.host = host

    def prepare(self) -> None:
        """What has to be done before the first guest can start."""

    def guest(self) -> Guest:
        return self.host.overlay(self.below())

    def below(self) -> Node:
        """What an overlay stands on."""
        raise NotImplementedError

    def settle(self) -> None:
        """What happens by itself between two guests."""


class Plain(Alternative):
    def below(self) -> Node:
        return self.host.base_node()


class Raw(Alternative):
    def below(self) -> Node:
        return blocks.raw(self.host.local(self.host.image))


class Copy(Alternative):
    """Stock Nova: a download of all bytes, holes included, as Glance sends them."""

    keeps = True

    def prepare(self) -> None:
        copy = self._copy()
        command = ['nbdcopy', '--no-extents', '--allocated', '--connections=1', '--flush']
        command += [self.host.base_reference(), str(copy)]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL, timeout=1200)
        self.prepared_bytes = self._copy().stat().st_size

    def below(self) -> Node:
        return blocks.raw(self.host.local(self._copy()))

    def _copy(self) -> pathlib.Path:
        return self.host.folder / 'image'


class CopyOnRead(Alternative):
    """``copy_on_read=on`` of each guest's disk."""

    @contextlib.contextmanager
    def guest(self) -> Iterator[Node]:
        with self.host.overlay(self.host.base_node()) as overlay:
            yield {'driver': 'copy-on-read', 'file': overlay}


class NbdkitCache(Alternative):
    """One nbdkit on the host, which keeps what was read in a file without a name."""

    keeps = True

    def prepare(self) -> None:
        socket = self.host.sockets / 'cache'
        command = ['nbdkit', '-f', '-r', '-U', socket]
        process = self.host.start(
            [*command, '--filter=cache', 'nbd', self.host.base_reference(), 'cache-on-read=true'],
            TMPDIR=str(self.host.folder),
        )
        self.host.wait_for(socket, process)

    def below(self) -> Node:
        return blocks.nbd(self.host.sockets / 'cache', '')


class Stream(Alternative):
    """``block-stream`` into the overlay from the start of the guest on.

    The job needs a process that can be asked for it: the guest stands on its export, which costs
    it some microseconds a read.
    """

    @contextlib.contextmanager
    def guest(self) -> Iterator[Node]:
        with self.host.overlay(self.host.base_node()) as overlay:
            name = f'stream-{os.urandom(4).hex()}'
            with blocks.exported(self.host, overlay, name, writable=True) as monitor:
                monitor.execute('block-stream', {'job-id': 'stream', 'device': 'top'})
                yield blocks.nbd(self.host.sockets / name, 'top')


class PageCache(Alternative):
    """A base that is a file of a network file system, read with ``cache=writeback``.

    The page cache keeps what was read. The file system is FUSE's: nbdfuse, and bindfs, which keeps
    pages.
    """

    keeps = True
    limit: int | None = None

    def prepare(self) -> None:
        if self.limit is not None:
            group = memory_limit.group(self.limit)
            self.host.prefix = group.prefix
            self.host.at_end(group.remove)
        mount = blocks.mounted(self.host, self.host.base_reference(), keep=True)
        self._file = mount

    def below(self) -> Node:
        return blocks.raw(
            {'driver': 'file', 'filename': str(self._file), 'cache': {'direct': False}}
        )


class PageCacheShort(PageCache):
    """The same, where the guest and the file system may keep less than a boot reads."""

    limit = 48 * rig.MIB


class Qcache(Alternative):
    """This project: the first guest records, the second one plays."""

    keeps = True

    def __init__(self, host: Host, base: str = '', **options: object) -> None:
        """:param base: where the recorder reads instead, if not of the host's base
        :param options: of the group [qcache]
        """
        super().__init__(host)
        self._base = base or host.base_reference()
        self._options = {'quota': 256, **options}

    def prepare(self) -> None:
        name = f's{os.urandom(3).hex()}'
        self.site = rig.Site(
            rig.Folders(self.host.folder, self.host.sockets),
            name,
            **self._options,
        )
        self.plan = self.site.manager.boots.record(rig.image_id(), self._base, 'raw')
        self.is_sealed = False

    def below(self) -> Node:
        if not self.is_sealed:
            return blocks.nbd(self.plan.socket, EXPORT_NAME)
        return blocks.chain(self.host.local(self.cache))

    @property
    def cache(self) -> pathlib.Path:
        return self.site.sealed(self.plan)

    def settle(self) -> None:
        self.site.manager.seal(self.plan.image_id, wait_seconds=120)
        self.is_sealed = True


ALTERNATIVES: dict[str, Callable[[Host], Alternative]] = {
    'copy': Copy,
    'plain': Plain,
    'copy-on-read': CopyOnRead,
    'nbdkit-cache': NbdkitCache,
    'stream': Stream,
    'record': Qcache,
    'raw': Raw,
    'page-cache': PageCache,
    'page-cache-short': PageCacheShort,
}
"""``record`` is the one whose second guest is called ``play``."""
