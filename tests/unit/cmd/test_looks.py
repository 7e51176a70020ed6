# SPDX-License-Identifier: Apache-2.0
"""Commands that look change nothing: no file, no folder, not even a time."""

import os
from typing import Any
from unittest import mock

import pytest

from nova_qcache.bases import probe
from nova_qcache.bases.file import FileSource
from nova_qcache.bases.generation import Generations
from nova_qcache.cache.catalog import Catalog
from nova_qcache.cmd import status
from nova_qcache.model.key import CacheKey
from nova_qcache.system.paths import Paths
from tests.unit import builders
from tests.unit.builders import IMAGE
from tests.unit.builders import OTHER_IMAGE

pytestmark = pytest.mark.usefixtures('others_may_write')

LOOKS = ['list', 'show', 'stats', 'stats --host', 'plan', 'check']


@pytest.fixture
def look(run, base):
    """Run one of these commands."""

    def look(command):
        words = command.split()
        if words[0] in ('show', 'plan'):
            words.append(IMAGE)
        if words[0] == 'plan':
            words.append(f'--base={base}')
        with mock.patch.object(probe, 'inspect', autospec=True, return_value=4096):
            return run(*words, '-f', 'json')

    return look


def tree(*folders):
    """Return all that is there, with what a change of it would change."""
    found = {}
    for folder in folders:
        for path in (folder, *folder.rglob('*')):
            facts = os.lstat(path)
            found[path] = (facts.st_ino, facts.st_mode, facts.st_mtime_ns, facts.st_ctime_ns)
    return found


@pytest.mark.parametrize('command', LOOKS)
def test_on_a_fresh_host(look, short_folder, base, command):
    before = tree(short_folder, base.parent)
    ended = look(command)
    assert ended.code == (1 if command == 'show' else 0), ended.out
    assert tree(short_folder, base.parent) == before


def test_the_next_boot_on_a_fresh_host(look):
    plan = look('plan').json
    assert (plan['kind'], plan['reason']) == ('RECORD', 'no cache yet')
    assert (plan['generation'], plan['socket']) == (None, None)


@pytest.mark.parametrize('is_fresh', [True, False])
def test_upgrade_check(short_folder, base, is_fresh):
    conf = builders.config(short_folder)
    if not is_fresh:
        Paths.from_conf(conf).prepare()
    before = tree(short_folder, base.parent)
    assert status.main([f'--config-file={short_folder / "nova.conf"}', 'upgrade', 'check']) in (
        0,
        1,
    )
    assert tree(short_folder, base.parent) == before


@pytest.mark.parametrize('there', ['ready', 'touched', 'damaged', 'stale', 'recorded', 'broken'])
@pytest.mark.parametrize('command', LOOKS)
def test_where_there_is_a_cache(look, short_folder, base, command, there):
    paths = Paths(short_folder / 'cache', short_folder / 'run')
    paths.prepare()
    catalog, source = Catalog(paths, 60), FileSource(str(base), 'raw')
    key = CacheKey(IMAGE, Generations(paths, 60).current(source))
    facts: dict[str, Any] = {'key': key, 'base': str(base), 'base_identity': source.identity()}
    if there == 'recorded':
        builders.warm(catalog, **facts)
    else:
        record = builders.ready(catalog, **facts)
        if there == 'stale':
            catalog.retire(record, 'x')
        elif there == 'damaged':
            os.truncate(catalog.paths.sealed(key), 1)
        elif there == 'broken':
            catalog.paths.record(key).write_bytes(b'x')
        elif there == 'touched':
            os.utime(base)
    builders.ready(catalog, key=CacheKey(OTHER_IMAGE, key.generation))
    before = tree(short_folder, base.parent)
    look(command)
    assert tree(short_folder, base.parent) == before
