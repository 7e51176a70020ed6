# SPDX-License-Identifier: Apache-2.0
"""Block chains for a :class:`qemu_guest.Guest`: lists of ``-blockdev`` dictionaries, base first.

Each function returns a whole chain whose last node is its top.  The chains are explicit, as
libvirt gives them to qemu: what a qcow2 file's own metadata names as its backing file is not
looked at.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ['nbd_socket', 'overlay', 'raw_file', 'sealed_cache']

Chain = list[dict[str, Any]]


def raw_file(path: str | Path, node: str = 'base') -> Chain:
    """Return a raw, read-only file."""
    return [
        {
            'driver': 'file',
            'node-name': f'{node}-file',
            'filename': str(path),
            'read-only': True,
        },
        {'driver': 'raw', 'node-name': node, 'file': f'{node}-file', 'read-only': True},
    ]


def nbd_socket(
    path: str | Path, node: str = 'base', export: str = '', reconnect_s: int = 0
) -> Chain:
    """Return a raw, read-only NBD export on a unix socket.

    :param reconnect_s: how long, in seconds, reads wait for a server that has gone away.
    """
    protocol: dict[str, Any] = {
        'driver': 'nbd',
        'node-name': f'{node}-nbd',
        'server': {'type': 'unix', 'path': str(path)},
        'export': export,
        'read-only': True,
    }
    if reconnect_s:
        protocol['reconnect-delay'] = reconnect_s
    return [
        protocol,
        {'driver': 'raw', 'node-name': node, 'file': f'{node}-nbd', 'read-only': True},
    ]


def sealed_cache(
    path: str | Path, base: Sequence[Mapping[str, Any]], node: str = 'cache'
) -> Chain:
    """Return a read-only qcow2 cache on the chain `base`."""
    return _qcow2(path, base, node, {'read-only': True})


def overlay(path: str | Path, base: Sequence[Mapping[str, Any]], node: str = 'overlay') -> Chain:
    """Return a guest's writable qcow2 overlay on the chain `base`."""
    return _qcow2(path, base, node, {})


def _qcow2(
    path: str | Path, base: Sequence[Mapping[str, Any]], node: str, more: Mapping[str, Any]
) -> Chain:
    return [
        *(dict(item) for item in base),
        {'driver': 'file', 'node-name': f'{node}-file', 'filename': str(path), **more},
        {
            'driver': 'qcow2',
            'node-name': node,
            'file': f'{node}-file',
            'backing': base[-1]['node-name'],
            **more,
        },
    ]
