# SPDX-License-Identifier: Apache-2.0
"""The generation of a base as it lies beside it."""

import json
import pathlib

__all__ = ['counter', 'number']


def counter(base: pathlib.Path) -> pathlib.Path:
    """Return the file of the counter of a base that is a file."""
    return base.parent / '.nova-qcache' / f'{base.name}.json'


def number(base: pathlib.Path) -> int:
    """Return how often a write to the base was announced."""
    found: int = json.loads(counter(base).read_bytes())['n']
    return found
