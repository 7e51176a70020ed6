# SPDX-License-Identifier: Apache-2.0
"""Who runs what: being root would hide every fault of ownership.

The numbers need no entry in the user database, so nothing is added to the machine. The group needs
a name, since that is what the option ``qemu_group`` takes; this one is on every distribution and
nothing runs in it.
"""

import dataclasses
import grp
from typing import Any

__all__ = ['GUEST', 'PRODUCT', 'QEMU_GROUP', 'ROOT', 'STRANGER', 'User']

QEMU_GROUP = 'games'


@dataclasses.dataclass(frozen=True)
class User:
    uid: int
    in_qemu_group: bool

    @property
    def gid(self) -> int:
        return self.uid

    @property
    def groups(self) -> list[int]:
        return [grp.getgrnam(QEMU_GROUP).gr_gid] if self.in_qemu_group else []

    def arguments(self) -> dict[str, Any]:
        """Return what :class:`subprocess.Popen` takes to run something as this user."""
        return {'user': self.uid, 'group': self.gid, 'extra_groups': self.groups}


PRODUCT = User(60601, in_qemu_group=True)
"""Stands for nova: runs nova-qcache, its recorders and their daemons."""
GUEST = User(60602, in_qemu_group=True)
"""Stands for libvirt-qemu: runs guests and all that reads as guests do."""
STRANGER = User(60603, in_qemu_group=False)
"""Anybody else on the host."""
ROOT = User(0, in_qemu_group=False)
"""An operator at a root prompt."""
