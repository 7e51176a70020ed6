# SPDX-License-Identifier: Apache-2.0
"""nova-qcache-status."""

from importlib import metadata
import json
import os
import re
import sys
from unittest import mock

import pytest

from nova_qcache.checks import registry
from nova_qcache.checks import upgrade
from nova_qcache.checks.registry import Finding
from nova_qcache.checks.registry import Grade
from nova_qcache.cmd import shell
from nova_qcache.cmd import status
from tests.unit import builders

FINE = ('one', Finding(Grade.OK, 'found'))
WARNING = ('two', Finding(Grade.WARNING, 'odd', 'Look.'))
ERROR = ('three', Finding(Grade.ERROR, 'bad.', 'Mend.'))


@pytest.fixture
def run_checks():
    with mock.patch.object(registry, 'run', autospec=True) as made:
        made.return_value = iter([])
        yield made


@pytest.fixture
def run_status(short_folder, capsys):
    """Call it with a configuration that makes sense: exit code, output and complaints."""
    builders.config(short_folder)

    def call(*arguments):
        code = status.main([f'--config-file={short_folder / "nova.conf"}', *arguments])
        return code, *capsys.readouterr()

    return call


# -- what is checked


@pytest.mark.parametrize(
    ('findings', 'code'),
    [([FINE], 0), ([FINE, WARNING], 1), ([ERROR, FINE], 2), ([FINE, ERROR, WARNING], 2)],
)
def test_the_worst_finding_is_the_exit_code(run_status, run_checks, findings, code):
    run_checks.return_value = iter(findings)
    assert run_status('upgrade', 'check')[0] == code
    checks, conf = run_checks.call_args.args
    assert (checks, conf.qcache.quota) == (upgrade.CHECKS, '16')


def test_each_finding_has_its_remedy(run_status, run_checks):
    run_checks.return_value = iter([FINE, WARNING, ERROR])
    _, out, err = run_status('upgrade', 'check', '--json')
    assert err == ''
    assert json.loads(out)['checks'] == [
        {'check': 'one', 'result': 0, 'details': 'found'},
        {'check': 'two', 'result': 1, 'details': 'odd. Look.'},
        {'check': 'three', 'result': 2, 'details': 'bad. Mend.'},
    ]


def test_a_table_for_people(run_status, run_checks):
    run_checks.return_value = iter([WARNING])
    ended = run_status('upgrade', 'check')
    assert ended[0] == 1
    assert 'nova-qcache Upgrade Check Results' in ended[1]
    assert re.search(r'Check: two +\|\n\| Result: Warning +\|\n\| Details: odd\. Look\.', ended[1])


# -- how it is called


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


def test_a_value_of_another_type_is_a_finding(run_status, short_folder):
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


def test_root_acts_as_the_owner_of_the_caches(run_status, short_folder, run_checks):
    order = mock.Mock()
    with mock.patch.object(shell, 'become_owner', autospec=True) as owner:
        order.attach_mock(owner, 'owner')
        order.attach_mock(run_checks, 'run_checks')
        run_status('upgrade', 'check')
    assert order.mock_calls == [
        mock.call.owner(short_folder / 'cache'),
        mock.call.run_checks(upgrade.CHECKS, mock.ANY),
    ]


def test_it_reads_what_nova_qcache_reads(short_folder, monkeypatch, run_checks, capsys):
    """Without an option, the files that are found are those of the project and of that program."""
    home = short_folder / 'home'
    (home / '.nova' / 'nova-qcache.conf.d').mkdir(parents=True)
    (home / '.nova' / 'nova.conf').write_text(
        '[DEFAULT]\ncompute_driver = x.Driver\n'
        f'[qcache]\nquota = 7\nmax_recorders = 2\ncache_path = {short_folder}\n'
    )
    (home / '.nova' / 'nova-qcache.conf').write_text('[qcache]\nquota = 8\n')
    (home / '.nova' / 'nova-qcache.conf.d' / 'x.conf').write_text('[qcache]\naudit_every = 3\n')
    monkeypatch.setitem(os.environ, 'HOME', str(home))
    assert status.main(['upgrade', 'check']) == 0
    conf = run_checks.call_args.args[1]
    read = (conf.qcache.max_recorders, conf.qcache.quota, conf.qcache.audit_every)
    assert (*read, conf.compute_driver) == (2, '8', 3, 'x.Driver')
    capsys.readouterr()


def test_its_arguments_are_those_of_the_process(monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['x', '--config-file=/none', 'upgrade', 'check'])
    assert status.main() == 255
    assert capsys.readouterr().err == 'Failed to find some config files: /none\n'
