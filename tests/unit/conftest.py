# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the unit tests: folders, a configuration, a catalog; no qemu and no root needed."""

from collections.abc import Iterator
import functools
import logging
import pathlib
import random
import shutil
import tempfile
from typing import Any
from unittest import mock

from oslo_config import cfg
import pytest

from nova_qcache import exception
from nova_qcache.bases import probe
from nova_qcache.bases.generation import Generations
from nova_qcache.cache import plugins
from nova_qcache.cache.catalog import Catalog
from nova_qcache.cache.leases import Leases
from nova_qcache.cache.pins import Pins
from nova_qcache.engine import manager as manager_module
from nova_qcache.engine.boots import Boots
from nova_qcache.engine.host import Host
from nova_qcache.engine.manager import Manager
from nova_qcache.recorder import launch
from nova_qcache.system import control
from nova_qcache.system import locks
from nova_qcache.system import paths as paths_module
from nova_qcache.system.paths import Paths
from tests import seeds
from tests.unit import builders


@pytest.fixture(autouse=True, scope='session')
def configuration_of_the_host() -> Iterator[None]:
    """Let no test read the configuration of the host that it runs on."""
    # Folders are read beside the files that a program is given.
    find = {name: getattr(cfg, name) for name in ('find_config_files', 'find_config_dirs')}

    def of_the_tests(name: str, *args: Any, **more: Any) -> list[str]:
        return [path for path in find[name](*args, **more) if path.startswith('/tmp/')]

    found: dict[str, Any] = {name: functools.partial(of_the_tests, name) for name in find}
    with mock.patch.multiple(cfg, **found):
        yield


@pytest.fixture(autouse=True)
def chance() -> None:
    """Begin what the product takes from :mod:`random` at the same place in each test."""
    random.seed(seeds.seed())


@pytest.fixture(autouse=True)
def lock_complaints() -> Iterator[list[str]]:
    """What waited for a lock out of order; at the end of a test there is nothing in it."""
    # Not raised where it happens: a boot's plan swallows every exception.
    complaints: list[str] = []
    with mock.patch.object(locks, 'complain', complaints.append):
        yield complaints
    assert not complaints


@pytest.fixture
def short_folder() -> Iterator[pathlib.Path]:
    """A folder whose sockets have short paths, unlike those in tmp_path."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix='qc-', dir='/tmp'))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def conf(short_folder):
    return builders.config(short_folder)


@pytest.fixture
def paths(conf):
    made = Paths.from_conf(conf)
    made.prepare()
    return made


@pytest.fixture
def catalog(paths):
    return Catalog(paths, 60)


@pytest.fixture
def leases(paths):
    return Leases(paths.leases, 300)


@pytest.fixture
def pins(paths):
    return Pins(paths, 60)


@pytest.fixture
def generations(paths):
    return Generations(paths, 60)


@pytest.fixture
def base(tmp_path):
    """A raw base image that is a file."""
    folder = tmp_path / 'images'
    folder.mkdir()
    path = folder / 'base'
    path.write_bytes(b'content of a base' * 512)
    return path


@pytest.fixture
def root_logger() -> Iterator[logging.Logger]:
    """The root logger, put back afterwards: programs give it handlers and levels."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield root
    for handler in root.handlers:
        if handler not in handlers:
            handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)


# -- what a manager works with; its catalog is a real one


@pytest.fixture
def find_source():
    with mock.patch.object(plugins, 'source', autospec=True) as made:
        made.return_value = builders.MemorySource()

        def found(reference, base_format, **more):
            made.return_value.reference, made.return_value.base_format = reference, base_format
            return mock.DEFAULT

        made.side_effect = found
        yield made


@pytest.fixture
def source(find_source):
    """The source of whatever base the manager is given."""
    return find_source.return_value


@pytest.fixture
def launch_start():
    with mock.patch.object(launch, 'start', autospec=True, return_value=builders.status()) as made:
        yield made


@pytest.fixture
def recorder():
    """The client of every recorder; nobody answers, unless a test says otherwise."""
    with mock.patch.object(control, 'RecorderClient', autospec=True) as made:
        client = made.return_value
        silence = exception.RecorderUnreachable(path='/x', reason='nobody')
        for verb in ('status', 'expect_guest', 'drop', 'seal', 'leave', 'dismiss', 'hold'):
            getattr(client, verb).side_effect = silence
        yield client


@pytest.fixture
def verifier():
    with mock.patch.object(manager_module, 'Verifier', autospec=True) as made:
        yield made.return_value


@pytest.fixture
def current():
    """The question for the generation of a base; a test may give another answer."""
    answer = builders.GENERATION
    with (
        mock.patch.object(Generations, 'current', autospec=True, return_value=answer) as made,
        mock.patch.object(Generations, 'known', lambda *_: made.return_value),
    ):
        yield made


@pytest.fixture
def inspect_base():
    """The look into a base that is to be recorded; it is fit, unless a test says otherwise."""
    with mock.patch.object(probe, 'inspect', autospec=True, return_value=4096) as made:
        yield made


@pytest.fixture
def boots(conf, source, launch_start, recorder, current, inspect_base):
    return Boots(Host(conf))


@pytest.fixture
def manager(conf, source, launch_start, recorder, verifier, current, inspect_base):
    return Manager(conf)


@pytest.fixture
def others_may_write() -> Iterator[None]:
    """To the folders that are above ours, which are root's if root runs the tests."""
    with mock.patch.object(paths_module, '_is_closed_to_others', autospec=True) as made:
        made.return_value = False
        yield
