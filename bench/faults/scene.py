# SPDX-License-Identifier: Apache-2.0
"""One host of one round, and all that a fault can reach on it."""

import contextlib
import json
import os
import pathlib
import random
import signal
import time
from typing import Any
import uuid

import psutil

from bench.faults import ground
from bench.faults import talk
from bench.faults.guest import DaemonGuest
from bench.faults.guest import Guest
from bench.faults.guest import Node
from bench.faults.guest import NotBooted
from nova_qcache import exception
from nova_qcache.model.plan import EXPORT_NAME
from nova_qcache.system import control
from tests.functional import account
from tests.functional import users
from tests.functional.site import Site

__all__ = ['RECONNECT_SECONDS', 'Scene']

RECONNECT_SECONDS = 60
"""Of a guest that lost its recorder, as ``<reconnect delay='60'/>`` in its XML."""
_LEASE_SECONDS = 60
_GRACE_SECONDS = 15
"""Long enough for guests on a busy machine to come, or to come back; a recorder whose sockets were
removed leaves by time alone."""
_ROLES = {
    'recorder': 'nova_qcache.cmd.recorder',
    'keeper': 'nova_qcache.cmd.keeper',
    'daemon': 'qemu-storage-daemon',
}


class Scene:
    """:param chance: decides all that a round leaves open
    :param reconnect_seconds: for how long guests wait for a recorder that they lost
    """

    def __init__(
        self,
        site: Site,
        stands: ground.Ground,
        chance: random.Random,
        reconnect_seconds: int = RECONNECT_SECONDS,
    ) -> None:
        self.site = site
        self.chance = chance
        self.reconnect_seconds = reconnect_seconds
        site.configure(
            quota=stands.quota_mib,
            base_reconnect_seconds=stands.reconnect_seconds,
            plan_lease_seconds=_LEASE_SECONDS,
            guest_grace_seconds=_GRACE_SECONDS,
            start_keeper=True,
        )
        site.make_folder('vm', users.GUEST)
        # /run is on no disk.
        site.mount(site.run_path, '-t', 'tmpfs', 'tmpfs', user=users.PRODUCT)
        self.disk = ground.Disk(site, stands)
        self.base = ground.Base(site, stands, chance)
        self.guests: list[Guest] = []
        self.notes: list[str] = []
        self._compute: talk.Talk | None = None

    # -- nova-compute

    def compute(self, *call: str) -> Any:
        """Let nova-compute do something; start it if it is not there.

        :raises Refused: if the product refuses
        :raises Silent: if it does not answer
        """
        if self._compute is None:
            script = talk.readable(self.site, 'compute.py')
            log = self.site.run([self.site.product.python, '-c', ''])  # the product can be run
            assert log.returncode == 0, log
            path = self.site.make_folder(f'compute-{uuid.uuid4().hex[:6]}') / 'log'
            command = [self.site.product.python, script, str(self.site.config), str(path)]
            self._compute = talk.Talk(self.site, command, users.PRODUCT)
        try:
            answer = self._compute.ask(json.dumps(call))
        except talk.Silent:
            self.end_compute()
            raise
        if 'error' in answer:
            raise Refused(f'{answer["type"]}: {answer["error"]}')
        return answer['value']

    def end_compute(self) -> None:
        if self._compute is not None:
            self._compute.end()
            self._compute = None

    def plan(self, consumer: str = '') -> dict[str, Any]:
        """Return the plan of a boot."""
        site, base = self.site, self.base
        found: dict[str, Any] = self.compute(
            'plan', site.image_id, base.name, base.format, consumer
        )
        return found

    # -- the product

    def running(self, *roles: str) -> list[psutil.Process]:
        """Return the product's living processes of these roles: recorder, daemon, keeper."""
        found = []
        for process in account.processes_of(self.site.folder):
            with contextlib.suppress(psutil.Error):
                line = process.cmdline()[:3]
                ours = process.uids().real == users.PRODUCT.uid
                if ours and any(word.endswith(_ROLES[r]) for word in line for r in roles):
                    found.append(process)
        return found

    def kill(self, *roles: str) -> int:
        """kill -9, in the order of the roles; return how many there were."""
        killed = 0
        for role in roles:
            found = self.running(role)
            ground.signal_all(found, signal.SIGKILL)
            killed += len(found)
        return killed

    def record(self) -> dict[str, Any]:
        """Return what is on disk about the cache; nothing if that is no record."""
        for path in self.site.cache_path.glob('*.json'):
            with contextlib.suppress(OSError, ValueError):
                found: dict[str, Any] = json.loads(path.read_bytes())
                return found
        return {}

    @property
    def state(self) -> str:
        return str(self.record().get('state', 'COLD'))

    def recorder(self) -> control.Status | None:
        """Return what the recorder says of itself."""
        for path in self._control_sockets():
            with contextlib.suppress(exception.RecorderUnreachable):
                return control.RecorderClient(path).status()
        return None

    def ask_to_seal(self) -> bool:
        """Say that the recording is over; return whether somebody heard it."""
        for path in self._control_sockets():
            with contextlib.suppress(exception.RecorderUnreachable):
                control.RecorderClient(path).seal()
                return True
        return False

    def _control_sockets(self) -> list[pathlib.Path]:
        return sorted((self.site.run_path / 'control').glob('*.ctl'))

    def files(self) -> list[pathlib.Path]:
        """Return the records and cache files; none of a folder that is gone."""
        try:
            return [path for path in self.site.files() if not path.name.startswith('filler')]
        except OSError:
            return []

    # -- guests

    def chain(self, plan: dict[str, Any]) -> list[Node]:
        """Return what the guest's qemu opens below its overlay."""
        if plan['kind'] == 'RECORD':
            server = {'type': 'unix', 'path': plan['socket']}
            node: Node = {'driver': 'nbd', 'node-name': 'remote', 'server': server}
            node |= {'export': EXPORT_NAME, 'reconnect-delay': self.reconnect_seconds}
            return [{**node, 'read-only': True}]
        nodes = self.base.nodes()
        if plan['kind'] == 'PLAY':
            file = {'driver': 'file', 'filename': plan['cache'], 'read-only': True}
            cache: Node = {'driver': 'qcow2', 'node-name': 'cache', 'read-only': True}
            nodes.append({**cache, 'file': file, 'backing': nodes[-1]['node-name']})
        return nodes

    def begin_boot(self, plan: dict[str, Any], **special: Any) -> Guest:
        """Start a guest on its plan, as libvirt does when it was told to."""
        nodes = self.chain(plan)
        if special.pop('fails_once', False):
            rule = {'event': 'none', 'iotype': 'read', 'errno': 5, 'once': True}
            inject: Node = {'driver': 'blkdebug', 'node-name': 'fails', 'read-only': True}
            nodes.append({**inject, 'image': nodes[-1]['node-name'], 'inject-error': [rule]})
        guest = DaemonGuest(
            self.site,
            f'g{len(self.guests)}-{self.chance.randrange(10**6)}',
            plan,
            nodes,
            self.base.reference,
            self.base.size,
            **special,
        )
        self.guests.append(guest)
        guest.start()
        return guest

    def boot(self, **special: Any) -> Guest:
        """Boot a guest: plan, start; and plain if it does not start, as the driver does."""
        consumer = str(uuid.uuid4())
        guest = self.begin_boot(self.plan(consumer), **special)
        try:
            return self.see_up(guest)
        finally:
            with contextlib.suppress(Refused, talk.Silent):
                self.compute('release', consumer)

    def see_up(self, guest: Guest) -> Guest:
        """Wait until a guest has booted; boot it plain if its chain cannot be opened.

        :raises NotBooted: if not even that works
        """
        try:
            guest.wait_until_up()
        except NotBooted as e:
            if guest.plan['kind'] == 'PLAIN':
                raise
            self.notes.append(f'a guest was started again without the cache: {e}')
            guest.end()
            self.guests.remove(guest)
            plain = {'kind': 'PLAIN', 'reason': 'started again'}
            return self.see_up(self.begin_boot(plain))
        return guest

    def end_guests(self) -> None:
        for guest in self.guests:
            guest.end()

    # -- the host

    def clear_host(self) -> None:
        """All processes of the host end at once; what is to be empty after a boot is so."""
        self.end_compute()
        for _ in range(3):  # one of them may just have started another
            self.kill('keeper', 'recorder', 'daemon')
        if self.chance.random() < 0.5:
            for path in self.site.run_path.rglob('*'):
                if not path.is_dir():
                    path.unlink(missing_ok=True)
        else:  # a run_path that outlives a boot: its files tell of another boot
            for path in self.site.run_path.rglob('*'):
                if path.is_file():
                    self._of_another_boot(path)

    def _of_another_boot(self, path: pathlib.Path) -> None:
        boot_id = pathlib.Path('/proc/sys/kernel/random/boot_id').read_text().strip()
        text = path.read_text(errors='replace')
        if boot_id in text:
            facts = path.stat()
            path.write_text(text.replace(boot_id, str(uuid.uuid4())))
            os.chown(path, facts.st_uid, facts.st_gid)

    def doze(self, shortest: float, longest: float) -> float:
        """Wait for a random time; return how long, in seconds."""
        seconds = self.chance.uniform(shortest, longest)
        time.sleep(seconds)
        return seconds


class Refused(Exception):
    """The product refused what nova-compute asked of it."""
