# SPDX-License-Identifier: Apache-2.0
"""``down``: end and remove everything, from whatever state it is in."""

from collections.abc import Callable
import contextlib
import pathlib
import shutil
import signal
import subprocess
from typing import Any

from qcache_stack import process
from qcache_stack.host import Host
from qcache_stack.process import Process
from qcache_stack.process import StackError
from qcache_stack.settings import Layout
from qcache_stack.settings import MARK
from qcache_stack.state import State

__all__ = ['down', 'purge']

_ORDER = (
    ['nova-compute', 'nova-scheduler', 'nova-conductor', 'nova-api'],
    ['neutron', 'placement', 'glance', 'keystone'],
)
"""Who is asked to end together, and before whom; what is on a host and the servers of data come
afterwards, each in its own way."""


def down(layout: Layout, say: Callable[[str], None]) -> None:
    """End all processes, remove all but the caches and the logs.

    :raises StackError: if something cannot be ended; what can be was
    """
    state = State(layout)
    try:
        data = state.read()
    except StackError as e:
        say(f'{e}; what it named outside of the host is not known any more')
        data = {}
    services = data.get('services', {})
    for names in _ORDER:
        leaders = [found for name in names if (found := _leader(services.get(name, {})))]
        if leaders:
            say(f'ending {", ".join(name for name in names if name in services)}')
            process.stop_all(leaders, 12)
    _end_host(_host(layout, data), services, say)
    rest = [found for entry in services.values() if (found := _leader(entry))]
    if rest:
        say('ending the database and the message queue')
        # Their data goes next, so there is nothing to be saved.
        process.stop_all(rest, 5, signal.SIGKILL)
    process.kill_all(process.everything_marked(MARK, str(layout.root)))
    for folder in layout.transient:
        shutil.rmtree(folder, ignore_errors=not folder.exists())
    layout.state.unlink(missing_ok=True)


def _leader(entry: dict[str, Any]) -> Process | None:
    if entry.get('pid') is None:
        return None
    found = Process(entry['pid'], entry['start_time'])
    return found if found.session() else None


def _host(layout: Layout, data: dict[str, Any]) -> Host:
    known = data.get('hosts', {}).get('host1', {}).get('anchor')
    host = Host(layout, 1, Process(known['pid'], known['start_time']) if known else None)
    if host.anchor is None or not host.anchor.alive:
        # Any process will do to get into the namespace of the host.
        host.anchor = next(iter(host.processes()), None)
    return host


def _end_host(host: Host, services: dict[str, Any], say: Callable[[str], None]) -> None:
    if not host.processes():
        return
    say(f'ending guests, libvirt and all that is left on {host.name}')
    _destroy_guests(host)
    for name in ('libvirtd', 'virtlogd'):
        found = _leader(services.get(name, {}))
        if found:
            process.stop_all([found], 10)
    base = _leader(services.get('base', {}))
    # Whatever is left: recorders and their daemons, guests that libvirt could not end. The mount
    # of the base outlives them, so that none hangs in a read that nobody answers.
    keep = {base} if base else set()
    others = [each for each in host.processes() if each not in keep and each != host.anchor]
    process.kill_all(others)
    if base:
        process.stop_all([base], 5)
    # Twice, since a process that was being started may have been missed.
    for _ in range(2):
        process.kill_all(host.processes())


def _destroy_guests(host: Host) -> None:
    virsh = ['virsh', '--connect', 'qemu:///system']
    environment = {'PATH': '/usr/sbin:/usr/bin:/sbin:/bin', 'LC_ALL': 'C.UTF-8', 'HOME': '/root'}
    with contextlib.suppress(StackError):  # libvirtd has gone; its guests are killed below
        argv = host.enter([*virsh, 'list', '--name'])
        names = process.run(argv, environment).split()
        ends = [
            subprocess.Popen(
                host.enter([*virsh, 'destroy', name]),
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            for name in names
        ]
        for end in ends:
            try:
                end.wait(process.PATIENCE_SECONDS)
            except subprocess.TimeoutExpired:
                end.kill()
                end.wait()


def purge(layout: Layout) -> None:
    """Remove the state folder, with the virtual environment, the caches and the logs."""
    if layout.root.is_dir():
        for path in (layout.venv, layout.cache, layout.logs):
            shutil.rmtree(path, ignore_errors=not path.exists())
        layout.lock.unlink(missing_ok=True)
        (layout.root / 'install.lock').unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # files of somebody else
            pathlib.Path(layout.root).rmdir()
