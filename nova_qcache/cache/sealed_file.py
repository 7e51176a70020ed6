# SPDX-License-Identifier: Apache-2.0
"""The facts of a sealed cache file: taken when it is sealed, compared when it is verified."""

import hashlib
import pathlib
import time

from nova_qcache.model.record import SealedFile
from nova_qcache.model.states import FinishReason
from nova_qcache.system.progress import Done
from nova_qcache.system.progress import ignore

__all__ = ['describe', 'digest']

_CHUNK = 1024 * 1024


def digest(path: pathlib.Path, progress: Done = ignore) -> str:
    """Return ``sha256:<hex>`` of a whole file.

    :param progress: called with the number of bytes read since its last call
    :raises OSError: if it cannot be read
    """
    state = hashlib.sha256()
    with open(path, 'rb') as file:
        while chunk := file.read(_CHUNK):
            state.update(chunk)
            progress(len(chunk))
    return f'sha256:{state.hexdigest()}'


def describe(
    path: pathlib.Path, content_digest: str, reason: FinishReason, sealed_at: float | None = None
) -> SealedFile:
    """Return what a record says of a cache file that nobody writes to any more."""
    facts = path.stat()
    return SealedFile(
        size=facts.st_size,
        inode=facts.st_ino,
        mtime_ns=facts.st_mtime_ns,
        digest=content_digest,
        reason=reason,
        sealed_at=time.time() if sealed_at is None else sealed_at,
    )
