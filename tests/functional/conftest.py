# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the functional tests: real processes of ordinary users, and nothing left behind."""

from collections.abc import Iterator
import dataclasses
import grp
import os
import pathlib
import shutil
import tempfile
from typing import Any

import pytest

from tests.functional import account
from tests.functional import bases
from tests.functional import installation
from tests.functional import quick
from tests.functional import users
from tests.functional.guests import NbdGuest
from tests.functional.site import MIB
from tests.functional.site import Site


def _require_root() -> None:
    if os.geteuid() != 0:
        pytest.exit('The functional tests change users and mount file systems: run them as root.')
    try:
        grp.getgrnam(users.QEMU_GROUP)
    except KeyError:
        pytest.exit(f'The functional tests need the group {users.QEMU_GROUP!r}.')


@pytest.fixture(scope='session')
def product() -> Iterator[installation.Installation]:
    """The programs under test, where an ordinary user can run them."""
    _require_root()
    folder = pathlib.Path(tempfile.mkdtemp(prefix='qct-product-', dir='/tmp'))
    try:
        found = installation.find(folder)
        commands = quick.Commands(found.python, found.environment)
        try:
            yield dataclasses.replace(found, commands=commands)
        finally:
            commands.end()
    finally:
        shutil.rmtree(folder)


@pytest.fixture(autouse=True)
def book() -> Iterator[account.Account]:
    """The account of what a test starts: at its end nothing of it may be left."""
    _require_root()
    with account.opened() as account_of_test:
        yield account_of_test


@pytest.fixture
def site(book: account.Account, product: installation.Installation) -> Site:
    """A host with a configuration of its own."""
    return Site(book, product)


@pytest.fixture
def keeping(site: Site) -> Iterator[None]:
    """A keeper where one is needed; it is ended when a test ends, since it waits for more."""
    site.configure(start_keeper=True)
    yield
    site.end_keeper()


@pytest.fixture
def base(site: Site) -> pathlib.Path:
    """A raw base of 16 MiB."""
    return bases.make_raw(site, 16 * MIB)


@pytest.fixture
def serve(site: Site) -> bases.Serve:
    """Serve a file over NBD: ``serve(path, tcp=False)``."""

    def start(path: pathlib.Path, *, tcp: bool = False) -> bases.NbdServer:
        return bases.NbdServer(site, path, tcp=tcp)

    return start


@pytest.fixture
def cache(site: Site, base: pathlib.Path) -> dict[str, Any]:
    """A READY cache of 8 MiB, whose recorder has left."""
    with NbdGuest(site, site.record(base)) as guest:
        guest.require(base, 0, 8 * MIB)
        shown: dict[str, Any] = site.ask('seal', site.image_id, '--wait')
    site.see_off()
    return shown
