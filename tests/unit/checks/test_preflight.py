# SPDX-License-Identifier: Apache-2.0
"""Is a host fit: each thing that is wrong is one finding with its remedy."""

import os
from unittest import mock

from oslo_config import cfg
import pytest

from nova_qcache import conf as qcache_conf
from nova_qcache import exception
from nova_qcache.checks import preflight
from nova_qcache.checks import registry
from nova_qcache.checks.registry import Finding
from nova_qcache.checks.registry import Grade
from nova_qcache.qemu import block_graph
from nova_qcache.qemu import img
from nova_qcache.system import confinement
from nova_qcache.system import files
from nova_qcache.system import libvirt_guests
from nova_qcache.system.glance import Glance
from nova_qcache.system.libvirt_domains import LibvirtDomains
from nova_qcache.system.paths import Paths
from tests.unit import builders
from tests.unit.builders import MIB

pytestmark = pytest.mark.usefixtures('others_may_write')

SUBJECTS = [
    'configuration',
    'options',
    'qemu_img',
    'qemu_io',
    'qemu_storage_daemon',
    'block drivers',
    'folders',
    'reservation',
    'O_DIRECT',
    'budget',
    'space',
    'confinement',
    'glance',
]


@pytest.fixture
def version():
    with mock.patch.object(img, 'require_version', autospec=True) as made:
        made.return_value = (7, 2, 22)
        yield made


@pytest.fixture
def drivers():
    with mock.patch.object(img.QemuImg, 'drivers', autospec=True) as made:
        made.return_value = set(block_graph.DRIVERS)
        yield made


@pytest.fixture
def reserve():
    with mock.patch.object(files, 'reserve', autospec=True) as made:
        yield made


@pytest.fixture
def direct_io():
    with mock.patch.object(files, 'supports_direct_io', autospec=True) as made:
        made.return_value = True
        yield made


@pytest.fixture
def free():
    with mock.patch.object(files, 'free_bytes', autospec=True) as made:
        made.return_value = 100 * MIB
        yield made


@pytest.fixture
def problem():
    with mock.patch.object(confinement, 'problem', autospec=True, return_value=None) as made:
        yield made


@pytest.fixture
def ask_glance():
    with mock.patch.object(Glance, 'check', autospec=True, return_value='http://glance') as made:
        yield made


@pytest.fixture(autouse=True)
def host(version, drivers, reserve, direct_io, free, problem, ask_glance, monkeypatch):
    """A host on which all is well; a test spoils one thing."""
    plain = builders.config

    def config(folder, **options):
        return plain(folder, **{'glance_auth_section': 'admin', **options})

    monkeypatch.setattr(builders, 'config', config)


def run_checks(conf):
    return dict(registry.run(preflight.CHECKS, conf))


def bad(conf):
    """The subject and finding of the one that is not good."""
    (found,) = [each for each in run_checks(conf).items() if each[1].grade is not Grade.OK]
    return found


def test_a_fit_host(conf):
    found = run_checks(conf)
    assert list(found) == SUBJECTS
    assert {finding.grade for finding in found.values()} == {Grade.OK}
    assert {finding.remedy for finding in found.values()} == {''}
    assert found['qemu_io'].found == 'qemu-io 7.2.22'
    assert '100 MiB free, room for 6 recordings' in found['space'].found
    assert 'quorum' in found['block drivers'].found


def test_each_tool_is_the_configured_one(short_folder, version):
    options = {'qemu_img': '/a', 'qemu_io': '/b', 'qemu_storage_daemon': '/c'}
    run_checks(builders.config(short_folder, **options))
    assert [call.args for call in version.call_args_list] == [
        ('/a', 'qemu_img'),
        ('/b', 'qemu_io'),
        ('/c', 'qemu_storage_daemon'),
    ]


def test_folders_that_are_yet_to_be_made(short_folder):
    conf = builders.config(short_folder)
    paths = Paths.from_conf(conf)
    assert not paths.cache_path.exists()
    made = f'nova-compute makes {paths.cache_path} and {paths.run_path} when it starts'
    assert run_checks(conf)['folders'].found.endswith(f'; {made}')
    paths.prepare()
    assert run_checks(conf)['folders'].found == f'{paths.cache_path}, {paths.run_path}'


