# SPDX-License-Identifier: Apache-2.0
"""The service libvirt-guests: does it save guests when the host goes off."""

import contextlib
import pathlib
import re

__all__ = ['saves', 'setting']

_LINKS = 'etc/systemd/system'
_UNIT = 'libvirt-guests.service'
_PROGRAMS = ('usr/lib/libvirt/libvirt-guests.sh', 'usr/libexec/libvirt-guests.sh')
"""Programs that have the default in them, another one in each distribution."""
_FILES = ('etc/default/libvirt-guests', 'etc/sysconfig/libvirt-guests')
_SETTING = re.compile(r'^ON_SHUTDOWN=["\']?([\w-]*)', re.MULTILINE)
_SHUT_DOWN = 'shutdown'
"""With anything else it saves them."""


def saves(root: pathlib.Path = pathlib.Path('/')) -> bool | None:
    """Return whether it saves guests; None if it is not there, or does not run at shutdown."""
    if not any((wants / _UNIT).is_symlink() for wants in (root / _LINKS).glob('*.wants')):
        return None
    found = None
    for name in (*_PROGRAMS, *_FILES):  # the program reads the file after that
        with contextlib.suppress(OSError, UnicodeDecodeError):
            said = _SETTING.findall((root / name).read_text())
            found = said[-1] if said else found
    return None if found is None else found != _SHUT_DOWN


def setting(root: pathlib.Path = pathlib.Path('/')) -> pathlib.Path:
    """Return the file in which an operator says so."""
    files = [root / name for name in _FILES]
    return next((path for path in files if path.exists()), files[0])
