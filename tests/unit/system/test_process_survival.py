# SPDX-License-Identifier: Apache-2.0
"""systemd's KillMode decides whether a recorder outlives nova-compute."""

import subprocess
from unittest import mock

import pytest

from nova_qcache.system import process_survival

UNIT = 'nova-compute.service'


@pytest.fixture
def systemctl():
    with mock.patch.object(subprocess, 'run', autospec=True) as run:
        run.return_value = subprocess.CompletedProcess([], 0, 'control-group\n', '')
        yield run


@pytest.fixture
def cgroup(tmp_path):
    path = tmp_path / 'cgroup'
    path.write_text(f'0::/system.slice/{UNIT}\n')
    return path


@pytest.mark.parametrize('mode', ['control-group', 'mixed'])
def test_a_mode_that_ends_recorders(systemctl, cgroup, mode):
    systemctl.return_value.stdout = f'{mode}\n'
    found = process_survival.problem(cgroup)
    assert found == (
        f'{UNIT} has KillMode={mode}, which ends recorders with it; '
        'set KillMode=process in its [Service] section'
    )
    assert systemctl.call_args.args[0][-1] == UNIT
    assert systemctl.call_args.kwargs['timeout'] > 0


@pytest.mark.parametrize('mode', ['process', 'none', '', 'something new'])
def test_other_modes(systemctl, cgroup, mode):
    systemctl.return_value.stdout = f'{mode}\n'
    assert (process_survival.problem(cgroup) is None) is (mode != 'something new')


@pytest.mark.parametrize(
    'text',
    ['', '0::/\n', '0::/user.slice/user-0.slice/session-1.scope\n', '1:name=systemd:/x\n\n'],
)
def test_no_service_of_systemds(systemctl, cgroup, text):
    cgroup.write_text(text)
    assert process_survival.problem(cgroup) is None
    systemctl.assert_not_called()


def test_the_older_kind_of_control_groups(systemctl, cgroup):
    cgroup.write_text(f'12:pids:/\n1:name=systemd:/system.slice/{UNIT}\n0::/\n')
    found = process_survival.problem(cgroup)
    assert found is not None
    assert UNIT in found


@pytest.mark.parametrize('name', ['nova-compute@a:b.service', 'nova\\x2dcompute.service'])
def test_names_of_services(systemctl, cgroup, name):
    cgroup.write_text(f'1:name=systemd:/system.slice/{name}\n')
    found = process_survival.problem(cgroup)
    assert found is not None
    assert found.startswith(f'{name} has ')
    assert systemctl.call_args.args[0][-1] == name


@pytest.mark.parametrize('content', [b'0::/\xff\xfe.service\n', b'\0', b'nonsense\n:::\n'])
def test_a_file_that_makes_no_sense(systemctl, cgroup, content):
    cgroup.write_bytes(content)
    assert process_survival.problem(cgroup) is None


def test_this_very_process(systemctl):
    """Whatever it runs in, the kernel's own file can be read."""
    found = process_survival.problem()
    assert found is None or 'control-group' in found


def test_no_such_file(systemctl, tmp_path):
    assert process_survival.problem(tmp_path / 'none') is None


@pytest.mark.parametrize(
    'error',
    [
        FileNotFoundError('systemctl'),
        PermissionError('systemctl'),
        subprocess.TimeoutExpired('systemctl', 5),
    ],
)
def test_no_systemctl(systemctl, cgroup, error):
    systemctl.side_effect = error
    assert process_survival.problem(cgroup) is None


def test_systemctl_fails(systemctl, cgroup):
    systemctl.return_value.returncode = 1
    assert process_survival.problem(cgroup) is None
