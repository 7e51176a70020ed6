# SPDX-License-Identifier: Apache-2.0
"""nova-qcache-status."""

from importlib import metadata
import importlib.util
import json
import os
import pathlib
import re
import sys
from unittest import mock

import pytest

from nova_qcache.checks import preflight
from nova_qcache.checks import upgrade
from nova_qcache.checks.preflight import Finding
from nova_qcache.checks.preflight import Grade
from nova_qcache.cmd import shell
from nova_qcache.cmd import status
from nova_qcache.virt import compatibility
from tests.unit import builders

ROOT = pathlib.Path(__file__).parents[3]

FINE = Finding('one', Grade.OK, 'found')
WARNING = Finding('two', Grade.WARNING, 'odd', 'Look.')
ERROR = Finding('three', Grade.ERROR, 'bad.', 'Mend.')
NO_NOVA = {
    'check': 'nova',
    'result': 0,
    'details': 'Nova is not installed here: nova-qcache is used without it',
}


@pytest.fixture
def run_checks():
    with mock.patch.object(preflight, 'run_checks', autospec=True) as made:
        made.return_value = iter([])
        yield made


@pytest.fixture
def of_upgrade():
    with mock.patch.object(upgrade, 'run_checks', autospec=True) as made:
        made.return_value = iter([])
        yield made


@pytest.fixture
def version():
    """What is known of an installed Nova: there is none, unless a test says otherwise."""
    real = metadata.version
    with mock.patch.object(metadata, 'version', autospec=True) as made:
        made.nova = None

        def look(name):
            if name != 'nova':
                return real(name)
            if made.nova is None:
                raise metadata.PackageNotFoundError(name)
            return made.nova

        made.side_effect = look
        yield made


@pytest.fixture
def moved():
    with mock.patch.object(compatibility, 'moved', autospec=True) as made:
        made.return_value = iter([])
        yield made


@pytest.fixture
def find_spec():
    real = importlib.util.find_spec
    with mock.patch.object(importlib.util, 'find_spec', autospec=True) as made:
        made.shim = object()
        made.side_effect = lambda name: made.shim if name == 'nova.virt.qcache' else real(name)
        yield made


@pytest.fixture
def check(short_folder, run_checks, of_upgrade, version, moved, find_spec, capsys):
    """Run ``upgrade check --json``: the exit code, and what was checked."""

    def call(**options):
        builders.config(short_folder)
        file = short_folder / 'nova.conf'
        lines = [f'{name} = {value}\n' for name, value in options.items()]
        file.write_text(''.join(['[DEFAULT]\n', *lines, file.read_text()]))
        code = status.main([f'--config-file={file}', 'upgrade', 'check', '--json'])
        out, err = capsys.readouterr()
        assert err == ''
        return code, json.loads(out)['checks']

    return call


# -- what is checked


@pytest.mark.parametrize(
    ('findings', 'code'),
    [([FINE], 0), ([FINE, WARNING], 1), ([ERROR, FINE], 2), ([FINE, ERROR, WARNING], 2)],
)
def test_the_worst_finding_is_the_exit_code(check, run_checks, findings, code):
    run_checks.return_value = iter(findings)
    ended, checks = check()
    assert ended == code
    assert [each['check'] for each in checks] == [*(each.subject for each in findings), 'nova']
    assert run_checks.call_args.args[0].qcache.quota == '16'


def test_each_finding_has_its_remedy(check, run_checks):
    run_checks.return_value = iter([FINE, WARNING, ERROR])
    _, checks = check()
    assert [(each['result'], each['details']) for each in checks[:-1]] == [
        (0, 'found'),
        (1, 'odd. Look.'),
        (2, 'bad. Mend.'),
    ]


def test_what_only_an_upgrade_asks(check, run_checks, of_upgrade):
    run_checks.return_value = iter([FINE])
    of_upgrade.return_value = iter([WARNING])
    ended, checks = check()
    assert ended == 1
    assert [each['check'] for each in checks] == ['one', 'two', 'nova']
    assert of_upgrade.call_args.args[0].qcache.quota == '16'