@pytest.mark.parametrize('option', ['cache_path', 'run_path'])
def test_a_folder_that_cannot_be_made(short_folder, option):
    path = short_folder / 'none' / 'x'
    found = run_checks(builders.config(short_folder, **{option: str(path)}))['folders']
    assert found == Finding(
        Grade.ERROR,
        f'The folder {str(path)!r} cannot be used: it is not there, and user {os.geteuid()} '
        'cannot make it',
        'Make it, and give it to the user that nova-compute runs as.',
    )


def test_a_configuration_that_makes_no_sense(short_folder):
    subject, found = bad(builders.config(short_folder, recording_idle_seconds=0))
    assert subject == 'configuration'
    assert found == Finding(
        Grade.ERROR,
        "[qcache] recording_idle_seconds = '0': it is not a whole number from 1",
        'Give a whole number from 1.',
    )


def test_a_value_of_another_type(short_folder):
    subject, found = bad(builders.config(short_folder, max_recorders='many'))
    assert subject == 'configuration'
    assert found == Finding(
        Grade.ERROR,
        "[qcache] max_recorders = 'many': it is not a whole number from 1",
        'Give a whole number from 1.',
    )


@pytest.mark.parametrize('value', ['$foo', '$qemu_img'])
def test_a_value_that_cannot_be_read_hides_no_other_finding(short_folder, value):
    found = run_checks(builders.config(short_folder, qemu_img=value))
    assert found['configuration'].grade is Grade.ERROR
    assert found['qemu_img'].grade is Grade.ERROR
    assert 'Write $$ for a $' in found['qemu_img'].remedy
    assert found['qemu_io'].grade is Grade.OK


def test_files_and_values_in_force_are_said(short_folder, tmp_path):
    builders.config(short_folder, quota='32MiB')
    folder = tmp_path / 'conf.d'
    folder.mkdir()
    (folder / 'b.conf').write_text('[qcache]\nmax_recorders = 3\n')
    (folder / 'a.conf').write_text('[qcache]\nmax_recorders = 2\n[other]\nqouta = 1\n')
    conf = cfg.ConfigOpts()
    qcache_conf.register_opts(conf)
    conf([f'--config-file={short_folder}/nova.conf', f'--config-dir={folder}'], project='nova')
    found = run_checks(conf)
    read = f'read from {short_folder}/nova.conf, {folder}/a.conf, {folder}/b.conf'
    assert found['configuration'].found == read
    assert found['options'].grade is Grade.OK
    for said in (
        'quota = 32MiB, ',
        'max_recorders = 3, ',
        'all other options have their defaults',
    ):
        assert said in found['options'].found
    assert 'audit_every' not in found['options'].found


def test_nothing_is_read(conf):
    conf.reset()
    conf([], project='nova', default_config_files=[], default_config_dirs=[])
    found = dict(registry.run(preflight.CHECKS[:2], conf))
    assert found['configuration'].found == 'read from no file'
    assert found['options'].found == 'all options have their defaults'


@pytest.mark.parametrize(
    ('name', 'remedy'),
    [
        ('qouta', 'Did you mean quota?'),
        ('max_recorder', 'Did you mean max_recorders?'),
        ('frobnication', 'Remove it, or correct its name.'),
    ],
)
def test_an_option_that_nobody_knows(short_folder, name, remedy):
    subject, found = bad(builders.config(short_folder, **{name: 5}))
    assert (subject, found.grade, found.remedy) == ('options', Grade.WARNING, remedy)
    assert f'[qcache] has no option {name} ({short_folder}/nova.conf); ' in found.found


@pytest.mark.parametrize('option', ['qemu_img', 'qemu_io', 'qemu_storage_daemon'])
def test_a_tool_that_is_missing(conf, version, option):
    def look(tool, asked):
        if asked == option:
            raise exception.ToolMissing(tool=tool, reason='gone', package='QEMU', option=asked)
        return (7, 2)

    version.side_effect = look
    subject, found = bad(conf)
    assert (subject, found.grade) == (option, Grade.ERROR)
    assert found.remedy == f'Install QEMU or set [qcache] {option} to its path.'


