# SPDX-License-Identifier: Apache-2.0
"""Settings whose default was to be found, each candidate measured (section ``choice``).

``record`` and ``play`` of what the product makes itself are measured with the product; what it has
no option for, with a daemon that has the product's own block graph and one thing changed.
"""

from collections.abc import Callable, Iterator, Mapping
import contextlib
import json
import pathlib
import subprocess
from typing import Any

from bench import rig
from bench.compare import blocks
from bench.compare.alternatives import Qcache
from bench.compare.host import Host
from bench.compare.host import local_file
from bench.compare.host import Node
from bench.compare.replay import replayed
from bench.compare.sample import Sample
from bench.compare.scene import Scene
from bench.compare.trace import Read
from bench.compare.trace import Trace
from nova_qcache.cache import plugins
from nova_qcache.qemu import block_graph
from nova_qcache.system import files

__all__ = ['measure']

_QUOTA = 255 * rig.MIB
_LAYOUTS = {
    '4 KiB': (4096, False),
    '16 KiB extended': (16384, True),
    '64 KiB': (65536, False),
    '128 KiB extended': (131072, True),
}
_MODES: dict[str, dict[str, Any]] = {
    'none, threads': {'cache': {'direct': True}, 'aio': 'threads'},
    'none, native': {'cache': {'direct': True}, 'aio': 'native'},
    'none, io_uring': {'cache': {'direct': True}, 'aio': 'io_uring'},
    'writeback, threads': {'cache': {'direct': False}, 'aio': 'threads'},
    'writeback, io_uring': {'cache': {'direct': False}, 'aio': 'io_uring'},
}
_DAEMONS: dict[str, dict[str, Any]] = {
    'as it is': {},
    'io_uring': {'file': {'aio': 'io_uring'}},
    'O_DIRECT, native': {'file': {'cache': {'direct': True, 'no-flush': True}, 'aio': 'native'}},
    'O_DIRECT, io_uring': {
        'file': {'cache': {'direct': True, 'no-flush': True}, 'aio': 'io_uring'}
    },
    'an iothread': {'iothread': True},
    'not reserved': {'reserved': False},
    'flushed': {'file': {'cache': {'no-flush': False}}},
    'the base alone': {'records': False},
}
_ROUNDED = {'as read': 0, '64 KiB': 64 << 10, '256 KiB': 256 << 10, '1 MiB': 1 << 20}


def measure(scene: Scene, rounds: int) -> None:
    _in_rounds(scene, 'cluster size', rounds, _LAYOUTS, _layout)
    _in_rounds(scene, 'recorder', rounds, _DAEMONS, _daemon)
    _modes(scene, rounds)
    _in_rounds(scene, 'read-ahead', rounds, {'none': False, 'nbdkit readahead': True}, _ahead)
    _in_rounds(scene, 'recorded boots', 1, {'plain': 0, 'one': 1, 'two': 2}, _union)
    _in_rounds(scene, 'whole extents', 1, _ROUNDED, _rounded)


_Measured = Callable[[Scene, Host, Any], Iterator[dict[str, Any]]]
"""Yields the fields of samples of a candidate, on a host of its own."""


def _in_rounds(
    scene: Scene, group: str, rounds: int, candidates: Mapping[str, Any], one: _Measured
) -> None:
    delay_ms = 20 if one is _ahead else 0
    rate = '1G' if one is _ahead else 'unlimited'
    with scene.base(rate, delay_ms) as base:
        for number in range(rounds):
            names = list(candidates)
            scene.chance.shuffle(names)
            scene.say(f'{group}, round {number}: {", ".join(names)}')
            for name in names:
                with scene.host(base) as host:
                    for found in one(scene, host, candidates[name]):
                        found = {'guest': 'first', 'rate': rate, **found}
                        sample = Sample('choice', name, group=group, delay_ms=delay_ms, **found)
                        scene.collect(sample)


def _play(host: Host, recorder: Qcache, trace: Trace) -> dict[str, Any]:
    with recorder.guest() as node:
        found = replayed(host, node, trace, host.base)
    return {**found, 'guest': 'second', 'disk_bytes': recorder.cache.stat().st_blocks * 512}


def _recorder(host: Host, **options: Any) -> Qcache:
    recorder = Qcache(host, **options)
    recorder.prepare()
    return recorder


def _record(host: Host, recorder: Qcache, *traces: Trace) -> dict[str, Any]:
    """Replay boots one after the other, seal, and return what they took together."""
    total: dict[str, Any] = {}
    for trace in traces:
        with recorder.guest() as node:
            found = replayed(host, node, trace, host.base)
        total = {name: value + total.get(name, 0) for name, value in found.items()}
    recorder.settle()
    return {**total, 'disk_bytes': recorder.cache.stat().st_blocks * 512}


# -- the candidates