@pytest.mark.parametrize('subject', ['configuration', 'folders'])
def test_folders_that_make_no_sense_are_not_looked_into(check, run_checks, of_upgrade, subject):
    run_checks.return_value = iter([Finding(subject, Grade.ERROR, 'none', 'Mend.')])
    ended, checks = check()
    assert ended == 2
    assert [each['check'] for each in checks] == [subject, 'nova']
    of_upgrade.assert_not_called()


def test_another_error_keeps_nobody_from_looking_into_folders(check, run_checks, of_upgrade):
    run_checks.return_value = iter([Finding('qemu_img', Grade.ERROR, 'none', 'Install it.')])
    check()
    of_upgrade.assert_called_once()


def test_a_table_for_people(run_status, run_checks, of_upgrade, version):
    run_checks.return_value = iter([WARNING])
    ended = run_status('upgrade', 'check')
    assert ended[0] == 1
    assert 'nova-qcache Upgrade Check Results' in ended[1]
    assert re.search(r'Check: two +\|\n\| Result: Warning +\|\n\| Details: odd\. Look\.', ended[1])


# -- Nova


def test_a_host_without_nova(check):
    assert check() == (0, [NO_NOVA])


def test_a_driver_without_nova(check):
    ended, checks = check(compute_driver='qcache.QcacheDriver')
    assert ended == 2
    assert f'{sys.executable} has no Nova' in checks[0]['details']
    assert 'Install nova-qcache where nova-compute is installed.' in checks[0]['details']


@pytest.mark.parametrize('nova', ['31.0.0', '34.5.1'])
def test_a_nova_that_is_tested(check, version, nova):
    version.nova = nova
    ended, checks = check(compute_driver='qcache.QcacheDriver')
    assert ended == 0
    assert checks[0]['details'] == (
        f'Nova {nova} fits; these configuration files have compute_driver = qcache.QcacheDriver'
    )


def test_a_driver_that_is_named_elsewhere(check, version, find_spec):
    """nova-compute may have files of its own that nobody else reads."""
    version.nova = '34.0.0'
    find_spec.shim = None
    ended, checks = check()
    assert ended == 0
    assert checks[0]['details'] == (
        'Nova 34.0.0 fits; these configuration files have no compute_driver'
    )


@pytest.mark.parametrize('nova', ['30.3.0', '35.0.0', 'master'])
def test_a_nova_that_is_not_tested(check, version, nova):
    version.nova = nova
    ended, checks = check()
    assert ended == 1
    assert f'Nova {nova} has all' in checks[0]['details']
    assert 'tested with 31 to 34. Try it on one host.' in checks[0]['details']


def test_a_nova_that_does_not_fit(check, version, moved):
    version.nova = '34.0.0'
    moved.return_value = iter(['a is gone', 'b takes c'])
    ended, checks = check()
    assert ended == 2
    assert 'without a cache: a is gone; b takes c. Upgrade nova-qcache' in checks[0]['details']


def test_a_nova_elsewhere_than_the_driver(check, version, find_spec):
    version.nova = '34.0.0'
    find_spec.shim = None
    ended, checks = check(compute_driver='qcache.QcacheDriver')
    assert ended == 2
    assert 'Nova 34.0.0 does not find nova.virt.qcache. Install' in checks[0]['details']


def test_the_tested_versions_are_those_of_the_test_command():
    (said,) = re.findall(r'^novas=\((\d+) (\d+)\)$', (ROOT / 'tools/test.sh').read_text(), re.M)
    assert [status._TESTED_NOVAS[0], status._TESTED_NOVAS[-1]] == [int(each) for each in said]


# -- how it is called


@pytest.fixture
def run_status(short_folder, capsys):
    """Call it with a configuration that makes sense: exit code, output and complaints."""
    builders.config(short_folder)

    def call(*arguments):
        code = status.main([f'--config-file={short_folder / "nova.conf"}', *arguments])
        return code, *capsys.readouterr()

    return call