@pytest.mark.parametrize('driver', block_graph.DRIVERS)
def test_a_driver_that_is_missing(conf, drivers, driver):
    drivers.return_value.remove(driver)
    subject, found = bad(conf)
    assert (subject, found.grade) == ('block drivers', Grade.ERROR)
    assert f"the block driver '{driver}'" in found.found
    assert 'Install a qemu that has it' in found.remedy


def test_folders_that_are_none(conf, short_folder):
    (short_folder / 'cache').write_text('')
    found = run_checks(conf)
    assert list(found) == [*SUBJECTS[:7], 'glance'], 'what needs the folders is not asked'
    assert found['folders'].grade is Grade.ERROR
    assert found['folders'].remedy == 'Move it away or name another folder.'


def test_a_run_path_that_is_too_long(short_folder):
    conf = builders.config(short_folder, run_path=str(short_folder / ('r' * 60)))
    found = run_checks(conf)['folders']
    assert found.grade is Grade.ERROR
    assert found.remedy == 'Set [qcache] run_path to a folder with a shorter name.'


def test_a_group_that_does_not_exist(short_folder):
    subject, found = bad(builders.config(short_folder, qemu_group='no-such-group'))
    assert subject == 'folders'
    assert "'no-such-group'" in found.found
    assert 'Set [qcache] qemu_group' in found.remedy


def test_no_reservation(conf, reserve):
    reserve.side_effect = exception.NoReservation(path='/x', reason='no', remedy='Do this')
    subject, found = bad(conf)
    assert (subject, found.grade) == ('reservation', Grade.ERROR)
    assert found.remedy == 'Do this.'


def test_no_direct_io(conf, direct_io):
    direct_io.return_value = False
    subject, found = bad(conf)
    assert (subject, found.grade) == ('O_DIRECT', Grade.WARNING)
    assert 'has no O_DIRECT' in found.found
    assert 'set disk_cachemodes' in found.remedy


def test_a_budget(short_folder):
    conf = builders.config(short_folder, cache_budget='32MiB', min_free='90MiB')
    found = run_checks(conf)['budget']
    assert found.grade is Grade.OK
    assert (
        'caches take 0 MiB of 32, and 100 MiB are free, of which 90 must stay free' in found.found
    )


def test_a_pool_that_is_over_its_budget(short_folder, catalog):
    builders.ready(catalog, b'x' * (17 * MIB))
    subject, found = bad(builders.config(short_folder, cache_budget='16MiB'))
    assert (subject, found.grade) == ('budget', Grade.WARNING)
    assert f'exceed their limits by {MIB} bytes: caches take 17 MiB of 16' in found.found
    assert 'raise [qcache] cache_budget' in found.remedy


def test_less_free_than_stays_so(short_folder):
    subject, found = bad(builders.config(short_folder, min_free='101MiB'))
    assert (subject, found.grade) == ('budget', Grade.WARNING)
    assert f'exceed their limits by {MIB} bytes' in found.found


def test_a_share_that_has_no_room_for_one_quota(short_folder):
    with mock.patch('shutil.disk_usage', autospec=True) as usage:
        usage.return_value.total = 100 * MIB
        subject, found = bad(builders.config(short_folder, cache_budget='10%'))
    assert (subject, found.grade) == ('budget', Grade.ERROR)
    assert 'cache_budget = 10%' in found.found


@pytest.mark.parametrize(('bytes_free', 'enough'), [(16 * MIB, True), (16 * MIB - 1, False)])
def test_space(conf, free, bytes_free, enough):
    free.return_value = bytes_free
    if enough:
        assert 'room for 1 recordings' in run_checks(conf)['space'].found
        return
    subject, found = bad(conf)
    assert (subject, found.grade) == ('space', Grade.ERROR)
    assert f'is more than the {bytes_free} bytes that are free' in found.found
    assert 'Set [qcache] quota (MiB) to less' in found.remedy


