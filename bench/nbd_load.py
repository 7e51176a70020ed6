# SPDX-License-Identifier: Apache-2.0
"""Many NBD clients at once, every read compared with a raw file of the same content.

It needs libnbd's Python module (package python3-libnbd) and nothing else, so it is run by the
distribution's Python. One JSON object is printed:

    {"clients": 8, "reads": 4096, "bytes": 4294967296, "errors": 0, "wrong": 0, "seconds": 3.1}

``errors``: reads that were answered with an error, connections that were refused or dropped (one
each; such a client ends), and clients that were not done at the deadline. ``wrong``: reads whose
bytes differ from the reference. ``seconds``: from the first request to the last answer. The exit
status is 0 whatever was found (the caller judges) and 2 on bad usage.

With --hold, "holding" is written to standard error once all is read. SIGTERM and SIGINT end the
hold (or the reading) early, and the object is printed all the same.
"""

import argparse
from collections.abc import Iterable, Iterator
import contextlib
import json
import mmap
import os
import pathlib
import random
import select
import signal
import sys
import time
from typing import Any, BinaryIO

import nbd

LARGEST_READ = 32 * 1024 * 1024  # of qemu's NBD server

Read = tuple[int, int]  # offset, length


class Tally:
    def __init__(self) -> None:
        self.reads = self.bytes = self.errors = self.wrong = 0
        self.first = self.last = 0.0


class Client:
    """One connection with up to ``depth`` reads in flight."""

    def __init__(self, reads: Iterator[Read], depth: int, reference: memoryview, tally: Tally):
        self.handle = nbd.NBD()
        self._reads, self._depth, self._reference = reads, depth, reference
        self._tally = tally
        self._in_flight = 0
        self._answered: list[tuple[bytearray, int, int]] = []
        self._exhausted = False
        self.lost = False

    @property
    def done(self) -> bool:
        return self.lost or (self._exhausted and not self._in_flight)

    def connect(self, uri: str) -> None:
        try:
            self.handle.aio_connect_uri(uri)
        except nbd.Error:
            self.lose()

    def lose(self) -> None:
        if not self.lost:
            self.lost = True
            self._tally.errors += 1

    def step(self, events: int) -> None:
        """React to what poll said of the connection, then take answers and send new reads."""
        try:
            reading = self.handle.aio_get_direction() & nbd.AIO_DIRECTION_READ
            if reading and events & ~select.POLLOUT:  # a hang-up, too
                self.handle.aio_notify_read()
            else:
                self.handle.aio_notify_write()
            if self.handle.aio_is_dead() or self.handle.aio_is_closed():
                self.lose()
            self._take_answers()
            if not self.lost:
                self._send()
        except nbd.Error:
            self.lose()
            self._take_answers()

    def _take_answers(self) -> None:
        answered, self._answered = self._answered, []
        for data, offset, error in answered:
            self._in_flight -= 1
            if error:
                self._tally.errors += not self.lost  # a dropped connection is one error
                continue
            self._tally.reads += 1
            self._tally.bytes += len(data)
            self._tally.last = time.monotonic()
            if data != self._reference[offset : offset + len(data)]:
                self._tally.wrong += 1

    def _send(self) -> None:
        if not self.handle.aio_is_ready() and not self.handle.aio_is_processing():
            return  # still connecting
        while not self._exhausted and self._in_flight < self._depth:
            read = next(self._reads, None)
            if read is None:
                self._exhausted = True
                break
            offset, length = read
            data = bytearray(length)

            def answered(error: Any, data: bytearray = data, offset: int = offset) -> int:
                self._answered.append((data, offset, error.value))
                return 1  # libnbd forgets the command

            if not self._tally.first:
                self._tally.first = time.monotonic()
            self.handle.aio_pread(nbd.Buffer.from_buffer(data), offset, completion=answered)
            self._in_flight += 1


class Loop:
    """Drives all clients from one thread."""

    def __init__(self, clients: list[Client]) -> None:
        self._poll = select.poll()
        self._clients: dict[int, Client] = {}
        self._all = clients
        self.stopped = False

    def add(self, client: Client) -> None:
        if not client.lost:
            fd = client.handle.aio_get_fd()
            self._clients[fd] = client
            self._poll.register(fd, self._wanted(client))

    def stop(self, *_: object) -> None:
        self.stopped = True

    @staticmethod
    def _wanted(client: Client) -> int:
        direction = client.handle.aio_get_direction()
        reading = bool(direction & nbd.AIO_DIRECTION_READ) * select.POLLIN
        return reading | bool(direction & nbd.AIO_DIRECTION_WRITE) * select.POLLOUT

    def turn(self, seconds: float) -> None:
        for fd, events in self._poll.poll(max(0.0, min(seconds, 0.5)) * 1000):
            client = self._clients[fd]
            client.step(events)
            if client.lost:
                self._poll.unregister(fd)
                del self._clients[fd]
            else:
                self._poll.modify(fd, self._wanted(client))

    def run(self, deadline: float, hold: float) -> None:
        until = time.monotonic() + deadline
        while not self.stopped and not all(client.done for client in self._all):
            left = until - time.monotonic()
            if left <= 0:
                break
            self.turn(left)
        for client in self._all:
            if not client.done:
                client.lose()
        if hold > 0 and not self.stopped:
            print('holding', file=sys.stderr, flush=True)
            until = time.monotonic() + hold
            while time.monotonic() < until and not self.stopped:
                self.turn(until - time.monotonic())


