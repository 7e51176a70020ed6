# SPDX-License-Identifier: Apache-2.0
"""What every sealed cache must be, looked at from outside."""

import hashlib
import json
import os
import pathlib
import stat
from typing import Any

from tests.functional import bases
from tests.functional import guests
from tests.functional import users
from tests.functional.site import Site

__all__ = ['damage', 'require_sound']

_BLOCK = 512


def damage(path: pathlib.Path) -> None:
    """Change one bit of a cache, as a failing disk does."""
    bases.flip(path, path.stat().st_size - 2 * 4096)


def require_sound(
    site: Site,
    shown: dict[str, Any],
    reference: pathlib.Path,
    base: dict[str, Any] | None,
    base_format: str = 'raw',
) -> None:
    """Check a READY cache as ``nova-qcache show`` shows it.

    :param reference: the content of its base, as a raw file
    :param base: as :func:`guests.play_chain` takes it
    """
    assert shown['state'] == 'READY', shown
    path = pathlib.Path(shown['path'])
    facts = path.stat()
    _require_rights(site, path, facts)
    assert facts.st_size == shown['cache_bytes'] <= shown['quota_bytes']
    # The tail of the reservation is given back: what is left is less than a page of a file system.
    assert facts.st_blocks * _BLOCK - facts.st_size < 65536, facts
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert shown['digest'] == f'sha256:{digest}'
    done = site.run(['qemu-img', 'check', '-f', 'qcow2', '--output=json', str(path)], users.GUEST)
    assert done.returncode == 0, done
    checked = json.loads(done.stdout)
    assert not {'leaks', 'corruptions', 'check-errors'} & {k for k, v in checked.items() if v}
    guests.require_equal(
        site, guests.play_chain(str(path), base, base_format=base_format), reference
    )


def _require_rights(site: Site, path: pathlib.Path, facts: os.stat_result) -> None:
    assert facts.st_uid == users.PRODUCT.uid
    assert facts.st_gid in users.GUEST.groups
    assert stat.S_IMODE(facts.st_mode) == 0o440
    assert site.run(['test', '-r', str(path)], users.GUEST).returncode == 0
    assert site.run(['test', '-w', str(path)], users.GUEST).returncode == 1
    assert site.run(['chmod', '0666', str(path)], users.GUEST).returncode == 1
    assert site.run(['rm', '-f', str(path)], users.GUEST).returncode == 1
    assert site.run(['test', '-r', str(path)], users.STRANGER).returncode == 1
