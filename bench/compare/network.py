# SPDX-License-Identifier: Apache-2.0
"""The network between hosts and the storage of bases: a namespace of its own, whose link is
limited by the kernel's token bucket filter, with an nbdkit in it that counts.

Latency is nbdkit's: each read, and each question for zeros, waits so long before it is answered,
as many at a time as are sent.
"""

from collections.abc import Iterator
import contextlib
import pathlib
import random
import re
import socket
import subprocess
import tempfile
import time

from bench.rig import BenchError

__all__ = ['BaseServer', 'Network', 'network']

_START_SECONDS = 20
_PORT = 10809
_READ = re.compile(rb' Read id=\d+ offset=0x[0-9a-f]+ count=0x([0-9a-f]+) ')


class Network:
    """The far end is in the namespace; ``address`` is its address."""

    def __init__(self, name: str, link: str, subnet: str) -> None:
        self.name = name
        self.link = link
        self.near = f'{subnet}.1'
        self.address = f'{subnet}.2'

    def limit(self, rate: str) -> None:
        """Let no more than this pass from the base to the hosts.

        :param rate: bits per second, as ``100M`` or ``1G``, or ``unlimited``
        """
        device = ['dev', self.link]
        _run('tc', '-n', self.name, 'qdisc', 'del', *device, 'root', check=False)
        if rate != 'unlimited':
            bucket = ['rate', f'{rate.lower()}bit', 'burst', '256kb', 'latency', '200ms']
            _run('tc', '-n', self.name, 'qdisc', 'add', *device, 'root', 'tbf', *bucket)


@contextlib.contextmanager
def network() -> Iterator[Network]:
    """Make a namespace and a link to it; both are gone afterwards.

    :raises BenchError: if that is not allowed here
    """
    token = f'{random.randrange(1 << 24):06x}'
    name, near, far = f'qcb-{token}', f'qcn{token}', f'qcf{token}'
    made = Network(name, far, f'10.{random.randrange(200, 250)}.{random.randrange(1, 255)}')
    with contextlib.ExitStack() as undo:
        _run('ip', 'netns', 'add', name)
        undo.callback(_run, 'ip', 'netns', 'del', name)
        _run('ip', 'link', 'add', near, 'type', 'veth', 'peer', 'name', far, 'netns', name)
        _run('ip', 'addr', 'add', f'{made.near}/30', 'dev', near)
        _run('ip', 'link', 'set', near, 'up')
        _run('ip', '-n', name, 'addr', 'add', f'{made.address}/30', 'dev', far)
        _run('ip', '-n', name, 'link', 'set', far, 'up')
        yield made


def _run(*command: object, check: bool = True) -> None:
    words = list(map(str, command))
    done = subprocess.run(words, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if check and done.returncode:
        raise BenchError(f'{" ".join(words)}: {done.stderr.strip()}')


class BaseServer:
    """An nbdkit at the far end; its log says exactly what was asked of it.

    :param folder: of images; each is an export with its name
    """

    def __init__(
        self, network: Network, folder: pathlib.Path, log: pathlib.Path, delay_ms: int = 0
    ) -> None:
        self._network = network
        self._log = log
        command = ['ip', 'netns', 'exec', network.name, 'nbdkit', '-f', '-r']
        command += ['-i', network.address, '-p', str(_PORT), '--threads', '64']
        # First the log: it notes when a request came and when its answer went.
        command.append('--filter=log')
        settings = [f'dir={folder}', f'logfile={log}']
        if delay_ms:
            command.append('--filter=delay')
            settings += [f'rdelay={delay_ms}ms', f'delay-extents={delay_ms}ms']
        self._command = [*command, 'file', *settings]

    def __enter__(self) -> 'BaseServer':
        with tempfile.TemporaryFile() as errors:
            self._process = subprocess.Popen(
                ['setpriv', '--pdeathsig', 'KILL', '--', *self._command],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
            )
            deadline = time.monotonic() + _START_SECONDS
            while not self._answers():
                if self._process.poll() is not None or time.monotonic() > deadline:
                    self.__exit__()
                    errors.seek(0)
                    said = errors.read().decode(errors='replace').strip()
                    raise BenchError(f'{" ".join(self._command)} does not serve: {said}')
                time.sleep(0.02)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._log.unlink(missing_ok=True)

    def _answers(self) -> bool:
        with socket.socket() as client, contextlib.suppress(OSError):
            client.settimeout(_START_SECONDS)
            client.connect((self._network.address, _PORT))
            return client.recv(8) == b'NBDMAGIC'
        return False

    def reference(self, export: str) -> str:
        return f'nbd://{self._network.address}:{_PORT}/{export}'

    def node(self, export: str) -> dict[str, object]:
        """What a guest's qemu opens."""
        server = {'type': 'inet', 'host': self._network.address, 'port': str(_PORT)}
        driver = {'driver': 'nbd', 'server': server, 'export': export, 'read-only': True}
        return {'driver': 'raw', 'read-only': True, 'file': driver}

    def log(self) -> str:
        return self._log.read_text()

    def forget(self) -> None:
        """Begin to count anew."""
        self._log.write_bytes(b'')

    def asked(self) -> tuple[int, int]:
        """Return the number of reads and the sum of their lengths in bytes."""
        lengths = [int(count, 16) for count in _READ.findall(self._log.read_bytes())]
        return len(lengths), sum(lengths)