def test_guests_that_may_not_connect(conf, paths, problem):
    problem.return_value = 'a rule is missing; add `/x rw,` to the file; or not'
    subject, found = bad(conf)
    assert subject == 'confinement'
    assert found == Finding(
        Grade.WARNING,
        'boots cannot record on this host, and play existing caches only: a rule is missing',
        'Add `/x rw,` to the file; or not.',
    )
    problem.assert_called_once_with(paths.guests)


def test_a_system_error_is_a_finding(conf, reserve):
    reserve.side_effect = OSError(5, 'Input/output error')
    assert 'Input/output error' in bad(conf)[1].found


@pytest.mark.parametrize('path', ['relative', 'with\0NUL'])
def test_a_path_that_makes_no_sense_makes_no_folder(short_folder, tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    found = run_checks(builders.config(short_folder, cache_path=path, run_path=path))
    assert found['configuration'].grade is Grade.ERROR
    assert os.listdir(tmp_path) == []


def test_a_name_with_a_full_stop_is_not_the_end_of_the_finding(short_folder):
    path = short_folder / 'St. Mary'
    path.write_text('')
    found = run_checks(builders.config(short_folder, cache_path=str(path)))['folders']
    assert str(path) in found.found
    assert found.remedy == 'Move it away or name another folder.'


# -- libvirt


def libvirt_of(folder):
    return run_checks(builders.config(folder, libvirt_uri='qemu:///x'))['libvirt']


def test_libvirt(short_folder):
    with mock.patch.object(LibvirtDomains, 'version', autospec=True, return_value=(9, 0, 0)):
        found = libvirt_of(short_folder)
    assert (found.grade, found.found) == (
        Grade.OK,
        'qemu:///x is version 9.0.0, and its guests may be resumed',
    )


def test_a_libvirt_that_lets_nobody_write(short_folder):
    refusal = exception.DomainsUnknown(uri='qemu:///x', reason='authentication failed')
    with mock.patch.object(LibvirtDomains, 'version', autospec=True, side_effect=refusal):
        found = libvirt_of(short_folder)
    assert found.grade is Grade.WARNING
    assert 'authentication failed' in found.found
    assert 'libvirt_uri' in found.remedy


def test_no_libvirt(conf):
    assert not {'libvirt', 'libvirt-guests'}.intersection(run_checks(conf))


@pytest.mark.parametrize(
    ('saves', 'grades'), [(True, [Grade.WARNING]), (False, [Grade.OK]), (None, [])]
)
def test_libvirt_guests(short_folder, saves, grades):
    with (
        mock.patch.object(LibvirtDomains, 'version', autospec=True, return_value=(9, 0, 0)),
        mock.patch.object(libvirt_guests, 'saves', autospec=True, return_value=saves),
        mock.patch.object(libvirt_guests, 'setting', autospec=True, return_value='/x'),
    ):
        examined = run_checks(builders.config(short_folder, libvirt_uri='qemu:///x'))
        found = [each for name, each in examined.items() if name == 'libvirt-guests']
    assert [each.grade for each in found] == grades
    assert all('in /x.' in each.remedy for each in found if each.remedy)


# -- Glance


def test_the_section_is_asked_with(short_folder, ask_glance):
    found = run_checks(builders.config(short_folder))['glance']
    assert found == Finding(Grade.OK, 'http://glance')
    assert ask_glance.call_args.args[0]._section == 'admin'


def test_nobody_asks_glance(short_folder, ask_glance):
    subject, found = bad(builders.config(short_folder, glance_auth_section=''))
    assert subject == 'glance'
    assert found == Finding(
        Grade.WARNING,
        'Glance is not asked: caches of deleted images expire by age only',
        'Set [qcache] glance_auth_section to a section with the credentials of an admin.',
    )
    ask_glance.assert_not_called()


def test_a_glance_that_does_not_tell(conf, ask_glance):
    ask_glance.side_effect = exception.GlanceUnknown(
        section='admin', reason='it answers 403', remedy='Give its user the role admin'
    )
    subject, found = bad(conf)
    assert (subject, found.grade) == ('glance', Grade.WARNING)
    assert 'it answers 403' in found.found
    assert found.remedy == 'Give its user the role admin.'
