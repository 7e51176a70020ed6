# SPDX-License-Identifier: Apache-2.0
"""The record of one cache, and the JSON of its file."""

import dataclasses
import json
from typing import Any

from nova_qcache import exception
from nova_qcache.model.key import CacheKey
from nova_qcache.model.key import Generation
from nova_qcache.model.source import BaseIdentity
from nova_qcache.model.states import FinishReason
from nova_qcache.model.states import State

__all__ = ['VERSION', 'CacheRecord', 'SealedFile', 'dumps', 'loads']

VERSION = 1
"""Version of the layout of a record. A reader refuses a higher one."""


@dataclasses.dataclass(frozen=True)
class SealedFile:
    """Facts of the sealed cache file at the moment when it became READY."""

    size: int
    """Bytes."""
    inode: int
    mtime_ns: int
    digest: str
    """``sha256:`` and the hexadecimal digest of the whole file."""
    reason: FinishReason
    sealed_at: float
    """Seconds since the epoch."""


@dataclasses.dataclass(frozen=True)
class CacheRecord:
    key: CacheKey
    state: State
    base: str
    base_format: str
    base_identity: BaseIdentity
    virtual_size: int
    """Bytes of the disk that a guest sees."""
    quota: int
    """Bytes that the cache file may take."""
    cluster_size: int
    extended_l2: bool
    created_at: float
    """Seconds since the epoch."""
    image_hashes: tuple[str, ...] = ()
    """Glance's hashes of the image's content, one for each time when the cache was found to go
    with its base; the latest last."""
    sealed: SealedFile | None = None
    """Set exactly while READY or STALE."""
    stale_reason: str = ''
    is_audit: bool = False
    """The recording began as an audit: on a copy of a READY cache, which boots go on to play."""

    def is_of(self, base: str, base_format: str) -> bool:
        """Return whether the cache stands on this base: on another one no boot uses it."""
        return (self.base, self.base_format) == (base, base_format)


_STATES_IN_FILES = {State.RECORDING: 'WARMING'}
"""States with another name in files: the name of before, so that older versions read them."""


def dumps(record: CacheRecord) -> bytes:
    """Return the record as the JSON text of its file."""
    data: dict[str, Any] = {
        'version': VERSION,
        'image_id': record.key.image_id,
        'generation': {'epoch': record.key.generation.epoch, 'n': record.key.generation.n},
        'revision': record.key.revision,
        'state': _STATES_IN_FILES.get(record.state, record.state.value),
    }
    for name in _PLAIN_FIELDS:
        data[name] = getattr(record, name)
    data['image_hashes'] = list(record.image_hashes)
    data['is_audit'] = record.is_audit
    data['base_identity'] = dataclasses.asdict(record.base_identity)
    if record.sealed is not None:
        data['sealed'] = {
            **dataclasses.asdict(record.sealed),
            'reason': record.sealed.reason.value,
        }
    return json.dumps(data, indent=1, sort_keys=True).encode() + b'\n'


def loads(text: bytes, path: str, key: CacheKey) -> CacheRecord:
    """Read a record that stands at ``path`` for ``key``.

    :raises RecordTooNew: if a newer version wrote it
    :raises RecordBroken: for all else that is not such a record
    """
    try:
        data = json.loads(text)
        version = _typed(data, 'version', int)
        if version < 1:
            raise ValueError(f'version {version} does not exist')
        if version > VERSION:
            raise exception.RecordTooNew(
                path=path, version=version, known=VERSION, image_id=key.image_id
            )
        return _record(data, key)
    except (ValueError, KeyError, RecursionError) as e:
        reason = f'field {e} is missing' if isinstance(e, KeyError) else str(e)
        reason = reason.encode(errors='backslashreplace').decode()  # JSON has lone surrogates
        raise exception.RecordBroken(path=path, reason=reason, image_id=key.image_id) from e


_COUNT = range(2**63)
_RANGES = {
    'inode': range(2**64),
    'mtime_ns': range(-(2**63), 2**63),  # files may be older than 1970
}

_PLAIN_FIELDS: dict[str, type] = {
    'base': str,
    'base_format': str,
    'virtual_size': int,
    'quota': int,
    'cluster_size': int,
    'extended_l2': bool,
    'created_at': float,
    'stale_reason': str,
}


def _typed(data: Any, name: str, kind: type, allowed: range = _COUNT) -> Any:
    if not isinstance(data, dict):
        raise ValueError('it is not a JSON object')
    value = data[name]
    if type(value) is not kind and not (kind is float and type(value) is int):
        raise ValueError(f'{name} is {value!r:.60} and not of type {kind.__name__}')
    if isinstance(value, int | float) and not allowed.start <= value < allowed.stop:
        raise ValueError(f'{name} is out of range')
    return float(data[name]) if kind is float else value


def _hashes(data: Any) -> tuple[str, ...]:
    said = data['image_hashes']
    if not isinstance(said, list) or not all(isinstance(each, str) for each in said):
        raise ValueError(f'image_hashes is {said!r:.60} and not a list of strings')
    return tuple(said)


def _record(data: Any, key: CacheKey) -> CacheRecord:
    generation = _typed(data, 'generation', dict)
    said = CacheKey(
        _typed(data, 'image_id', str),
        Generation(generation['epoch'], generation['n']),
        _typed(data, 'revision', int),
    )
    if said != key:
        raise ValueError(f'it is about {said.stem}')
    name = _typed(data, 'state', str)
    state = {old: state for state, old in _STATES_IN_FILES.items()}.get(name) or State(name)
    sealed = None
    if (state in (State.READY, State.STALE)) != ('sealed' in data):
        raise ValueError(f'state {name} contradicts what it says about a seal')
    if 'sealed' in data:
        fields = _typed(data, 'sealed', dict)
        sealed = SealedFile(
            size=_typed(fields, 'size', int),
            inode=_typed(fields, 'inode', int, _RANGES['inode']),
            mtime_ns=_typed(fields, 'mtime_ns', int, _RANGES['mtime_ns']),
            digest=_typed(fields, 'digest', str),
            reason=FinishReason(_typed(fields, 'reason', str)),
            sealed_at=_typed(fields, 'sealed_at', float),
        )
    identity = _typed(data, 'base_identity', dict)
    known = {field.name for field in dataclasses.fields(BaseIdentity)}
    for name in known & set(identity):
        if identity[name] is not None:
            _typed(identity, name, int, _RANGES.get(name, _COUNT))
    return CacheRecord(
        key=key,
        state=state,
        base_identity=BaseIdentity(**{name: identity.get(name) for name in known}),
        sealed=sealed,
        image_hashes=_hashes(data),
        # What wrote none had no other recordings of a second or later revision.
        is_audit=_typed({'is_audit': key.revision > 1, **data}, 'is_audit', bool),
        **{name: _typed(data, name, kind) for name, kind in _PLAIN_FIELDS.items()},
    )
