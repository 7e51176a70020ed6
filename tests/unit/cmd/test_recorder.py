# SPDX-License-Identifier: Apache-2.0
"""The program nova-qcache-recorder: its arguments, its exit codes, what it leaves."""

import os
from unittest import mock

import pytest

from nova_qcache import exception
from nova_qcache.bases.file import FileSource
from nova_qcache.cmd import recorder as program
from nova_qcache.model.key import CacheKey
from nova_qcache.recorder import launch
from nova_qcache.recorder.finish import Limits
from nova_qcache.system.paths import Paths
from tests.unit import builders
from tests.unit.builders import IMAGE
from tests.unit.builders import MIB


@pytest.fixture(autouse=True)
def surroundings(root_logger):
    """The program sets the umask and the logging of its process."""
    old = os.umask(0o022)
    yield
    os.umask(old)


@pytest.fixture
def service():
    """What the program makes its recorder of."""
    with mock.patch.object(program, 'Recorder', autospec=True) as made:
        yield made


@pytest.fixture
def run(short_folder, base, service):
    builders.config(short_folder)

    def call(*options, image_id=IMAGE):
        return program.main(
            [f'--config-file={short_folder / "nova.conf"}', f'--base={base}', *options, image_id]
        )

    return call


def test_a_recorder_is_made_of_options_and_arguments(run, service, base, short_folder):
    builders.config(
        short_folder,
        cluster_size=65536,
        extended_l2=True,
        qemu_storage_daemon='/opt/qsd',
        qemu_img='/opt/img',
        recording_idle_seconds=5,
        recording_settle_seconds=4,
        recording_max_seconds=3,
        guest_grace_seconds=2,
        plan_lease_seconds=1,
        base_reconnect_seconds=9,
    )
    assert run('--base-format=qcow2', image_id=IMAGE.upper()) == 0
    key, source, catalog, tool, settings = service.call_args.args
    assert key.image_id == IMAGE
    assert (source.reference, source.base_format) == (str(base), 'qcow2')
    assert source.reconnect_seconds == 9
    assert catalog.paths == Paths(short_folder / 'cache', short_folder / 'run')
    assert tool.program == '/opt/img'
    assert settings.quota == 16 * MIB
    assert (settings.cluster_size, settings.extended_l2) == (65536, True)
    assert settings.limits == Limits(idle=5, settle=4, longest=3, grace=2, lease=1)
    assert settings.storage_daemon == '/opt/qsd'
    service.return_value.run.assert_awaited_once_with()


@pytest.mark.parametrize('option', ['--quota=3', '--quota=3M', '--quota-mib=3'])
def test_a_quota_of_its_own(run, service, option):
    """The last one is what a recorder of an older version was started with."""
    assert run(option) == 0
    assert service.call_args.args[4].quota == 3 * MIB


def test_the_generation_is_that_of_the_base(run, service, generations, base):
    current = generations.raise_before_write(FileSource(str(base), 'raw'))
    assert run() == 0
    assert service.call_args.args[0] == CacheKey(IMAGE, current)


def test_a_generation_that_is_over_is_not_recorded(run, service, generations, base, capsys):
    """Whoever has started it would wait for the sockets of a cache that nobody makes."""
    source = FileSource(str(base), 'raw')
    before = generations.current(source)
    assert run(f'--generation={before}') == 0
    service.reset_mock()
    now = generations.raise_before_write(source)
    assert run(f'--generation={before}') == 1
    assert (
        f'the base was written meanwhile and now has generation {now}' in capsys.readouterr().err
    )
    service.assert_not_called()
    assert run(f'--generation={before}', '--serve-only') == 0  # guests of before are served


def test_an_audit(run, service, short_folder, generations, base):
    builders.config(short_folder, rerecord_miss_percent=7)
    current = generations.current(FileSource(str(base), 'raw'))
    assert run(f'--generation={current}', '--revision=2', '--audit') == 0
    key, _, _, _, settings = service.call_args.args
    assert key == CacheKey(IMAGE, current, 2)
    assert settings.audit
    assert '--audit' in settings.arguments, 'it is started again as one'
    assert settings.rerecord_miss_percent == 7
    assert not settings.serve_only


def test_a_recording_beside_one_that_no_boot_can_use(run, service, generations, base):
    current = generations.current(FileSource(str(base), 'raw'))
    assert run(f'--generation={current}', '--revision=2') == 0
    key, _, _, _, settings = service.call_args.args
    assert key == CacheKey(IMAGE, current, 2)
    assert not settings.audit
    assert '--audit' not in settings.arguments


def test_a_revision_that_makes_no_sense(run, service):
    with pytest.raises(SystemExit):
        run('--revision=0')
    service.assert_not_called()


def test_another_one_is_at_work(run, service, capsys):
    service.return_value.run.side_effect = exception.RecorderBusy(image_id=IMAGE, name='x')
    assert run() == launch.BUSY


@pytest.mark.parametrize(
    'error',
    [
        exception.NoReservation(path='/x', reason='full', remedy='Free space'),
        PermissionError(13, 'Permission denied', '/x'),
    ],
)
def test_an_error_is_its_last_words(run, service, capsys, error):
    service.return_value.run.side_effect = error
    assert run() == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert said == exception.sentence(error)
    assert 'Errno' not in said


@pytest.mark.parametrize(
    ('options', 'image_id', 'words'),
    [
        ([], '../x', "'../x' is not an image ID"),
        (['--base-format=vmdk'], IMAGE, "its format is 'vmdk'"),
        (['--base=relative'], IMAGE, 'it is not an absolute path'),
        (['--quota=0'], IMAGE, 'A quota of 0 bytes'),
        (['--quota=-1'], IMAGE, "[qcache] quota = '-1': it is not an amount"),
    ],
)
def test_arguments_that_make_no_sense(run, service, capsys, options, image_id, words):
    assert run(*options, image_id=image_id) == 1
    assert words in capsys.readouterr().err.splitlines()[-1]
    service.return_value.run.assert_not_called()


def test_a_configuration_that_makes_no_sense(run, service, short_folder, capsys):
    builders.config(short_folder, recording_idle_seconds=0)
    assert run() == 1
    assert "[qcache] recording_idle_seconds = '0'" in capsys.readouterr().err.splitlines()[-1]
    service.assert_not_called()


def test_a_configuration_file_that_is_not_there(service, tmp_path, capsys):
    assert program.main([f'--config-file={tmp_path / "gone"}', '--base=/x', IMAGE]) == 1
    assert str(tmp_path / 'gone') in capsys.readouterr().err
    service.assert_not_called()


def test_what_it_makes_is_its_own(run, service):
    seen = []
    service.return_value.run.side_effect = lambda: seen.append(os.umask(0o077))
    run()
    assert seen == [0o077]


@pytest.mark.parametrize(
    ('error', 'there'),
    [(None, False), (exception.RecorderFailed(image_id=IMAGE, reason='x'), True)],
)
def test_words_are_left_only_of_what_went_wrong(run, service, short_folder, error, there):
    logs = []

    def work():
        paths = Paths(short_folder / 'cache', short_folder / 'run')
        logs.append(paths.log(service.call_args.args[0]))
        logs[0].write_text('words')
        if error:
            raise error

    service.return_value.run.side_effect = work
    run()
    assert logs[0].exists() == there