def plan_reads(args: argparse.Namespace, file: BinaryIO, disk: int) -> list[Iterator[Read]]:
    """The reads of each client, made as they are wanted."""
    if args.trace is not None:
        reads = read_trace(args.trace, disk)
        return [iter(reads) for _ in range(args.clients)]
    blocks = _blocks_of(args, file, disk)
    clients = range(args.clients)
    if args.bytes is not None:
        return [_reads(_endless(args, blocks, n), args, disk) for n in clients]
    if args.order == 'random':
        random.Random(args.seed).shuffle(blocks)
        return [_reads(blocks[n :: args.clients], args, disk) for n in clients]
    part = -(-len(blocks) // args.clients)
    return [_reads(blocks[n * part : (n + 1) * part], args, disk) for n in clients]


def _blocks_of(args: argparse.Namespace, file: BinaryIO, disk: int) -> list[int]:
    blocks = range(-(-disk // args.size))
    if not args.data_only:
        return list(blocks)
    found = []
    at = 0
    with contextlib.suppress(OSError):  # there is no more data
        for block in blocks:
            if (block + 1) * args.size > at:
                at = os.lseek(file.fileno(), block * args.size, os.SEEK_DATA)
            if (block + 1) * args.size > at:
                found.append(block)
    return found


def _endless(args: argparse.Namespace, blocks: list[int], client: int) -> Iterator[int]:
    """Each client its own order; all blocks before any comes again."""
    order = list(blocks)
    start = client * len(blocks) // args.clients
    shuffle = random.Random(f'{args.seed} {client}').shuffle
    while order:
        if args.order == 'random':
            shuffle(order)
            yield from order
        else:
            yield from order[start:]
            yield from order[:start]


def _reads(blocks: Iterable[int], args: argparse.Namespace, disk: int) -> Iterator[Read]:
    left = disk if args.bytes is None else args.bytes
    for block in blocks:
        if left <= 0:
            return
        offset = block * args.size
        length = min(args.size, disk - offset, left)
        left -= length
        yield offset, length


def read_trace(path: pathlib.Path, disk: int) -> list[Read]:
    reads = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        fields = line.replace(',', ' ').split()
        if not fields or fields[0].startswith('#'):
            continue
        try:
            offset, length = int(fields[0]), int(fields[1])
        except (IndexError, ValueError):
            raise ValueError(f'{path}:{number}: not "offset length": {line!r}') from None
        if offset < 0 or length < 1 or offset + length > disk or length > LARGEST_READ:
            raise ValueError(f'{path}:{number}: outside of the disk of {disk} bytes: {line!r}')
        reads.append((offset, length))
    return reads


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Read from an NBD server and compare.')
    parser.add_argument('--uri', required=True, help='such as nbd+unix:///name?socket=/path')
    parser.add_argument('--reference', type=pathlib.Path, required=True, metavar='FILE')
    parser.add_argument('--clients', type=int, help='default 8, with --trace 1')
    parser.add_argument('--depth', type=int, help='in flight; default 16, with --trace 1')
    parser.add_argument('--size', type=int, default=1 << 20, help='bytes of one read')
    parser.add_argument('--order', choices=('random', 'sequential'), default='random')
    parser.add_argument('--bytes', type=int, help='per client; default the disk once over all')
    parser.add_argument('--data-only', action='store_true', help='leave out holes of FILE')
    parser.add_argument('--seed', type=int, default=1)
    parser.add_argument('--hold', type=float, default=0.0, metavar='SECONDS')
    parser.add_argument('--trace', type=pathlib.Path, help='lines of "offset length", in order')
    parser.add_argument('--deadline', type=float, default=300.0, metavar='SECONDS')
    args = parser.parse_args(argv)
    if args.clients is None:
        args.clients = 8 if args.trace is None else 1
    if args.depth is None:
        args.depth = 16 if args.trace is None else 1
    if min(args.clients, args.depth, args.size) < 1 or args.size > LARGEST_READ:
        parser.error('--clients, --depth and --size are at least 1, --size at most 32 MiB')
    if args.bytes is not None and args.bytes < 1:
        parser.error('--bytes is at least 1')
    return args


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    tally = Tally()
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(args.reference.open('rb'))
            disk = os.fstat(file.fileno()).st_size
            content = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
            reads = plan_reads(args, file, disk)
        except (OSError, ValueError) as error:
            print(f'nbd_load: {error}', file=sys.stderr)
            return 2
        clients = [Client(each, args.depth, content, tally) for each in reads]
        loop = Loop(clients)
        signal.signal(signal.SIGTERM, loop.stop)
        signal.signal(signal.SIGINT, loop.stop)
        for client in clients:
            client.connect(args.uri)
            loop.add(client)
        loop.run(args.deadline, args.hold)
    counts = {name: getattr(tally, name) for name in ('reads', 'bytes', 'errors', 'wrong')}
    seconds = round(max(0.0, tally.last - tally.first), 6)
    print(json.dumps({'clients': args.clients, **counts, 'seconds': seconds}), flush=True)
    os._exit(0)  # no waiting for connections that do not answer


if __name__ == '__main__':
    sys.exit(main())
