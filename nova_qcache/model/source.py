# SPDX-License-Identifier: Apache-2.0
"""The contract of a source: how a base image is reached.

Sources are loaded from the stevedore namespace ``nova_qcache.sources``; the name of an entry point
is the scheme of the references that it understands (``nbd`` for ``nbd://host/export``), and
``file`` for plain paths. The rest of the project sees a base as the block nodes that its source
gives, and asks nothing else about it.
"""

import abc
import dataclasses
import enum
import pathlib
from typing import Any, ClassVar

from nova_qcache import exception

__all__ = ['FORMATS', 'BaseChange', 'BaseIdentity', 'Node', 'Source']

Node = dict[str, Any]
"""Options of one block node, as ``blockdev-add`` takes them."""

FORMATS = ('raw', 'qcow2')


class BaseChange(enum.Enum):
    """Change of a base since a cache of it was made, as far as its identity shows. Content alone
    decides what to do about it."""

    NONE = 'none'
    TIMES = 'times'
    """Only its times differ, as after Nova touched it: boots go on using the cache, and all cached
    bytes are compared now and then."""
    FACTS = 'facts'
    """Its size or inode differs: all cached bytes are compared before a boot uses the cache
    again."""

    @property
    def is_about_content(self) -> bool:
        """True for a change of more than times."""
        return self is BaseChange.FACTS


@dataclasses.dataclass(frozen=True)
class BaseIdentity:
    """Facts about a base that are known without reading it. Differences ask for a revalidation,
    and never decide.

    A source leaves out (None) what it has no cheap way to know.
    """

    size: int | None = None
    """Bytes that the base takes at its place: a file's length."""
    inode: int | None = None
    mtime_ns: int | None = None
    """Nova touches this of a base at every boot."""

    def changes_since(self, then: 'BaseIdentity') -> BaseChange:
        """Compare with what the base looked like when its cache was made."""
        if (self.size, self.inode) != (then.size, then.inode):
            return BaseChange.FACTS
        return BaseChange.NONE if self.mtime_ns == then.mtime_ns else BaseChange.TIMES


class Source(abc.ABC):
    """A base image at one place, in one format. The constructor, nodes and names do no I/O: an
    unreachable base must not keep anybody from ending what is going on."""

    schemes: ClassVar[tuple[str, ...]]
    drivers: ClassVar[tuple[str, ...]]
    """The qemu block drivers that it needs, beside its format's."""

    def __init__(self, reference: str, base_format: str, *, reconnect_seconds: int = 0) -> None:
        """:param reference: a path or URI, as in ``--base``
        :param base_format: ``raw`` or ``qcow2``; never probed, since a guest may have written the
            first bytes
        :param reconnect_seconds: for how long reads wait for a base that went away, where the
            source can wait
        :raises InvalidBase: for a reference or format that makes no sense
        """
        if any(letter < ' ' or letter == '\x7f' for letter in reference):
            raise exception.InvalidBase(
                base=reference,
                reason='it has control characters',
                remedy='Give a plain path or URI',
            )
        if any('\ud800' <= letter <= '\udfff' for letter in reference):
            # Bytes that are no text; qemu takes names as JSON, which has none of these.
            raise exception.InvalidBase(
                base=reference, reason='its name is not UTF-8', remedy='Give it another name'
            )
        self.reference = reference
        self.base_format = base_format
        self.reconnect_seconds = reconnect_seconds

    @property
    @abc.abstractmethod
    def filename(self) -> str:
        """Name of this base for qemu-img, and in the ``backing_file`` of an overlay on it."""

    @abc.abstractmethod
    def identity(self) -> BaseIdentity:
        """Look at the base in microseconds, without starting a process.

        :raises InvalidBase: if it is not there or not readable
        """

    def first_bytes(self, count: int) -> bytes | None:
        """Return the beginning of the base as it is stored, None if that takes qemu.

        :raises InvalidBase: missing, unreadable or empty
        """
        return None

    def learn(self) -> None:
        """Look at the base for facts that its options depend on. Called before much of the base is
        read; the options are valid without, too.

        :raises InvalidBase: if it is not there or not readable
        """
        return

    @abc.abstractmethod
    def protocol_node(self) -> Node:
        """Options of the node that fetches bytes, without ``node-name``; read-only."""

    @abc.abstractmethod
    def generation_folder(self) -> pathlib.Path | None:
        """Folder of this base's generation: on its own storage, so that all who share the base
        share it.

        None if that storage holds no files; the generation is then one of this host's.
        """

    @abc.abstractmethod
    def generation_name(self) -> str:
        """A file name that is this base's own in that folder."""

    def image_node(self) -> Node:
        """The base as one nested node, as qemu-img and qemu-io take it."""
        node: Node = {'driver': self.base_format, 'read-only': True, 'file': self.protocol_node()}
        if self.base_format == 'qcow2':
            node['backing'] = None
        return node

    @staticmethod
    def node_names(name: str) -> list[str]:
        """Names of :meth:`nodes`, in its order."""
        return [f'{name}-file', name]

    def nodes(self, name: str) -> list[Node]:
        """Block nodes, lowest first; the last one is called ``name`` and gives the base's
        content."""
        lower, upper = self.node_names(name)
        protocol = {'node-name': lower, 'read-only': True, **self.protocol_node()}
        top: Node = {
            'driver': self.base_format,
            'node-name': upper,
            'read-only': True,
            'file': lower,
        }
        if self.base_format == 'qcow2':
            # An image that names a backing file was refused already; this makes sure that none is
            # opened.
            top['backing'] = None
        return [protocol, top]