@pytest.mark.parametrize('arguments', [(), ('upgrade',), ('downgrade', 'check'), ('--nope',)])
def test_a_call_that_is_none(run_status, arguments):
    code, out, err = run_status(*arguments)
    assert (code, out) == (255, '')
    assert err.startswith('usage: nova-qcache-status')


def test_another_word_for_check(run_status, run_checks):
    assert run_status('upgrade', 'cheque') == (
        255,
        '',
        '"upgrade cheque" is not a command; give "upgrade check"\n',
    )
    run_checks.assert_not_called()


@pytest.mark.parametrize(('option', 'said'), [('--help', 'usage: '), ('--version', '')])
def test_help(run_status, option, said):
    code, out, err = run_status(option)
    assert (code, err) == (0, '')
    assert out.startswith(said or metadata.version('nova-qcache'))


def test_a_file_that_is_not_there(run_status):
    code, out, err = run_status('--config-file=/no/such/file', 'upgrade', 'check')
    assert (code, out) == (255, '')
    assert err == 'Failed to find some config files: /no/such/file\n'


def test_a_file_that_is_no_configuration(run_status, short_folder):
    (short_folder / 'other.conf').write_text('qcache]\n')
    code, out, err = run_status(f'--config-file={short_folder}/other.conf', 'upgrade', 'check')
    assert (code, out) == (255, '')
    assert len(err.splitlines()) == 1
    assert 'other.conf' in err


def test_a_value_of_another_type_is_a_finding(run_status, short_folder, version):
    (short_folder / 'other.conf').write_text('[qcache]\nquota = much\n')
    code, out, err = run_status(
        f'--config-file={short_folder}/other.conf', 'upgrade', 'check', '--json'
    )
    assert (code, err) == (2, '')
    first = json.loads(out)['checks'][0]
    assert (first['check'], first['result']) == ('configuration', 2)
    assert "'much'" in first['details']


def test_a_path_with_an_option_that_nobody_knows(run_status, short_folder):
    (short_folder / 'other.conf').write_text('[qcache]\ncache_path = $nowhere\n')
    code, out, err = run_status(f'--config-file={short_folder}/other.conf', 'upgrade', 'check')
    assert (code, out) == (255, '')
    assert err == 'no such option nowhere in group [DEFAULT]\n'


def test_root_acts_as_the_owner_of_the_caches(run_status, short_folder, run_checks, of_upgrade):
    order = mock.Mock()
    with mock.patch.object(shell, 'become_owner', autospec=True) as owner:
        order.attach_mock(owner, 'owner')
        order.attach_mock(run_checks, 'run_checks')
        run_status('upgrade', 'check')
    assert order.mock_calls == [
        mock.call.owner(short_folder / 'cache'),
        mock.call.run_checks(mock.ANY),
    ]


def test_it_reads_what_nova_qcache_reads(
    short_folder, monkeypatch, run_checks, of_upgrade, capsys
):
    """Without an option, the files that are found are those of the project and of that program."""
    home = short_folder / 'home'
    (home / '.nova' / 'nova-qcache.conf.d').mkdir(parents=True)
    (home / '.nova' / 'nova.conf').write_text(
        f'[qcache]\nquota = 7\nmax_recorders = 2\ncache_path = {short_folder}\n'
    )
    (home / '.nova' / 'nova-qcache.conf').write_text('[qcache]\nquota = 8\n')
    (home / '.nova' / 'nova-qcache.conf.d' / 'x.conf').write_text('[qcache]\naudit_every = 3\n')
    monkeypatch.setitem(os.environ, 'HOME', str(home))
    assert status.main(['upgrade', 'check']) == 0
    group = run_checks.call_args.args[0].qcache
    assert (group.max_recorders, group.quota, group.audit_every) == (2, '8', 3)
    capsys.readouterr()


def test_its_arguments_are_those_of_the_process(monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['x', '--config-file=/none', 'upgrade', 'check'])
    assert status.main() == 255
    assert capsys.readouterr().err == 'Failed to find some config files: /none\n'
