# SPDX-License-Identifier: Apache-2.0
"""What the root disk of a running server stands on, by the XML of its domain."""

import dataclasses
import enum
import pathlib
from xml.etree import ElementTree

__all__ = ['Boot', 'Kind', 'boot']


class Kind(enum.Enum):
    PLAIN = 'PLAIN'
    """The overlay stands on the base."""
    RECORD = 'RECORD'
    """It stands on a recorder, which may also be that of an audit."""
    PLAY = 'PLAY'
    """It stands on a cache, and that on the base."""


@dataclasses.dataclass(frozen=True)
class Boot:
    kind: Kind
    path: str = ''
    """Of the recorder's socket or of the cache; empty if there is neither."""


def boot(xml: str, image_id: str) -> Boot:
    """Return how a server of that image has booted.

    :raises ValueError: if the text is no XML of a domain with a disk
    """
    try:
        disk = ElementTree.fromstring(xml).find('.//disk[@device="disk"]')  # noqa: S314  libvirt's
    except ElementTree.ParseError as e:
        raise ValueError(f'{xml[:80]!r} is no XML: {e}') from e
    if disk is None:
        raise ValueError(f'there is no disk in the XML of a domain: {xml[:80]!r}')
    for store in disk.iter('backingStore'):
        for source in store.findall('source'):
            socket = next((host.get('socket', '') for host in source.findall('host')), '')
            path = source.get('file') or socket
            # Both are named after the image; the base is not, in no image cache of Nova's.
            if pathlib.PurePath(path).name.startswith(f'{image_id}.'):
                return Boot(Kind.RECORD if path == socket else Kind.PLAY, path)
    return Boot(Kind.PLAIN)
