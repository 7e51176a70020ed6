# SPDX-License-Identifier: Apache-2.0
"""Creation of a cache file with all its space, on a base that was checked; see also ``sealer``."""

import pathlib
import shutil
import time

from nova_qcache import exception
from nova_qcache.bases import probe
from nova_qcache.cache.catalog import Catalog
from nova_qcache.conf import MIB
from nova_qcache.model.key import CacheKey
from nova_qcache.model.record import CacheRecord
from nova_qcache.model.source import Source
from nova_qcache.model.states import State
from nova_qcache.qemu.img import QemuImg
from nova_qcache.recorder import quota
from nova_qcache.recorder.settings import Settings
from nova_qcache.system import files

__all__ = ['open_recording', 'require_cold_or_dirty', 'reserve']


def require_cold_or_dirty(catalog: Catalog, key: CacheKey) -> bool:
    """Refuse a key with a sealed cache; called where no other recorder lives, so a RECORDING one
    is dirty.

    :return: whether there is one
    :raises WrongState: if there is a sealed cache
    :raises RecordBroken: if its record cannot be read
    """
    record = catalog.load(key)
    if record is not None and record.state is not State.RECORDING:
        raise exception.WrongState(
            image_id=key.image_id,
            state=record.state.value,
            wanted=State.RECORDING.value,
            remedy=f'To record it again, `nova-qcache remove {key.image_id}` first',
        )
    return record is not None


def open_recording(
    catalog: Catalog, qemu_img: QemuImg, source: Source, key: CacheKey, settings: Settings
) -> CacheRecord:
    """Make the RECORDING record and the empty file of a recording; a caller that fails later
    discards both.

    :raises InvalidBase: if no cache may stand on the base
    :raises InvalidQuota: if the quota has no room beside the tables of such a disk
    :raises NoReservation: if the file system cannot keep the quota for it
    """
    identity = source.identity()
    virtual_size = probe.inspect(source, qemu_img)
    record = CacheRecord(
        key=key,
        state=State.RECORDING,
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
    catalog.begin(record)
    path, draft = catalog.paths.recording(key), catalog.paths.draft(key)
    # A qemu-img of a recorder that was killed may still sync what it has made, and has it locked.
    draft.unlink(missing_ok=True)
    try:
        # qemu-img syncs what it makes, and nobody waits for a disk here: run_path is on none.
        qemu_img.create_cache(
            draft,
            virtual_size,
            backing=source.filename,
            backing_format=source.base_format,
            cluster_size=settings.cluster_size,
            extended_l2=settings.extended_l2,
        )
        shutil.copyfile(draft, path)
    finally:
        draft.unlink(missing_ok=True)
    empty = path.stat().st_size
    least = quota.least(empty, settings.cluster_size)
    if settings.quota < least:
        raise exception.InvalidQuota(
            quota=settings.quota,
            reason=f'is too little for the tables of a disk of {virtual_size} bytes',
            remedy=f'to {-(-least // MIB)} or more, or [qcache] cluster_size to more',
        )
    reserve(path, settings.quota)
    return record


def reserve(path: pathlib.Path, its_quota: int) -> None:
    """Reserve the space of a whole quota for a cache file.

    :raises NoReservation: if the file system cannot keep it
    """
    try:
        files.reserve(path, quota.file_limit(its_quota))
    except exception.NoReservation as e:
        reason = f'for a quota of {its_quota} bytes {e.attributes["reason"]}'
        raise exception.NoReservation(**{**e.attributes, 'reason': reason}) from e
