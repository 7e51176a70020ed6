# SPDX-License-Identifier: Apache-2.0
"""READY is a promise: what says so is whole, sealed, and has the bytes of its base."""

import hashlib

from bench.faults.scene import Scene
from tests.functional import sealed

__all__ = ['broken_by', 'unsound']


def broken_by(scene: Scene) -> list[str]:
    """Return what is not true of a record that says READY; no boot need have asked for it."""
    record = scene.record()
    if record.get('state') != 'READY':
        return []
    files = list(scene.site.cache_path.glob('*.qcow2'))
    if len(files) != 1:
        return [f'a record says READY, and there are {len(files)} sealed files']
    digest = hashlib.sha256(files[0].read_bytes()).hexdigest()
    if record['sealed']['digest'] != f'sha256:{digest}':
        return ['a record says READY, and its file is not the one that was sealed']
    return []


def unsound(scene: Scene) -> list[str]:
    """Compare the cache that a boot is to play, whole, with its base."""
    shown = scene.site.show()
    base = scene.base
    node = None
    if base.server is None:
        node = base.nodes()[-1]['file']
    try:
        sealed.require_sound(scene.site, shown, base.reference, node, base.format)
    except AssertionError as e:
        return [f'the cache is not sound: {e}']
    return []
