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

After the seal: top - cache - base, all of it read-only. After an audit whose copy is given up the
same, with the cache that it is a copy of: top - old - base. Without a cache: top - either - mute -
base, where nobody is asked for zeros either.
"""

import errno
import json
import pathlib
from typing import Any

from nova_qcache import plan
from nova_qcache.source import Node
from nova_qcache.source import Source

__all__ = [
    'CACHE_FILE_NODE',
    'DRIVERS',
    'EXPORT',
    'RECORDING_NODE',
    'TOP',
    'plain',
    'playing',
    'recording',
    'replacing',
    'sealing',
    'served',
]

TOP = 'top'
CACHE_FILE_NODE = 'cfile'
RECORDING_NODE = 'cor'
"""It exists exactly as long as a daemon records."""

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
"""What guests connect to."""

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


def _without_questions(child: str, *others: str) -> list[Node]:
    """Serve a node, and others where it fails, and ask none of them for zeros."""
    mute: Node = {
        'driver': 'blkdebug',
        'node-name': 'mute',
        'read-only': True,
        'image': child,
        'max-transfer': _LONGEST_READ,
        'inject-error': [{'event': 'none', 'iotype': 'block-status', 'errno': errno.EIO}],
    }
    either: Node = {
        'driver': 'quorum',
        'node-name': 'either',
        'read-only': True,
        'vote-threshold': 1,
        'read-pattern': 'fifo',
        'children': ['mute', *others],
    }
    return [mute, either, _top('either')]


def recording(source: Source, path: pathlib.Path) -> list[Node]:
    """Nodes of a recording into ``path``, in the order in which they are added."""
    return [
        *source.nodes('base'),
        *source.nodes('base2'),
        *_cache(path, read_only=False),
        {'driver': 'copy-on-read', 'node-name': RECORDING_NODE, 'file': 'cache'},
        *_without_questions(RECORDING_NODE, 'base2'),
    ]


def sealing(source: Source, path: pathlib.Path) -> list[Command]:
    """Commands that turn a recording into read-only playback under its connected guests."""
    # qemu 7.2 aborts if a node that two branches of the quorum share is reopened: they share none.
    cache_file, cache = _cache(path, read_only=True)
    return [
        ('blockdev-reopen', {'options': [_top('cache')]}),
        *_removing(['either', 'mute', RECORDING_NODE], source.node_names('base2')),
        ('blockdev-reopen', {'options': [cache, cache_file]}),
    ]


def replacing(source: Source, path: pathlib.Path) -> list[Command]:
    """Commands that put the sealed cache at ``path`` in the place of a recording under its
    connected guests. Nothing has the file of the recording open afterwards."""
    old = _cache(path, read_only=True, names=('old-file', 'old'))
    cache = _cache(path, read_only=True)
    return [
        *(('blockdev-add', node) for node in old),
        ('blockdev-reopen', {'options': [_top('old')]}),
        *_removing(
            ['either', 'mute', RECORDING_NODE],
            [str(node['node-name']) for node in cache],
            source.node_names('base2'),
        ),
    ]


def _removing(first: list[str], *branches: list[str]) -> list[Command]:
    names = list(first)
    for branch in branches:
        names += reversed(branch)
    return [('blockdev-del', {'node-name': name}) for name in names]


def playing(source: Source, path: pathlib.Path) -> list[Node]:
    """Nodes that serve a sealed cache."""
    return [*source.nodes('base'), *_cache(path, read_only=True), _top('cache')]


def plain(source: Source) -> list[Node]:
    """Nodes that serve the base alone."""
    return [*source.nodes('base'), *_without_questions('base')]


def served(nodes: list[Node], socket: pathlib.Path) -> list[str]:
    """Options of a daemon that serves these nodes on a unix socket from its start."""
    options = []
    for node in nodes:
        options += ['--blockdev', json.dumps(node)]
    server = {'addr': {'type': 'unix', 'path': str(socket)}, 'max-connections': 0}
    return [*options, '--nbd-server', json.dumps(server), '--export', json.dumps(EXPORT)]
