# SPDX-License-Identifier: Apache-2.0
"""The block graph of a recorder's daemon, as data: pure functions, no daemon needed.

While it records::

    top     (raw, read-only)                        what guests see
     either (quorum, first answer wins, read-only)  a failed write to the cache is answered by
     base2
       mute   (blkdebug)                            fails each question for zeros, and no read
        cor   (copy-on-read)
         cache (qcow2)  --backing-->  base
          cfile
       base2                                        nodes of its own on the same base

The NBD server asks before each read which parts of it are zeros, and does not read those: they
would never be recorded, and each later boot would fetch them from the base. And each question goes
down to the base, over the network, before the read does. A quorum whose first child cannot say
asks no other one, and calls everything data.

After the seal the same with mute2 and either2 over cache, all of it read-only and nothing copied.
After an audit whose copy is given up the same, with old-mute and old-either over the cache that it
is a copy of, which is old. Without a cache: mute over base.

A quorum says when its second child cannot be read: then the base says that it cannot. The NBD
server would answer such a read by cutting the client off, and one that waits for its server would
come back and ask for the same without end. Where it is a question for zeros that fails, the server
answers with an error instead. So there is one more node below top, for the sectors in question::

    top
     refusing (blkdebug)                            fails each question about these sectors
      either
"""

from collections.abc import Collection
import errno
import json
import pathlib
from typing import Any

from nova_qcache.model import plan
from nova_qcache.model.source import Node
from nova_qcache.model.source import Source

__all__ = [
    'CACHE_FILE_NODE',
    'DRIVERS',
    'EXPORT',
    'RECORDING_NODE',
    'SECOND_BASE',
    'TOP',
    'is_refusing',
    'plain',
    'playing',
    'recording',
    'refusing',
    'replacing',
    'sealing',
    'served',
    'writing_tables',
]

TOP = 'top'
CACHE_FILE_NODE = 'cfile'
RECORDING_NODE = 'cor'
"""The node that exists exactly as long as a daemon records."""
SECOND_BASE = 'base2'
"""Read only when all else has failed."""
_SERVED = ('old-either', 'either2', 'either')
"""The nodes that guests read through, the first one that exists."""
_REFUSING = ('refusing', 'refusing2')
"""Used in turn: each takes the place of the other."""

DRIVERS = {
    'qcow2': 'every cache',
    'raw': 'every base',
    'file': 'every cache',
    'copy-on-read': 'recording',
    'quorum': 'serving without questions for zeros, and recording without risk for guests',
    'blkdebug': 'serving without questions for zeros',
    'blkverify': 'comparing a cache with its base',
}

_LONGEST_READ = 1024 * 1024
"""Longer reads come in pieces: of one that is too long for the rest of a quota as a whole, nothing
would be kept."""

EXPORT: dict[str, Any] = {
    'type': 'nbd',
    'id': 'guests',
    'node-name': TOP,
    'name': plan.EXPORT_NAME,
}
"""The export that guests connect to."""

Command = tuple[str, dict[str, Any]]
"""A QMP command and its arguments."""


def _top(child: str) -> Node:
    return {'driver': 'raw', 'node-name': TOP, 'read-only': True, 'file': child}


def _cache(
    path: pathlib.Path, *, read_only: bool, names: tuple[str, str] = (CACHE_FILE_NODE, 'cache')
) -> list[Node]:
    # The cache file goes through the page cache: it is small, written once and read by every later
    # boot. qcow2 would flush it for each table that it writes, to be consistent after a crash; but
    # a recording whose host crashed is never used, and what becomes READY is synced first.
    cache_file: Node = {
        'driver': 'file',
        'node-name': names[0],
        'filename': str(path),
        'read-only': read_only,
    }
    if not read_only:
        cache_file['cache'] = {'no-flush': True}
    return [
        cache_file,
        {
            'driver': 'qcow2',
            'node-name': names[1],
            'read-only': read_only,
            'file': names[0],
            'backing': 'base',
        },
    ]


def _without_questions(child: str, names: tuple[str, str] = ('mute', 'either')) -> list[Node]:
    """Serve a node, and the base where that fails, and ask neither of them for zeros."""
    mute: Node = {
        'driver': 'blkdebug',
        'node-name': names[0],
        'read-only': True,
        'image': child,
        'max-transfer': _LONGEST_READ,
        'inject-error': [{'event': 'none', 'iotype': 'block-status', 'errno': errno.EIO}],
    }
    either: Node = {
        'driver': 'quorum',
        'node-name': names[1],
        'read-only': True,
        'vote-threshold': 1,
        'read-pattern': 'fifo',
        'children': [names[0], SECOND_BASE],
    }
    return [mute, either, _top(names[1])]


