# SPDX-License-Identifier: Apache-2.0
"""The program run in this process, with a configuration of its own and a manager that is none."""

from collections.abc import Callable, Iterator
import dataclasses
import json
import pathlib
from typing import Any
from unittest import mock

import pytest

from nova_qcache.cache.pins import Pins
from nova_qcache.cmd import shell
from nova_qcache.engine import manager as manager_module
from nova_qcache.engine.boots import Boots
from nova_qcache.reports.time_series import TimeSeries
from tests.unit import builders


@dataclasses.dataclass(frozen=True)
class Ended:
    """How a run of the program ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        assert (self.code, self.err) == (0, '')
        return json.loads(self.out)


Run = Callable[..., Ended]


@pytest.fixture(autouse=True)
def folders_of_the_host() -> Iterator[None]:
    """Let no test act on the caches of the host that it runs on, which may have some."""
    become_owner = shell.become_owner

    def of_the_test(cache_path: pathlib.Path) -> None:
        assert cache_path != pathlib.Path('/var/lib/nova/qcache')
        become_owner(cache_path)

    with mock.patch.object(shell, 'become_owner', of_the_test):
        yield


@pytest.fixture
def manager_class():
    """What the program makes its manager of."""
    with mock.patch.object(manager_module, 'Manager', autospec=True) as made:
        yield made


@pytest.fixture
def manager(manager_class):
    made = manager_class.return_value
    made.boots = mock.create_autospec(Boots, instance=True)
    made.time_series = mock.create_autospec(TimeSeries, instance=True)
    made.pins = mock.create_autospec(Pins, instance=True)
    made.pins.all.return_value = {}
    return made


@pytest.fixture
def run(short_folder, root_logger, capsys) -> Run:
    """Call the program as a shell would, with a configuration file that makes sense."""
    builders.config(short_folder)

    def call(*arguments: str) -> Ended:
        capsys.readouterr()
        try:
            code = shell.main([f'--config-file={short_folder / "nova.conf"}', *arguments])
        except SystemExit as e:  # of argparse
            code = int(e.code or 0)
        out, err = capsys.readouterr()
        return Ended(code, out, err)

    return call
