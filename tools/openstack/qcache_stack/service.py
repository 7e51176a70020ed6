# SPDX-License-Identifier: Apache-2.0
"""A service: how it is started, when it is ready, how it is stopped.

The whole description goes into the state, so that any program can start it again as it was.
"""

from collections.abc import Callable
import dataclasses
import http.client
import pathlib
import signal
import socket
import time
from typing import Any
import urllib.parse

from qcache_stack import process
from qcache_stack.process import Process
from qcache_stack.process import StackError
from qcache_stack.state import State

__all__ = ['Ready', 'Service', 'load', 'start', 'stop', 'wait_ready']


@dataclasses.dataclass(frozen=True)
class Ready:
    """What tells that a service can be used; each kind takes the arguments that it needs."""

    kind: str
    """``http`` (an address), ``tcp`` (a port), ``socket`` (a path), ``log`` (a piece of a line
    that it writes since it was started), ``mount`` (a path as the service sees it)"""
    what: str
    seconds: float = process.PATIENCE_SECONDS


@dataclasses.dataclass(frozen=True)
class Service:
    name: str
    argv: list[str]
    environment: dict[str, str]
    log: str
    ready: Ready
    conf: str | None = None
    url: str | None = None
    host: str | None = None
    user: str = 'root'
    stop_seconds: float = 10


def load(entry: dict[str, Any]) -> Service:
    """Return the service that an entry of the state describes."""
    names = {field.name for field in dataclasses.fields(Service)}
    values = {name: value for name, value in entry.items() if name in names}
    return Service(**{**values, 'ready': Ready(**entry['ready'])})


def start(state: State, service: Service) -> Callable[[], None]:
    """Start it, note it, and return what waits until it is ready.

    :raises StackError: if it runs already
    """
    known = state.read()['services'].get(service.name, {})
    if known.get('pid') is not None:
        former = Process(known['pid'], known['start_time'])
        if former.alive:
            raise StackError(f'{service.name} runs already, as process {former.pid}')
        process.kill_all(former.session())  # its helpers, if it was killed
    log = pathlib.Path(service.log)
    offset = log.stat().st_size if log.exists() else 0
    with state.change() as data:
        # In the lock: a process that was started is in the state, whoever writes it meanwhile.
        started = process.spawn(service.argv, log, service.environment)
        data['services'][service.name] = {
            **dataclasses.asdict(service),
            'pid': started.pid,
            'start_time': started.start_time,
        }
    return lambda: wait_ready(service, started, offset)


def wait_ready(service: Service, started: Process, offset: int) -> None:
    """:raises StackError: with the end of its log, if it dies or takes too long"""
    deadline = time.monotonic() + service.ready.seconds
    while not _is_ready(service, started, offset):
        reason = None
        if process.given_up.is_set():
            raise StackError(f'nobody waits for {service.name} any more')
        if not started.alive:
            reason = f'{service.name} has ended before it was ready'
        elif time.monotonic() >= deadline:
            reason = f'{service.name} was not ready after {service.ready.seconds:.0f} s'
        if reason:
            log = pathlib.Path(service.log)
            raise StackError(f'{reason}; {log} ends with:\n{process.tail(log)}')
        time.sleep(0.1)


def stop(state: State, name: str, number: int = signal.SIGTERM) -> None:
    """Send the signal, wait until it is gone with its helpers (those get SIGKILL)."""
    entry = state.read()['services'].get(name)
    if entry is None:
        raise StackError(f'there is no service {name}')
    if entry.get('pid') is not None:
        leader = Process(entry['pid'], entry['start_time'])
        process.stop_all([leader], entry['stop_seconds'], number)
        with state.change() as data:
            data['services'][name].update(pid=None, start_time=None)


def _is_ready(service: Service, started: Process, offset: int) -> bool:
    return _CHECKS[service.ready.kind](service, started, offset)


def _http(service: Service, started: Process, offset: int) -> bool:
    parts = urllib.parse.urlsplit(service.ready.what)
    connection = http.client.HTTPConnection(parts.netloc, timeout=30)
    try:
        connection.request('GET', parts.path or '/')
        return connection.getresponse().status < 500
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _tcp(service: Service, started: Process, offset: int) -> bool:
    host, _, port = service.ready.what.rpartition(':')
    try:
        with socket.create_connection((host, int(port)), timeout=5):
            return True
    except OSError:
        return False


def _socket(service: Service, started: Process, offset: int) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(service.ready.what)
        except OSError:
            return False
    return True


def _log(service: Service, started: Process, offset: int) -> bool:
    with open(service.log, 'rb') as log:
        log.seek(offset)
        return service.ready.what.encode() in log.read()


def _mount(service: Service, started: Process, offset: int) -> bool:
    # bindfs serves a mount of the namespace it was started in.
    try:
        mounts = pathlib.Path(f'/proc/{started.pid}/mounts').read_text().splitlines()
    except OSError:
        return False
    return any(line.split()[1] == service.ready.what for line in mounts)


_CHECKS = {'http': _http, 'tcp': _tcp, 'socket': _socket, 'log': _log, 'mount': _mount}
