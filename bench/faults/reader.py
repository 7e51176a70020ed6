# SPDX-License-Identifier: Apache-2.0
"""What runs inside a guest: it reads its disk at random for ever and compares every byte.

Usage: reader.py SOCKET REFERENCE SEED [OFFSET...], by the distribution's Python, which has libnbd.

Some of its threads read anywhere, those at the OFFSETs first; one reads only what was read before,
which needs no base once it is recorded. Their errors are counted apart. Wrong bytes are counted as
the clusters of 16 KiB that they are in, each once.

Each line on standard input is a JSON list, answered with one JSON object; it ends when there are
no more. ["facts"] asks for what was counted so far. ["keep"] ends the learning of what was read
before, and asks for it; ["keep", READS] replaces it.
"""

import json
import mmap
import os
import random
import sys
import threading
import time
from typing import Any

import nbd

CLUSTER = 16384
SIZES = (4096, 16384, 65536, 262144)
ANYWHERE, AGAIN = 'anywhere', 'again'
PAUSE_SECONDS = 0.015
_KEPT = 4096

Read = tuple[int, int]  # offset, length


def data_of(fd: int, size: int) -> list[Read]:
    """Return where a sparse file has data."""
    found = []
    at = 0
    while at < size:
        try:
            begin = os.lseek(fd, at, os.SEEK_DATA)
        except OSError:  # there is no more
            break
        at = os.lseek(fd, begin, os.SEEK_HOLE)
        found.append((begin, at - begin))
    return found


class Tally:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.answered = {ANYWHERE: 0, AGAIN: 0}
        self.errors = {ANYWHERE: 0, AGAIN: 0}
        self.said: list[str] = []
        self.wrong: set[int] = set()
        self.known: list[Read] = []
        self.learns = True
        self.longest = 0.0
        self.waiting: dict[int, float] = {}

    def fail(self, kind: str, error: Exception) -> None:
        with self.lock:
            self.errors[kind] += 1
            if len(self.said) < 5:
                self.said.append(f'{kind}: {error}')

    def keep(self, known: list[Read] | None = None) -> dict[str, Any]:
        with self.lock:
            self.learns = False
            if known is not None:
                self.known = known
            return {'known': self.known}

    def facts(self) -> dict[str, Any]:
        with self.lock:
            since = min(self.waiting.values(), default=None)
            waits = time.monotonic() - since if since else 0.0
            return {
                'answered': dict(self.answered),
                'errors': dict(self.errors),
                'said': self.said,
                'wrong': sorted(self.wrong),
                'longest': max(self.longest, waits),
                'waiting_since': since,
            }


class Thread:
    """One connection, one read at a time."""

    def __init__(
        self, number: int, kind: str, path: str, disk: memoryview, data: list[Read], tally: Tally
    ) -> None:
        self._number, self._kind, self._path = number, kind, path
        self._disk, self._data, self._tally = disk, data, tally
        self.first: list[Read] = []
        self.random = random.Random()

    def run(self) -> None:
        while True:
            handle = nbd.NBD()
            # qemu 7.2 drops a client at the first error otherwise, instead of answering it.
            handle.set_request_structured_replies(False)
            try:
                handle.connect_uri(f'nbd+unix:///disk?socket={self._path}')
            except nbd.Error as e:
                self._tally.fail(self._kind, e)
                time.sleep(1)
                continue
            while not handle.aio_is_dead() and not handle.aio_is_closed():
                self._turn(handle)

    def _turn(self, handle: Any) -> None:
        time.sleep(self.random.uniform(0, 2 * PAUSE_SECONDS))
        read = self._next()
        if read is None:
            return
        offset, length = read
        tally = self._tally
        began = time.monotonic()
        with tally.lock:
            tally.waiting[self._number] = began
        try:
            got = handle.pread(length, offset)
        except nbd.Error as e:
            tally.fail(self._kind, e)
            time.sleep(0.2)
        else:
            self._compare(got, offset, length)
        finally:
            with tally.lock:
                del tally.waiting[self._number]
                tally.longest = max(tally.longest, time.monotonic() - began)

    def _compare(self, got: bytes, offset: int, length: int) -> None:
        wanted = self._disk[offset : offset + length]
        wrong = set()
        if got != wanted:
            places = range(0, length, 512)
            differ = [at for at in places if got[at : at + 512] != wanted[at : at + 512]]
            wrong = {(offset + at) // CLUSTER * CLUSTER for at in differ}
        tally = self._tally
        with tally.lock:
            tally.answered[self._kind] += 1
            tally.wrong |= wrong
            if self._kind == ANYWHERE and tally.learns:
                if len(tally.known) < _KEPT:
                    tally.known.append((offset, length))
                else:
                    tally.known[self.random.randrange(_KEPT)] = (offset, length)

    def _next(self) -> Read | None:
        if self.first:
            return self.first.pop(0)
        if self._kind == AGAIN:
            with self._tally.lock:
                return self.random.choice(self._tally.known) if self._tally.known else None
        length = self.random.choice(SIZES)
        begin, area = 0, len(self._disk)
        if self._data and self.random.random() < 0.8:
            begin, area = self.random.choice(self._data)
        offset = begin + self.random.randrange(max(1, area)) // 4096 * 4096
        return offset, min(length, len(self._disk) - offset)


def main() -> int:
    path, reference, seed = sys.argv[1:4]
    with open(reference, 'rb') as file:
        size = os.fstat(file.fileno()).st_size
        data = data_of(file.fileno(), size)
        disk = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    tally = Tally()
    threads = []
    for number, kind in enumerate((ANYWHERE, ANYWHERE, AGAIN)):
        thread = Thread(number, kind, path, disk, data, tally)
        thread.random.seed(f'{seed} {number}')
        threads.append(thread)
    threads[0].first = [(int(offset), CLUSTER) for offset in sys.argv[4:]]
    for thread in threads:
        threading.Thread(target=thread.run, daemon=True).start()
    for line in sys.stdin:
        verb, *more = json.loads(line)
        answer = tally.keep(*more) if verb == 'keep' else tally.facts()
        print(json.dumps(answer), flush=True)
    os._exit(0)  # no waiting for reads that are not answered


if __name__ == '__main__':
    sys.exit(main())
