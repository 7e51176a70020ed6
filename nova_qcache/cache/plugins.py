# SPDX-License-Identifier: Apache-2.0
"""Plugins by stevedore: sources of bases, and eviction policies."""

import functools
import re
from typing import Any, cast

from stevedore import driver
from stevedore import exception as stevedore_exception

from nova_qcache import exception
from nova_qcache.cache.eviction import EvictionPolicy
from nova_qcache.model.source import FORMATS
from nova_qcache.model.source import Source

__all__ = ['EVICTION_POLICIES', 'SOURCES', 'eviction_policy', 'source']

EVICTION_POLICIES = 'nova_qcache.eviction_policies'
"""Namespace of the entry points of eviction policies."""

SOURCES = 'nova_qcache.sources'
"""Namespace of the entry points of sources."""

_SCHEME = re.compile(r'([a-z][a-z0-9+.-]*)://')


@functools.cache
def _source_class(scheme: str) -> type[Source] | None:
    try:
        found: Any = driver.DriverManager(SOURCES, scheme, invoke_on_load=False).driver
    except stevedore_exception.NoMatches:
        return None
    except Exception as e:  # whatever somebody else's module raises when it is imported
        raise exception.InvalidBase(
            base=f'{scheme}://',
            reason=f'the plugin that reaches it cannot be loaded ({e})',
            remedy='Fix or remove the package of the plugin',
        ) from e
    return cast(type[Source], found)


def source(reference: str, base_format: str, *, reconnect_seconds: int = 0) -> Source:
    """Return the source for a base; no I/O on the base itself.

    :param reference: a path, or a URI whose scheme names the entry point
    :param base_format: one of ``FORMATS``
    :raises InvalidBase: for a format, scheme or reference that nobody understands
    """
    if base_format not in FORMATS:
        raise exception.InvalidBase(
            base=reference,
            reason=f'its format is {base_format!r}',
            remedy=f'Only {" and ".join(FORMATS)} are cached',
        )
    match = _SCHEME.match(reference)
    scheme = match[1] if match else 'file'
    found = _source_class(scheme)
    if found is None:
        raise exception.InvalidBase(
            base=reference,
            reason=f'no source for {scheme!r} is installed',
            remedy=f'Give a path or an NBD URI, or install a plugin for {SOURCES}',
        )
    return found(reference, base_format, reconnect_seconds=reconnect_seconds)


def eviction_policy(name: str) -> EvictionPolicy:
    """Return the policy of that name.

    :raises InvalidOption: if there is none, or it cannot be loaded
    """
    try:
        found: Any = driver.DriverManager(EVICTION_POLICIES, name, invoke_on_load=True).driver
    except stevedore_exception.NoMatches as e:
        raise exception.InvalidOption(
            option='eviction_policy',
            value=name,
            reason='no such policy is installed',
            remedy=f'Give value or lru, or install a plugin for {EVICTION_POLICIES}',
        ) from e
    except Exception as e:  # whatever somebody else's module raises when it is imported
        raise exception.InvalidOption(
            option='eviction_policy',
            value=name,
            reason=f'the plugin of that name cannot be loaded ({e})',
            remedy='Fix or remove the package of the plugin',
        ) from e
    if not isinstance(found, EvictionPolicy):
        raise exception.InvalidOption(
            option='eviction_policy',
            value=name,
            reason=f'it is of type {type(found).__name__!r} and not an EvictionPolicy',
            remedy='Fix or remove the package of the plugin',
        )
    return found