def _layout(scene: Scene, host: Host, layout: tuple[int, bool]) -> Iterator[dict[str, Any]]:
    size, extended = layout
    recorder = _recorder(host, cluster_size=size, extended_l2=extended)
    yield _record(host, recorder, scene.trace)
    yield _play(host, recorder, scene.trace)


def _union(scene: Scene, host: Host, boots: int) -> Iterator[dict[str, Any]]:
    """How much a boot misses that is none of those which were recorded."""
    if not boots:
        with host.overlay(host.base_node()) as node:
            yield {**replayed(host, node, scene.third, host.base), 'guest': 'second'}
        return
    recorder = _recorder(host)
    _record(host, recorder, *[scene.trace, scene.other][:boots])
    yield _play(host, recorder, scene.third)


def _rounded(scene: Scene, host: Host, size: int) -> Iterator[dict[str, Any]]:
    recorder = _recorder(host)
    boots = [scene.trace, *([_whole(scene.trace, size, host)] if size else [])]
    yield _record(host, recorder, *boots)
    yield _play(host, recorder, scene.third)


def _whole(trace: Trace, size: int, host: Host) -> Trace:
    """Reads of all extents of that size that the trace touches, one after the other."""
    blocks = trace.blocks(size, host.image.stat().st_size)
    return Trace([Read(*block, turn) for turn, block in enumerate(blocks)])


def _ahead(scene: Scene, host: Host, ahead: bool) -> Iterator[dict[str, Any]]:
    """With a filter between the recorder and the base that fetches what comes next as well."""
    reads = scene.trace.thinned(24)
    if not ahead:
        recorder = _recorder(host)
    else:
        socket = host.sockets / 'ahead'
        command = ['nbdkit', '-f', '-r', '-U', socket, '--filter=readahead', '--filter=cache']
        process = host.start([*command, 'nbd', host.base_reference()], TMPDIR=str(host.folder))
        host.wait_for(socket, process)
        recorder = _recorder(host, base=f'nbd+unix:///?socket={socket}')
    yield _record(host, recorder, reads)


@contextlib.contextmanager
def _changed_daemon(host: Host, changed: Mapping[str, Any]) -> Iterator[Node]:
    """A daemon with the graph of a recorder's, with one thing changed."""
    size = host.image.stat().st_size
    path = host.folder / 'cache.qcow2'
    source = plugins.source(host.base_reference(), 'raw')
    options = 'cluster_size=16384,extended_l2=on,refcount_bits=1'
    command = ['qemu-img', 'create', '-q', '-u', '-f', 'qcow2', '-o', options, '-F', 'raw']
    command += ['-b', source.filename, str(path), str(size)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, timeout=60)
    if changed.get('reserved', True):
        files.reserve(path, _QUOTA)
    if changed.get('records', True):
        nodes = block_graph.recording(source, path)
    else:
        nodes = block_graph.plain(source)
    nodes = [
        {**node, **changed.get('file', {})}
        if node['node-name'] == block_graph.CACHE_FILE_NODE
        else node
        for node in nodes
    ]
    socket = host.sockets / 'daemon'
    words: list[object] = ['qemu-storage-daemon']
    export = f'type=nbd,id=top,node-name={block_graph.TOP},name=top'
    if changed.get('iothread'):
        words += ['--object', 'iothread,id=own']
        export += ',iothread=own'
    for node in nodes:
        words += ['--blockdev', json.dumps(node)]
    words += ['--nbd-server', f'addr.type=unix,addr.path={socket},max-connections=0']
    process = host.start([*words, '--export', export])
    host.wait_for(socket, process)
    try:
        yield blocks.nbd(socket, 'top')
    finally:
        process.kill()
        process.wait()


def _daemon(scene: Scene, host: Host, changed: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    with _changed_daemon(host, changed) as below, host.overlay(below) as node:
        yield replayed(host, node, scene.trace, host.base)


def _modes(scene: Scene, rounds: int) -> None:
    """What a guest opens its files with: none is Nova's default. All files are in the page cache
    where that counts."""
    with scene.base('unlimited') as base, scene.host(base) as host:
        recorder = _recorder(host)
        _record(host, recorder, scene.trace)
        rig.warm(host.image, scene.trace.extents())
        rig.warm(recorder.cache)
        for number in range(rounds):
            names = list(_MODES)
            scene.chance.shuffle(names)
            scene.say(f'cache mode, round {number}: {", ".join(names)}')
            for name in names:
                for kind, below in _opened(recorder.cache, host.image, _MODES[name]).items():
                    with host.overlay(below) as node:
                        found = replayed(host, node, scene.trace, base)
                    scene.collect(
                        Sample(
                            'choice',
                            f'{kind}: {name}',
                            group='cache mode',
                            guest='second',
                            **found,
                        )
                    )


def _opened(cache: pathlib.Path, image: pathlib.Path, mode: Mapping[str, Any]) -> dict[str, Node]:
    return {
        'play': blocks.chain({**local_file(cache), **mode}),
        'raw': blocks.raw({**local_file(image), **mode}),
    }
