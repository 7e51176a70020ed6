# SPDX-License-Identifier: Apache-2.0
"""What an upgrade finds on a host."""

import json
import os
import pathlib
import socket
from unittest import mock

import pytest

from nova_qcache.cache.catalog import Catalog
from nova_qcache.checks import upgrade
from nova_qcache.checks.preflight import Finding
from nova_qcache.checks.preflight import Grade
from nova_qcache.model.key import CacheKey
from nova_qcache.recorder import respawn
from nova_qcache.system import processes
from tests.unit import builders
from tests.unit.builders import IMAGE
from tests.unit.builders import KEY
from tests.unit.builders import OTHER_IMAGE

OTHER = CacheKey(OTHER_IMAGE, builders.GENERATION)


@pytest.fixture
def found(conf, paths):
    """What is found, by its subject."""
    return lambda: {finding.subject: finding for finding in upgrade.run_checks(conf)}


def test_a_host_with_nothing(found):
    assert list(found().values()) == [
        Finding('caches', Grade.OK, 'all 0 records can be read'),
        Finding('recorders', Grade.OK, 'none at work'),
    ]


def test_a_host_that_never_had_a_folder(conf):
    assert {finding.grade for finding in upgrade.run_checks(conf)} == {Grade.OK}


# -- caches


def as_version(catalog, key, version):
    path = catalog.paths.record(key)
    path.write_text(json.dumps({**json.loads(path.read_text()), 'version': version}))


def test_records_of_this_version(found, catalog):
    builders.ready(catalog)
    builders.warm(catalog, key=OTHER)
    assert found()['caches'] == Finding('caches', Grade.OK, 'all 2 records can be read')


def test_a_record_of_a_newer_version(found, catalog):
    builders.ready(catalog)
    builders.ready(catalog, key=OTHER)
    as_version(catalog, KEY, 2)
    assert found()['caches'] == Finding(
        'caches',
        Grade.WARNING,
        f'of 2 records, 1 were written by a newer nova-qcache ({IMAGE}): their images are '
        'recorded again',
        'Install the nova-qcache that wrote them, or remove the caches with `nova-qcache remove '
        'IMAGE`.',
    )


def test_records_of_both_kinds(found, catalog):
    builders.ready(catalog)
    builders.ready(catalog, key=OTHER)
    as_version(catalog, KEY, 7)
    catalog.paths.record(OTHER).write_text('{}')
    said = found()['caches'].found
    assert f'1 were written by a newer nova-qcache ({IMAGE}) and 1 cannot be read' in said
    assert OTHER_IMAGE in said


def test_many_images_are_not_all_named(found, catalog):
    for number in range(7):
        key = CacheKey(f'0a1b2c3d-4e5f-6071-8293-{number:012}', builders.GENERATION)
        builders.ready(catalog, key=key)
        as_version(catalog, key, 2)
    said = found()['caches'].found
    assert said.count('0a1b2c3d-') == 5
    assert '000000000004, 2 more)' in said


def test_a_folder_that_cannot_be_read(found, paths):
    with mock.patch.object(Catalog, 'keys', autospec=True) as keys:
        keys.side_effect = OSError(5, 'Input/output error')
        finding = found()['caches']
    assert (finding.grade, finding.remedy) == (
        Grade.ERROR,
        'Check whether its storage is sound.',
    )
    assert 'Input/output error' in finding.found


# -- recorders


@pytest.fixture
def recorder(paths):
    """Listens on the control socket of a recorder whose respawn spec is of that time."""
    doors = []

    def start(key, started_at):
        control_server = socket.socket(socket.AF_UNIX)
        doors.append(control_server)
        control_server.bind(str(paths.control_socket(key)))
        control_server.listen()
        note(paths, key, started_at)

    yield start
    for control_server in doors:
        control_server.close()


def note(paths, key, started_at):
    respawn.note(paths, key, ['--base=/x', key.image_id])
    os.utime(paths.respawn_spec(key), (started_at, started_at))


def installed_at():
    package = pathlib.Path(upgrade.__file__).parents[1]
    return max(path.stat().st_ctime for path in package.rglob('*.py'))


def test_recorders_of_this_version(found, recorder):
    recorder(KEY, installed_at() + 1)
    recorder(OTHER, installed_at() + 100)
    assert found()['recorders'] == Finding('recorders', Grade.OK, '2 at work, all of this version')


def test_a_recorder_of_before(found, recorder):
    recorder(KEY, installed_at() - 1)
    recorder(OTHER, installed_at() + 1)
    assert found()['recorders'] == Finding(
        'recorders',
        Grade.WARNING,
        '1 of 2 were started before this nova-qcache was installed, and still run the older '
        f'version ({IMAGE})',
        'Nothing to do: each ends with the last server that reads through it.',
    )


def test_a_recorder_that_was_killed_is_none(found, paths):
    note(paths, KEY, 1)
    assert found()['recorders'].found == 'none at work'


def test_a_recorder_that_does_not_listen_now_lives(found, recorder):
    recorder(KEY, 1)
    with mock.patch.object(processes, 'listener_pid', autospec=True) as listener:
        listener.side_effect = BlockingIOError(11, 'Resource temporarily unavailable')
        assert found()['recorders'].grade is Grade.WARNING


def test_a_recorder_that_ends_meanwhile(found, recorder, paths):
    recorder(KEY, 1)

    def end(path):
        paths.respawn_spec(KEY).unlink()
        return 1

    with mock.patch.object(processes, 'listener_pid', autospec=True, side_effect=end):
        assert found()['recorders'].found == 'none at work'
