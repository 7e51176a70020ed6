# SPDX-License-Identifier: Apache-2.0
"""What an upgrade finds on a host."""

import dataclasses
from importlib import metadata
import importlib.util
import json
import os
import pathlib
import re
import socket
import sys
from unittest import mock

from oslo_config import cfg
import pytest

from nova_qcache import exception
from nova_qcache.cache.catalog import Catalog
from nova_qcache.checks import preflight
from nova_qcache.checks import registry
from nova_qcache.checks import upgrade
from nova_qcache.checks.registry import Finding
from nova_qcache.checks.registry import Grade
from nova_qcache.model.key import CacheKey
from nova_qcache.recorder import respawn
from nova_qcache.system import processes
from nova_qcache.virt import compatibility
from tests.unit import builders
from tests.unit.builders import IMAGE
from tests.unit.builders import KEY
from tests.unit.builders import OTHER_IMAGE

OTHER = CacheKey(OTHER_IMAGE, builders.GENERATION)
DRIVER = 'qcache.QcacheDriver'
ROOT = pathlib.Path(__file__).parents[3]
CHECKS = {each.subject: dataclasses.replace(each, needs='') for each in upgrade.CHECKS}


def look(conf, *subjects):
    """What is found, by its subject."""
    return dict(registry.run([CHECKS[each] for each in subjects], conf))


@pytest.fixture
def found(conf, paths):
    return lambda: look(conf, 'caches', 'recorders')


def test_a_host_with_nothing(found):
    assert list(found().values()) == [
        Finding(Grade.OK, 'all 0 records can be read'),
        Finding(Grade.OK, 'none at work'),
    ]


def test_a_host_that_never_had_a_folder(conf):
    assert {each.grade for each in look(conf, 'caches', 'recorders').values()} == {Grade.OK}


@pytest.mark.parametrize(
    ('subject', 'is_looked_into'),
    [('configuration', False), ('folders', False), ('qemu_img', True), ('glance', True)],
)
def test_only_folders_that_make_sense_are_looked_into(subject, is_looked_into):
    def answer(conf):
        return 'fine'

    def fail(conf):
        raise exception.NotPinned(image_id=IMAGE)

    found = dict(
        registry.run(
            [
                dataclasses.replace(each, look=fail if each.subject == subject else answer)
                for each in upgrade.CHECKS
            ],
            cfg.ConfigOpts(),
        )
    )
    assert ('caches' in found, 'recorders' in found) == (is_looked_into, is_looked_into)
    assert found[subject].grade is not Grade.OK
    assert 'nova' in found


# -- caches


def as_version(catalog, key, version):
    path = catalog.paths.record(key)
    path.write_text(json.dumps({**json.loads(path.read_text()), 'version': version}))


def test_records_of_this_version(found, catalog):
    builders.ready(catalog)
    builders.warm(catalog, key=OTHER)
    assert found()['caches'] == Finding(Grade.OK, 'all 2 records can be read')


def test_a_record_of_a_newer_version(found, catalog):
    builders.ready(catalog)
    builders.ready(catalog, key=OTHER)
    as_version(catalog, KEY, 2)
    assert found()['caches'] == Finding(
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
    assert found()['recorders'] == Finding(Grade.OK, '2 at work, all of this version')


def test_a_recorder_of_before(found, recorder):
    recorder(KEY, installed_at() - 1)
    recorder(OTHER, installed_at() + 1)
    assert found()['recorders'] == Finding(
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


# -- Nova


@pytest.fixture
def moved():
    with mock.patch.object(compatibility, 'moved', autospec=True, return_value=[]) as made:
        yield made


@pytest.fixture
def find_spec():
    with mock.patch.object(importlib.util, 'find_spec', autospec=True) as made:
        yield made


@pytest.fixture
def nova(moved, find_spec):
    """Ask with a Nova of that version, and that driver in the configuration."""

    def call(number=None, driver=None):
        conf = cfg.ConfigOpts()
        conf.register_opt(cfg.StrOpt('compute_driver', default=driver))
        none = metadata.PackageNotFoundError('nova')
        with mock.patch.object(metadata, 'version', autospec=True) as version:
            version.side_effect = none if number is None else [number]
            found = look(conf, 'nova')['nova']
        version.assert_called_once_with('nova')
        return found

    return call


def test_a_host_without_nova(nova):
    assert nova() == Finding(
        Grade.OK, 'Nova is not installed here: nova-qcache is used without it'
    )


def test_a_driver_without_nova(nova):
    assert nova(driver=DRIVER) == Finding(
        Grade.ERROR,
        f'nova.conf has compute_driver = {DRIVER}, and {sys.executable} has no Nova',
        'Install nova-qcache where nova-compute is installed.',
    )


@pytest.mark.parametrize('number', ['31.0.0', '34.5.1'])
def test_a_nova_that_is_tested(nova, number):
    said = f'Nova {number} fits; these configuration files have compute_driver = {DRIVER}'
    assert nova(number, DRIVER) == Finding(Grade.OK, said)


def test_a_driver_that_is_named_elsewhere(nova, find_spec):
    """nova-compute may have files of its own that nobody else reads."""
    find_spec.return_value = None
    assert nova('34.0.0') == Finding(
        Grade.OK, 'Nova 34.0.0 fits; these configuration files have no compute_driver'
    )


@pytest.mark.parametrize('number', ['30.3.0', '35.0.0', 'master'])
def test_a_nova_that_is_not_tested(nova, number):
    found = nova(number)
    assert (found.grade, found.remedy) == (Grade.WARNING, 'Try it on one host.')
    assert f'Nova {number} has all' in found.found
    assert found.found.endswith('tested with 31 to 34')


def test_a_nova_that_does_not_fit(nova, moved):
    moved.return_value = ['a is gone', 'b takes c']
    found = nova('34.0.0')
    assert found.grade is Grade.ERROR
    assert found.found.endswith('without a cache: a is gone; b takes c')
    assert found.remedy.startswith('Upgrade nova-qcache')


def test_a_nova_elsewhere_than_the_driver(nova, find_spec):
    find_spec.return_value = None
    found = nova('34.0.0', DRIVER)
    assert found.grade is Grade.ERROR
    assert found.found.endswith('Nova 34.0.0 does not find nova.virt.qcache')
    find_spec.assert_called_once_with('nova.virt.qcache')
    assert found.remedy.startswith('Install nova-qcache')


def test_the_tested_versions_are_those_of_the_test_command():
    (said,) = re.findall(r'^novas=\((\d+) (\d+)\)$', (ROOT / 'tools/test.sh').read_text(), re.M)
    assert [upgrade._TESTED_NOVAS[0], upgrade._TESTED_NOVAS[-1]] == [int(each) for each in said]


# -- the manual


OF_UPGRADE = [each for each in upgrade.CHECKS if each not in preflight.CHECKS]


@pytest.mark.parametrize(
    ('page', 'checks'), [('nova-qcache', preflight.CHECKS), ('nova-qcache-status', OF_UPGRADE)]
)
def test_the_manual_has_all_checks(page, checks):
    text = (ROOT / f'doc/source/cli/{page}.rst').read_text().partition('\nChecks\n')[2]
    named = re.findall(r'^``([^`]+)``(?: |$)', text, re.MULTILINE)
    assert named == [each.subject for each in checks]
