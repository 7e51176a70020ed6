# SPDX-License-Identifier: Apache-2.0
"""A system call that fails, as when too many files are open, neither ends a lease nor a boot."""

from collections.abc import Callable
import contextlib
import errno

import pytest

from tests.unit.builders import KEY
from tests.unit.sites import memory_folder
from tests.unit.sites import Site
from tests.unit.syscalls import fail
from tests.unit.syscalls import Syscalls

ONE = 'one-server'


@pytest.fixture
def folder():
    with memory_folder() as made:
        yield made


def calls_of(site: Site, act: Callable[[Site], object]) -> int:
    with Syscalls(site.folder) as calls:
        act(site)
    return len(calls.names)


def test_a_release_that_fails_is_no_fault_of_a_boot(folder):
    def release(site: Site) -> None:
        site.leases.release(ONE)

    site = Site(folder / 'site')
    site.leases.take(ONE, KEY)
    for at in range(calls_of(site, release)):
        site.leases.take(ONE, KEY)
        with Syscalls(site.folder, at, fail(errno.EMFILE)):
            release(site)


def test_a_lease_that_cannot_be_read_now_is_one(folder):
    def look(site: Site) -> None:
        assert site.leased() == 'KEY'

    def clear(site: Site) -> None:
        with contextlib.suppress(OSError):
            site.leases.clear_ended()
        assert site.paths.leases.stat(), 'the folder stays'

    site = Site(folder / 'site')
    site.leases.take(ONE, KEY)
    for act in (look, clear):
        for at in range(calls_of(site, act)):
            with Syscalls(site.folder, at, fail(errno.EMFILE)), contextlib.suppress(OSError):
                act(site)
            look(site)
