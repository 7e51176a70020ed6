# SPDX-License-Identifier: Apache-2.0
"""Creation of a cache file with all its space, empty or a copy, on a base that was checked; see
also ``sealer``."""

import dataclasses
import pathlib
import shutil
import time

from nova_qcache import exception
from nova_qcache.bases import probe
from nova_qcache.cache import sealed_file
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

__all__ = ['open_copy', 'open_recording', 'require_audited', 'require_cold_or_dirty']


def require_cold_or_dirty(catalog: Catalog, key: CacheKey) -> bool:
    """Refuse a key with a sealed cache; called where no other recorder lives, so a RECORDING one
    is dirty.

    :return: whether there is one
    :raises WrongState: if there is a sealed cache
    :raises RecordBroken: if nobody can say what there is
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


def require_audited(catalog: Catalog, key: CacheKey) -> CacheRecord:
    """Return the READY cache that an audit is about: the newest revision before its own.

    :raises WrongState: if there is none
    :raises RecordBroken: if nobody can say
    """
    before = [
        each
        for each in catalog.keys(key.image_id)
        if each.generation == key.generation and each.revision < key.revision
    ]
    for each in reversed(before):
        record = catalog.load(each)
        if record is not None and record.state is State.READY:
            return record
    raise exception.WrongState(
        image_id=key.image_id,
        state=State.COLD.value,
        wanted=State.RECORDING.value,
        remedy=f'There is no READY cache before revision {key.revision} that could be audited',
    )


def open_copy(
    catalog: Catalog,
    qemu_img: QemuImg,
    source: Source,
    key: CacheKey,
    audited: CacheRecord,
    its_quota: int,
) -> CacheRecord:
    """Make the RECORDING record and the file of an audit, a copy of a READY cache; a caller that
    fails later discards both.

    :param its_quota: bytes that the copy may take
    :raises InvalidBase: if no cache may stand on the base, or this one does not fit it
    :raises NoReservation: if the file system cannot keep the quota for it
    :raises CacheBroken: if the cache is not what was sealed
    :raises OSError: if it cannot be copied
    """
    original = catalog.require_unchanged(audited)
    virtual_size = probe.inspect(source, qemu_img)
    if virtual_size != audited.virtual_size:
        raise exception.InvalidBase(
            base=source.reference,
            reason=f'it has {virtual_size} bytes, and its cache is of {audited.virtual_size}',
            remedy=f'Revalidate the cache with `nova-qcache verify {key.image_id}`',
        )
    record = dataclasses.replace(
        audited,
        key=key,
        state=State.RECORDING,
        quota=its_quota,
        created_at=time.time(),
        sealed=None,
        is_audit=True,
    )
    catalog.begin(record)
    path = catalog.paths.recording(key)
    path.touch(0o600)
    _reserve(path, its_quota)
    # No reflink: the first write to a block that is shared takes another one, which nobody has
    # reserved.
    with open(original, 'rb') as source_file, open(path, 'r+b') as copy:
        shutil.copyfileobj(source_file, copy)
    if audited.sealed is None or sealed_file.digest(path) != audited.sealed.digest:
        raise exception.CacheBroken(
            path=str(original),
            reason='its digest differs from that of its seal',
            image_id=key.image_id,
        )
    return record


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
    _reserve(path, settings.quota)
    return record


def _reserve(path: pathlib.Path, its_quota: int) -> None:
    try:
        files.reserve(path, quota.file_limit(its_quota))
    except exception.NoReservation as e:
        reason = f'for a quota of {its_quota} bytes {e.attributes["reason"]}'
        raise exception.NoReservation(**{**e.attributes, 'reason': reason}) from e
