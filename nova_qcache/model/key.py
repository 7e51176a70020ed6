# SPDX-License-Identifier: Apache-2.0
"""Keys of caches: an image ID, a generation of its base, and a revision."""

import dataclasses
import re
import secrets

from nova_qcache import exception

__all__ = ['CacheKey', 'Generation', 'canonical_image_id']

_UUID = re.compile(r'[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}')
_EPOCH = re.compile(r'[0-9a-f]{12}')
_LIMIT = 10**18
_STEM = re.compile(
    rf'(?P<image_id>{_UUID.pattern})\.(?P<epoch>{_EPOCH.pattern})\.(?P<n>[1-9][0-9]{{0,17}})'
    r'(?:\.r(?P<revision>[2-9]|[1-9][0-9]{1,8}))?'
)


def canonical_image_id(text: str) -> str:
    """Return the image ID in the one spelling that file names use.

    :raises InvalidImageId: for all that is not a UUID with dashes; so no path trick ever reaches a
        file name.
    """
    image_id = text.lower() if len(text) == 36 else ''
    if not _UUID.fullmatch(image_id):
        raise exception.InvalidImageId(image_id=text if len(text) <= 80 else text[:77] + '...')
    return image_id


@dataclasses.dataclass(frozen=True, order=True)
class Generation:
    """The (epoch, n) of a base: two equal ones mean that nobody announced a write to the base in
    between.

    A counter that was lost must not repeat an old value, hence the random epoch.
    """

    epoch: str
    n: int

    def __post_init__(self) -> None:
        if not (isinstance(self.epoch, str) and _EPOCH.fullmatch(self.epoch)):
            raise ValueError(f'{self.epoch!r} is not an epoch of 12 hexadecimal digits')
        if not (isinstance(self.n, int) and 1 <= self.n < _LIMIT) or isinstance(self.n, bool):
            raise ValueError(f'{self.n!r} is not a generation number from 1')

    def __str__(self) -> str:
        return f'{self.epoch}.{self.n}'

    @classmethod
    def first_of_new_epoch(cls) -> 'Generation':
        return cls(secrets.token_hex(6), 1)

    def next(self) -> 'Generation':
        """Return the generation after a write to the base."""
        if self.n + 1 == _LIMIT:
            return Generation.first_of_new_epoch()
        return Generation(self.epoch, self.n + 1)


@dataclasses.dataclass(frozen=True, order=True)
class CacheKey:
    """Names one cache on a host; ``image_id`` is canonical.

    A revision is a cache that was recorded beside one of the same generation which boots do not
    play any more: it was damaged, for example, or recorded again on top of itself by an audit.
    """

    image_id: str
    generation: Generation
    revision: int = 1

    @property
    def stem(self) -> str:
        """Name of all files and sockets of this cache without their suffix.

        It ends in ``.<n>``, or in ``.r<revision>`` from the second revision on; never in
        ``_<digits>``: Nova takes that for a resized copy of a base.
        """
        suffix = f'.r{self.revision}' if self.revision > 1 else ''
        return f'{self.image_id}.{self.generation}{suffix}'

    def next_revision(self) -> 'CacheKey':
        return CacheKey(self.image_id, self.generation, self.revision + 1)

    @classmethod
    def from_stem(cls, stem: str) -> 'CacheKey | None':
        """Return the key whose ``stem`` this is, or None for a foreign name."""
        match = _STEM.fullmatch(stem)
        if match is None:
            return None
        generation = Generation(match['epoch'], int(match['n']))
        return cls(match['image_id'], generation, int(match['revision'] or 1))
