# SPDX-License-Identifier: Apache-2.0
"""The seal: a recording that nobody writes to any more becomes a READY cache."""

import asyncio
import pathlib

from nova_qcache import exception
from nova_qcache.cache import sealed_file
from nova_qcache.cache.catalog import Catalog
from nova_qcache.model.record import CacheRecord
from nova_qcache.model.states import FinishReason
from nova_qcache.qemu.img import QemuImg
from nova_qcache.system import files

__all__ = ['seal']


async def seal(
    catalog: Catalog,
    qemu_img: QemuImg,
    record: CacheRecord,
    reason: FinishReason,
) -> CacheRecord:
    """Check, sync and describe the file of a recording, and make the cache READY.

    The daemon has the file open read-only by now.

    :raises CacheBroken: if the file is not fit to be used; nothing has become READY then
    :raises WrongState: if the recording was dropped meanwhile
    """
    return await asyncio.to_thread(_seal, catalog, qemu_img, record, reason)


def _seal(
    catalog: Catalog,
    qemu_img: QemuImg,
    record: CacheRecord,
    reason: FinishReason,
) -> CacheRecord:
    path = catalog.paths.recording(record.key)
    if not path.exists():
        path = catalog.paths.sealed(
            record.key
        )  # a recorder was killed between renaming it and writing READY
    try:
        used = qemu_img.check(path)
        cached = sum(length for _, length in qemu_img.cached_extents(path))
        path.chmod(0o600)  # it is sealed already if a recorder was killed right after that
        files.release_tail(path, used)
        catalog.seal_file(path)
        files.sync_file(path)
        facts = sealed_file.describe(path, sealed_file.digest(path), reason)
    except (exception.ToolError, OSError) as e:
        raise _broken(path, record, str(e)) from e
    if not cached:
        raise _broken(path, record, 'it caches nothing')
    if facts.size > record.quota:
        raise _broken(path, record, f'its {facts.size} bytes exceed its quota of {record.quota}')
    return catalog.seal(record, facts)


def _broken(path: pathlib.Path, record: CacheRecord, reason: str) -> exception.CacheBroken:
    return exception.CacheBroken(path=str(path), reason=reason, image_id=record.key.image_id)
