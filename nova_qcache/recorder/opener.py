# SPDX-License-Identifier: Apache-2.0
"""From a base that is fit to an empty cache file with all its space; see also ``sealer``."""

import time

from nova_qcache import base
from nova_qcache import exception
from nova_qcache import filesystem
from nova_qcache.conf import MIB
from nova_qcache.key import CacheKey
from nova_qcache.qemu_img import QemuImg
from nova_qcache.record import CacheRecord
from nova_qcache.recorder import quota
from nova_qcache.recorder.settings import Settings
from nova_qcache.source import Source
from nova_qcache.states import State
from nova_qcache.store import Store

__all__ = ['open_recording', 'require_cold_or_dirty']


def require_cold_or_dirty(store: Store, key: CacheKey) -> None:
    """Called where no other recorder lives: a WARMING of before is dirty.

    :raises WrongState: if there is a sealed cache
    :raises RecordBroken: if nobody can say what there is
    """
    record = store.load(key)
    if record is not None and record.state is not State.WARMING:
        raise exception.WrongState(
            image_id=key.image_id,
            state=record.state.value,
            wanted=State.WARMING.value,
            remedy=f'To record it again, `nova-qcache remove {key.image_id}` first',
        )


def open_recording(
    store: Store, qemu_img: QemuImg, source: Source, key: CacheKey, settings: Settings
) -> CacheRecord:
    """Make the WARMING record and the empty file of a recording; a caller that fails later
    discards both.

    :raises InvalidBase: if no cache may stand on the base
    :raises InvalidQuota: if the quota has no room beside the tables of such a disk
    :raises NoReservation: if the file system cannot keep the quota for it
    """
    identity = source.identity()
    virtual_size = base.inspect(source, qemu_img)
    record = CacheRecord(
        key=key,
        state=State.WARMING,
        base=source.reference,
        base_format=source.base_format,
        base_identity=identity,
        virtual_size=virtual_size,
        quota=settings.quota,
        cluster_size=settings.cluster_size,
        extended_l2=settings.extended_l2,
        created_at=time.time(),
        image_hashes=(settings.image_hash,) if settings.image_hash else (),
    )
    store.begin(record)
    path = store.paths.recording(key)
    qemu_img.create_cache(
        path,
        virtual_size,
        backing=source.filename,
        backing_format=source.base_format,
        cluster_size=settings.cluster_size,
        extended_l2=settings.extended_l2,
    )
    empty = path.stat().st_size
    least = quota.least(empty, settings.cluster_size)
    if settings.quota < least:
        raise exception.InvalidQuota(
            quota=settings.quota,
            reason=f'is too little for the tables of a disk of {virtual_size} bytes',
            remedy=f'to {-(-least // MIB)} or more, or [qcache] cluster_size to more',
        )
    try:
        filesystem.reserve(path, quota.file_limit(settings.quota))
    except exception.NoReservation as e:
        reason = f'for a quota of {settings.quota} bytes {e.attributes["reason"]}'
        raise exception.NoReservation(**{**e.attributes, 'reason': reason}) from e
    return record
