# SPDX-License-Identifier: Apache-2.0
"""What every benchmark needs: folders that are cleaned up, a configured manager, disks.

All of it lives in two temporary folders with random names, and ends with :func:`folders`: every
process that names one of them on its command line is ended, also after an error or a signal.
"""

from collections.abc import Iterator, Sequence
import contextlib
import os
import pathlib
import random
import select
import shutil
import signal
import tempfile
import uuid

from oslo_config import cfg
from oslo_log import log

from nova_qcache import conf as qcache_conf
from nova_qcache.engine.manager import Manager
from nova_qcache.model.key import CacheKey
from nova_qcache.model.plan import Plan
from nova_qcache.system import control
from nova_qcache.system.paths import Paths

MIB = 1 << 20
GIB = 1 << 30
Extent = tuple[int, int]
"""Offset and length in bytes."""


class BenchError(Exception):
    """Something that a benchmark relies on did not happen."""


class Folders:
    def __init__(self, data: pathlib.Path, sockets: pathlib.Path) -> None:
        self.data = data
        self.sockets = sockets
        """Its path is short."""


@contextlib.contextmanager
def folders(where: pathlib.Path | None = None) -> Iterator[Folders]:
    """Two new folders; what was started with a name in them on its command line is ended.

    :param where: parent of the folder of disks and caches; its file system is what is measured
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupted)
    with contextlib.ExitStack() as undo:
        data = pathlib.Path(tempfile.mkdtemp(prefix='qcache-bench-', dir=where)).resolve()
        undo.callback(shutil.rmtree, data, ignore_errors=True)
        sockets = pathlib.Path(tempfile.mkdtemp(prefix='qcb-', dir='/tmp')).resolve()
        undo.callback(shutil.rmtree, sockets, ignore_errors=True)
        undo.callback(end_processes, data, sockets)
        yield Folders(data, sockets)


def _interrupted(number: int, frame: object) -> None:
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)  # the first one is enough
    raise KeyboardInterrupt


def end_processes(*named: pathlib.Path) -> None:
    """Kill the processes that have one of these folders on their command line.

    Recorders come before the daemons that they would start again, hence the second round.
    """
    for _ in range(3):
        for entry in pathlib.Path('/proc').iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            with contextlib.suppress(OSError):
                handle = os.pidfd_open(int(entry.name))
                try:
                    line = (entry / 'cmdline').read_bytes()
                    if any(os.fsencode(folder) in line for folder in named):
                        signal.pidfd_send_signal(handle, signal.SIGKILL)
                        select.select([handle], [], [], 10)
                finally:
                    os.close(handle)


class Site:
    """A host's configuration of nova-qcache and its manager.

    :param options: of the group [qcache]
    """

    def __init__(self, where: Folders, name: str, **options: object) -> None:
        self.cache_path = pathlib.Path(
            str(options.pop('cache_path', where.data / f'{name}-cache'))
        )
        self.run_path = where.sockets / name
        values = {
            'cache_path': self.cache_path,
            'run_path': self.run_path,
            'guest_grace_seconds': 2,  # so that recorders end soon
            'libvirt_uri': '',  # guests here are not libvirt's
            'start_keeper': False,  # nothing is killed here
            'audit_every': 0,  # each plan is to be what the figure says
            **options,
        }
        file = where.data / f'{name}.conf'
        file.write_text('\n'.join(['[qcache]', *(f'{k} = {v}' for k, v in values.items()), '']))
        self.conf = cfg.ConfigOpts()
        log.register_options(self.conf)
        qcache_conf.register_opts(self.conf)
        qcache_conf.register_nova_opts(self.conf)
        self.conf([f'--config-file={file}'], project='nova', prog='bench', default_config_dirs=[])
        self.manager = Manager(self.conf)

    @property
    def paths(self) -> Paths:
        return self.manager.paths

    def key(self, plan: Plan) -> CacheKey:
        assert plan.generation is not None
        return CacheKey(plan.image_id, plan.generation)

    def client(self, plan: Plan) -> control.RecorderClient:
        return control.RecorderClient(self.paths.control_socket(self.key(plan)))

    def sealed(self, plan: Plan) -> pathlib.Path:
        return self.paths.sealed(self.key(plan))


def image_id() -> str:
    return str(uuid.uuid4())


def processor_seconds(pid: int) -> float:
    """What the threads of a process have used so far, and its children that have ended."""
    process = pathlib.Path(f'/proc/{pid}')
    threads = sum(
        int((task / 'schedstat').read_text().split()[0]) for task in (process / 'task').iterdir()
    )
    children = (process / 'stat').read_text().rpartition(')')[2].split()[13:15]
    return threads / 1e9 + sum(map(int, children)) / os.sysconf('SC_CLK_TCK')


# -- disks


def make_disk(path: pathlib.Path, size: int, extents: Sequence[Extent], seed: int = 1) -> None:
    """Make a sparse raw disk with data that no other place repeats in some extents."""
    source = random.Random(seed)
    with path.open('wb') as file:
        file.truncate(size)
        for offset, length in extents:
            file.seek(offset)
            for start in range(0, length, MIB):
                file.write(source.randbytes(min(MIB, length - start)))
        file.flush()
        os.fsync(file.fileno())


def warm(path: pathlib.Path, extents: Sequence[Extent] | None = None) -> None:
    """Read a file, or these extents of it, so that the page cache has them."""
    with path.open('rb', buffering=0) as file:
        for offset, length in extents or [(0, path.stat().st_size)]:
            for start in range(offset, offset + length, MIB):
                os.pread(file.fileno(), min(MIB, offset + length - start), start)