def recording(source: Source, path: pathlib.Path) -> list[Node]:
    """Nodes of a recording into ``path``, in the order in which they are added."""
    return [
        *source.nodes('base'),
        *source.nodes(SECOND_BASE),
        *_cache(path, read_only=False),
        {'driver': 'copy-on-read', 'node-name': RECORDING_NODE, 'file': 'cache'},
        *_without_questions(RECORDING_NODE),
    ]


def sealing(path: pathlib.Path) -> list[Command]:
    """Commands that turn a recording into read-only playback under its connected guests. A node
    that is there already is not to be added, and one that has gone not to be deleted."""
    # qemu 7.2 aborts if a node that two branches of the quorum share is reopened: they share none.
    cache_file, cache = _cache(path, read_only=True)
    *added, top = _sealed()
    return [
        *_adding(added),
        ('blockdev-reopen', {'options': [top]}),
        *_removing(*_REFUSING, 'either', 'mute', RECORDING_NODE),
        ('blockdev-reopen', {'options': [cache, cache_file]}),
    ]


def replacing(path: pathlib.Path) -> list[Command]:
    """Commands that put the sealed cache at ``path`` in the place of a recording under its
    connected guests, also where its seal was interrupted; otherwise as :func:`sealing`. Nothing
    has the file of the recording open afterwards."""
    *added, top = [
        *_cache(path, read_only=True, names=('old-file', 'old')),
        *_without_questions('old', ('old-mute', 'old-either')),
    ]
    return [
        *_adding(added),
        ('blockdev-reopen', {'options': [top]}),
        *_removing(*_REFUSING, 'either2', 'mute2', 'either', 'mute', RECORDING_NODE),
        *_removing('cache', CACHE_FILE_NODE),
    ]


def refusing(nodes: Collection[str], sectors: Collection[int]) -> list[Command]:
    """Commands that let reads of these sectors (of 512 bytes) fail, and no others, under connected
    guests.

    :param nodes: the names of those that are there
    """
    served = next((name for name in _SERVED if name in nodes), None)
    old = [name for name in _REFUSING if name in nodes]
    if served is None or not (sectors or old):
        return []
    cleared: list[Command] = []
    if not sectors or len(old) == len(_REFUSING):  # one may have stayed when it was replaced
        cleared = [('blockdev-reopen', {'options': [_top(served)]}), *_removing(*old)]
        old = []
    if not sectors:
        return cleared
    new = next(name for name in _REFUSING if name not in old)
    node: Node = {
        'driver': 'blkdebug',
        'node-name': new,
        'read-only': True,
        'image': served,
        'inject-error': [
            {'event': 'none', 'iotype': 'block-status', 'errno': errno.EIO, 'sector': sector}
            for sector in sorted(sectors)
        ],
    }
    return [
        *cleared,
        ('blockdev-add', node),
        ('blockdev-reopen', {'options': [_top(new)]}),
        *_removing(*old),
    ]


def writing_tables(nodes: Collection[str]) -> list[Command]:
    """Commands that write to the file of a recording what qcow2 has of its tables in memory, under
    connected guests. None where nothing is recorded.

    :param nodes: the names of those that are there
    """
    # It keeps its options, and its file: qemu flushes each node that it reopens.
    _, cache = _cache(pathlib.Path(), read_only=False)
    return [('blockdev-reopen', {'options': [cache]})] if RECORDING_NODE in nodes else []


def is_refusing(nodes: Collection[str]) -> bool:
    """Return whether nodes of these names let reads fail."""
    return any(name in nodes for name in _REFUSING)


def _sealed() -> list[Node]:
    return _without_questions('cache', ('mute2', 'either2'))


def _adding(nodes: list[Node]) -> list[Command]:
    return [('blockdev-add', node) for node in nodes]


def _removing(*names: str) -> list[Command]:
    return [('blockdev-del', {'node-name': name}) for name in names]


def playing(source: Source, path: pathlib.Path) -> list[Node]:
    """Nodes that serve a sealed cache."""
    bases = [*source.nodes('base'), *source.nodes(SECOND_BASE)]
    return [*bases, *_cache(path, read_only=True), *_sealed()]


def plain(source: Source) -> list[Node]:
    """Nodes that serve the base alone."""
    return [*source.nodes('base'), *source.nodes(SECOND_BASE), *_without_questions('base')]


def served(nodes: list[Node], socket: pathlib.Path) -> list[str]:
    """Options of a daemon that serves these nodes on a unix socket from its start."""
    options = []
    for node in nodes:
        options += ['--blockdev', json.dumps(node)]
    server = {'addr': {'type': 'unix', 'path': str(socket)}, 'max-connections': 0}
    return [*options, '--nbd-server', json.dumps(server), '--export', json.dumps(EXPORT)]
