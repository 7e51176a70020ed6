# SPDX-License-Identifier: Apache-2.0
"""Where a cache lies: on the host's disk, in its memory, on a slow mount (section ``place``).

One recording, copied to each place; a local raw file is measured beside it. In a round the order
is a random one. All are opened with O_DIRECT, as Nova does by default, so that the page cache has
no part in it. tmpfs has O_DIRECT since Linux 6.6; before that it is opened without, and is in
memory all the same.

The slow mount is a file system of FUSE, in front of a server of its own: 200 Mbit/s, and 2 ms for
each request.
"""

from collections.abc import Callable
import pathlib
import shutil
import subprocess

from bench.compare import blocks
from bench.compare.alternatives import Qcache
from bench.compare.alternatives import Raw
from bench.compare.host import Host
from bench.compare.host import local_file
from bench.compare.host import Node
from bench.compare.replay import Cell
from bench.compare.replay import replayed
from bench.compare.scene import Scene
from bench.compare.trace import Trace
from nova_qcache.system import files

__all__ = ['measure']

_RATE = '1G'
_SLOW_RATE = '200M'
_SLOW_DELAY = '2ms'


def measure(scene: Scene, trace: Trace, rounds: int) -> None:
    with scene.base(_RATE) as base, scene.host(base) as host:
        scene.say('a recording for several places')
        recorder = Qcache(host)
        recorder.prepare()
        with recorder.guest() as node:
            replayed(host, node, trace, base)
        recorder.settle()
        below: dict[str, Node] = {
            f'play, {name}': blocks.chain(_opened(place(host, recorder.cache)))
            for name, place in _PLACES.items()
        }
        below['raw'] = Raw(host).below()
        for number in range(rounds):
            order = list(below)
            scene.chance.shuffle(order)
            for name in order:
                scene.say(f'place, round {number}: {name}')
                with host.overlay(below[name]) as node:
                    found = replayed(host, node, trace, base)
                guest = 'first' if name == 'raw' else 'second'
                # All places are on one host: what its files take says nothing of one of them.
                found |= {'guest': guest, 'disk_bytes': None}
                scene.collect(Cell('place', _RATE).sample(name, **found))


def _opened(file: pathlib.Path) -> Node:
    return local_file(file, direct=files.supports_direct_io(file))


def _on_disk(host: Host, cache: pathlib.Path) -> pathlib.Path:
    copy = pathlib.Path(shutil.copy(cache, host.folder / 'on-disk'))
    files.sync_file(copy)  # what is still to be written is in no one's way
    return copy


def _in_memory(host: Host, cache: pathlib.Path) -> pathlib.Path:
    folder = host.folder / 'tmpfs'
    folder.mkdir()
    _run('mount', '-t', 'tmpfs', '-o', 'size=1g,mode=700', 'qcache-bench', folder)
    # Lazily: whoever has it open is ended right after.
    host.at_end(_run, 'umount', '--lazy', folder)
    return pathlib.Path(shutil.copy(cache, folder / 'cache'))


def _slow(host: Host, cache: pathlib.Path) -> pathlib.Path:
    socket = host.sockets / 'slow'
    copy = shutil.copy(cache, host.folder / 'behind-slow')
    command = ['nbdkit', '-f', '-r', '-U', socket, '--filter=rate', '--filter=delay', 'file', copy]
    process = host.start([*command, f'rate={_SLOW_RATE}', f'rdelay={_SLOW_DELAY}'])
    host.wait_for(socket, process)
    return blocks.mounted(host, f'nbd+unix:///?socket={socket}', keep=False)


_PLACES: dict[str, Callable[[Host, pathlib.Path], pathlib.Path]] = {
    'disk': _on_disk,
    'tmpfs': _in_memory,
    'slow mount': _slow,
}


def _run(*command: object) -> None:
    words = list(map(str, command))
    subprocess.run(words, check=True, stdin=subprocess.DEVNULL, timeout=60)
