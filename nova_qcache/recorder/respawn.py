# SPDX-License-Identifier: Apache-2.0
"""Respawn specs: the arguments to start a recorder again after it was killed, in a small file.

The file is there from before a recorder serves its first guest until it has ended in good order.
So a respawn spec without a living recorder means that guests may wait for one.
"""

from collections.abc import Iterator, Sequence
import json
import os

from nova_qcache.model.key import CacheKey
from nova_qcache.system import files
from nova_qcache.system.boot_id import boot_id
from nova_qcache.system.paths import Paths

__all__ = ['forget', 'keys', 'note', 'read']

_SUFFIX = '.duty'


def note(paths: Paths, key: CacheKey, arguments: Sequence[str]) -> None:
    """Write the respawn spec of the recorder of a cache.

    :param arguments: of nova-qcache-recorder
    :raises OSError: if it cannot be written
    """
    text = json.dumps({'boot_id': boot_id(), 'arguments': list(arguments)})
    files.replace_atomically(paths.respawn_spec(key), text.encode() + b'\n', 0o600, sync=False)


def forget(paths: Paths, key: CacheKey) -> None:
    """Remove a respawn spec: the recorder has ended in good order, or is not needed again."""
    paths.respawn_spec(key).unlink(missing_ok=True)


def read(paths: Paths, key: CacheKey) -> list[str] | None:
    """Return the arguments, None if there are none of this boot of the host."""
    try:
        data = json.loads(paths.respawn_spec(key).read_bytes())
        if data['boot_id'] != boot_id():
            return None
        arguments = data['arguments']
        return [str(argument) for argument in arguments] if isinstance(arguments, list) else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def keys(paths: Paths) -> Iterator[CacheKey]:
    """Yield the caches whose recorder has a respawn spec of this boot of the host.

    :raises OSError: if the folder cannot be listed
    """
    for name in sorted(os.listdir(paths.control)):
        if name.endswith(_SUFFIX):
            key = CacheKey.from_stem(name.removesuffix(_SUFFIX))
            if key is not None and read(paths, key) is not None:
                yield key
