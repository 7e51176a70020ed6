# SPDX-License-Identifier: Apache-2.0
"""The compute host as its operator sees it: domains, disks, caches, processes."""

from collections.abc import Iterable
import contextlib
import hashlib
import json
import os
import pathlib
import signal
import stat
import subprocess
import time
from typing import Any
from xml.etree import ElementTree

from qcache_stack.process import Process
from qcache_stack.stack import Stack

from tests.openstack import waiting
from tests.openstack.cloud import Server

__all__ = ['ComputeHost']

_SERVICES = ('base', 'libvirtd', 'nova-compute', 'virtlogd')
_KEEPER = 'nova_qcache.cmd.keeper'
_KEEPER_LOG = 'keeper.log'
_LINGERING = ('privsep-helper', _KEEPER)


class ComputeHost:
    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.host = stack.host
        self.cache_folder = self.host.outside(self.host.cache_path)
        self.run_folder = self.host.outside(self.host.run_path)
        self.instances = self.host.outside(self.host.instances_path)

    # -- libvirt

    def virsh(self, *arguments: str) -> str:
        return self.stack.exec(['virsh', '--quiet', *arguments]).stdout

    def domains(self) -> list[str]:
        return self.virsh('list', '--all', '--name').split()

    def live_xml(self, server: Server) -> str:
        return self.virsh('dumpxml', server.domain)

    def chain(self, server: Server) -> list[str]:
        """Return what the root disk of a running server stands on, from top to bottom: files, and
        sockets."""
        return _chain(self.live_xml(server))

    def kind(self, server: Server) -> str:
        """Return PLAIN, RECORD or PLAY, by what the running domain stands on."""
        below = self.chain(server)[1:]
        if any(path.endswith('.nbd') for path in below):
            return 'RECORD'
        return 'PLAY' if any(path.endswith('.qcow2') for path in below) else 'PLAIN'

    def kept_xml(self, server: Server) -> str:
        """Return all XML that outlives the run of a server's guest."""
        kept = self.virsh('dumpxml', '--inactive', server.domain)
        if server.domain in self.virsh('list', '--all', '--with-managed-save', '--name'):
            kept += self.virsh('managedsave-dumpxml', server.domain)
        unrescue = self.instances / server.id / 'unrescue.xml'
        return kept + (unrescue.read_text() if unrescue.exists() else '')

    def require_stock_surroundings(self, server: Server) -> None:
        """The overlay stands on the base, and nothing that is kept names a cache."""
        assert self.backing_file(server).startswith(f'{self.host.base_path}/')
        kept = self.kept_xml(server)
        assert self.host.cache_path not in kept
        assert self.host.run_path not in kept

    # -- disks

    def remove_base(self, image_id: str) -> None:
        """Remove the base of an image, as Nova does with one that was unused for a day.

        Through its mount: bindfs does not expect a file that a guest has open to vanish.
        """
        name = hashlib.sha1(image_id.encode(), usedforsecurity=False).hexdigest()
        self.stack.exec(['rm', f'{self.host.base_path}/{name}'])

    def backing_file(self, server: Server) -> str:
        """Return what the overlay's own metadata names."""
        disk = f'{self.host.instances_path}/{server.id}/disk'
        said = self.stack.exec(['qemu-img', 'info', '-U', '--output=json', disk]).stdout
        name: str = json.loads(said)['backing-filename']
        return name

    def base_bytes(self) -> int:
        """Return how many bytes of bases have been read on this host: all of them go through the
        process that serves their mount."""
        server = self.stack.process('base')
        assert server is not None
        lines = pathlib.Path(f'/proc/{server.pid}/io').read_text().splitlines()
        return int(dict(line.split(': ') for line in lines)['rchar'])

    # -- caches

    def qcache(self, *arguments: str, check: bool = True) -> 'subprocess.CompletedProcess[str]':
        """Run nova-qcache as an operator does, with nova-compute's configuration."""
        files = [f'--config-file={self.host.conf}', f'--config-dir={self.host.conf_folder}']
        done = self.stack.exec(['nova-qcache', *files, *arguments], check=False)
        assert done.returncode == 0 or not check, done.stderr
        return done

    def caches(self, image_id: str) -> list[dict[str, Any]]:
        rows = json.loads(self.qcache('list', '-f', 'json').stdout)
        return [row for row in rows if row['image_id'] == image_id and row['state'] != 'COLD']

    def show(self, image_id: str) -> dict[str, Any]:
        """Return what is known of the cache of an image; nothing if there is none."""
        done = self.qcache('show', image_id, '-f', 'json', check=False)
        shown: dict[str, Any] = json.loads(done.stdout) if done.returncode == 0 else {}
        return shown if shown.get('state') != 'COLD' else {}

    def forget(self, image_id: str) -> None:
        """Make the cache of an image COLD.

        Meanwhile a recording whose last guest has gone may end by itself.
        """
        if self.show(image_id):
            done = self.qcache('remove', '--force', image_id, check=False)
            assert done.returncode == 0 or not self.show(image_id), done.stderr

    def seal(self, image_id: str) -> dict[str, Any]:
        """End the recording of an image, unless it has ended, and return what is known of it."""
        self.qcache('seal', '--wait', image_id)
        shown = self.show(image_id)
        assert shown['state'] == 'READY', shown
        return shown

    def figures(self) -> dict[str, Any]:
        """Return what was counted and measured on this host."""
        said = self.qcache('stats', '--host', '-f', 'json').stdout
        figures: dict[str, Any] = json.loads(said)
        return figures

    def image_figures(self) -> dict[str, dict[str, Any]]:
        """Return the same of each image that anything is known of."""
        rows = json.loads(self.qcache('stats', '-f', 'json').stdout)
        return {row['image_id']: row for row in rows}

    def unpin(self, image_id: str) -> None:
        self.qcache('unpin', image_id, check=False)  # it may have been unpinned already

    # -- processes

    def processes(self) -> dict[int, str]:
        """Return pid and command line of what runs on the host beside its services and the keeper,
        which stays for a while when there is nothing left to keep."""
        services = set()
        for name in _SERVICES:
            process = self.stack.process(name)
            if process is not None:
                services |= {each.pid for each in process.session()}
        anchor = self.host.anchor
        found = {}
        for each in self.host.processes():
            if each.pid in services or (anchor is not None and each.pid == anchor.pid):
                continue
            command = _command(each)
            if command and not any(each in command for each in _LINGERING):
                found[each.pid] = command
        return found

    def kill_recorders(self) -> None:
        """kill -9 of the keeper and of every recorder and daemon, as the end of a host does."""

        def look() -> bool:
            # Again and again: as long as one of them lives, it starts others.
            living = [*self.keepers(), *self.recorders(), *self.daemons()]
            _kill(living)
            return not living

        waiting.until(look, 'their end')

    def end_keepers(self) -> None:
        _kill(self.keepers())
        waiting.until(lambda: not self.keepers(), 'the end of the keeper')

    def power_cycle(self) -> None:
        """What is left when a host has been switched off and on: disks, and nothing in /run."""
        self.stack.stop('nova-compute', signal.SIGKILL)
        for name in self.virsh('list', '--name').split():
            self.virsh('destroy', name)
        self.kill_recorders()
        for name in ('guests', 'control', 'leases', 'reservations', 'examinations'):
            for path in (self.run_folder / name).iterdir():
                path.unlink()

    def keepers(self) -> list[int]:
        return [each.pid for each in self.host.processes() if _KEEPER in _command(each)]

    def recorders(self) -> dict[int, str]:
        return self._running('nova_qcache.cmd.recorder')

    def daemons(self) -> dict[int, str]:
        return self._running('qemu-storage-daemon')

    def guests(self) -> dict[int, str]:
        return self._running('qemu-system')

    def _running(self, program: str) -> dict[int, str]:
        return {pid: line for pid, line in self.processes().items() if program in line}

    # -- what is left

    def wait_until_clean(self) -> None:
        """Wait until nothing is left of servers that were deleted.

        :raises AssertionError: with what is left
        """
        left: list[str] = []

        def look() -> bool:
            left[:] = self.leftovers()
            return not left

        try:
            waiting.until(look, 'a clean host')
        except AssertionError:
            raise AssertionError('left behind: ' + '; '.join(left)) from None

    def leftovers(self) -> list[str]:
        found = [f'process {pid}: {line}' for pid, line in self.processes().items()]
        found += [f'domain {name}' for name in self.domains()]
        folders = [self.run_folder / name for name in ('guests', 'control', 'leases')]
        for folder in folders:
            if folder.is_dir():
                found += [str(path) for path in folder.iterdir() if path.name != _KEEPER_LOG]
        # A nova-compute that is killed while it starts a recorder leaves the room reserved.
        for path in (self.run_folder / 'reservations').glob('*.json'):
            with contextlib.suppress(OSError):
                if json.loads(path.read_bytes())['until'] > time.monotonic():
                    found.append(str(path))
        found += [str(path) for path in self.cache_folder.glob('*.recording')]
        found += [str(path) for path in self.instances.glob('snapshots/*')]
        known = {'_base', 'compute_nodes', 'locks', 'snapshots'}
        found += [str(path) for path in self.instances.iterdir() if path.name not in known]
        return found

    def require_nova_owns(self, path: pathlib.Path) -> None:
        """A cache stays nova's, and nobody else may write to it."""
        facts = path.stat()
        assert facts.st_uid == self.nova_uid, facts
        assert not facts.st_mode & (stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH), oct(facts.st_mode)

    @property
    def nova_uid(self) -> int:
        return self.cache_folder.stat().st_uid

    def nova_log(self) -> str:
        return self.stack.log('nova-compute').read_text(errors='replace')


def _kill(pids: Iterable[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):  # it has just ended
            os.kill(pid, signal.SIGKILL)


def _command(process: Process) -> str:
    try:
        data = pathlib.Path(f'/proc/{process.pid}/cmdline').read_bytes()
    except OSError:
        return ''
    return data.replace(b'\0', b' ').decode(errors='replace').strip()


def _chain(xml: str) -> list[str]:
    disk = ElementTree.fromstring(xml).find('.//disk[@device="disk"]')
    assert disk is not None
    found: list[str] = []
    node: ElementTree.Element | None = disk
    while node is not None:
        source = node.find('source')
        if source is not None:
            host = source.find('host')
            socket = host.get('socket', '') if host is not None else ''
            found.append(str(source.get('file') or socket))
        node = node.find('backingStore')
    return found
