# SPDX-License-Identifier: Apache-2.0
"""The example files in etc, read by the programs that they are for."""

import os
import pathlib
import stat
import subprocess

import pytest

from tests.functional import account
from tests.functional import waiting

ETC = pathlib.Path(__file__).parents[2] / 'etc'
UNIT = 'nova-compute.service'
DROP_IN = ETC / 'systemd/system' / f'{UNIT}.d' / 'nova-qcache.conf'
TMPFILES = ETC / 'tmpfiles.d/nova-qcache.conf'
LOGROTATE = ETC / 'logrotate.d/nova-qcache'
LOGS = '/var/log/nova'


@pytest.fixture
def folder(book: account.Account) -> pathlib.Path:
    return book.folder


def _run(*command: object) -> 'subprocess.CompletedProcess[str]':
    return subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, timeout=waiting.PATIENCE
    )


# -- systemd


@pytest.mark.parametrize(
    ('change', 'complaint'),
    [(('', ''), ''), (('=process', '=proces'), 'kill mode'), (('OOM', 'OOOM'), 'OOOMPolicy')],
)
def test_systemd_knows_what_the_unit_gets(
    folder: pathlib.Path, change: tuple[str, str], complaint: str
) -> None:
    unit = folder / UNIT
    unit.write_text('[Service]\nType=notify\nExecStart=/bin/true\n')
    changes = folder / f'{UNIT}.d'
    changes.mkdir()
    (changes / 'nova-qcache.conf').write_text(DROP_IN.read_text().replace(*change))
    said = _run('systemd-analyze', 'verify', '--man=no', unit).stderr
    ours = [line for line in said.splitlines() if 'nova-qcache.conf' in line]
    assert len(ours) == bool(complaint), said
    assert complaint in ''.join(ours)


def test_systemd_makes_the_folder(folder: pathlib.Path) -> None:
    """In a root of its own, where nova has another number than here."""
    (folder / 'etc').mkdir()
    (folder / 'etc/passwd').write_text('nova:x:4242:4343::/:/bin/false\n')
    (folder / 'etc/group').write_text('nova:x:4343:\n')
    done = _run('systemd-tmpfiles', '--create', f'--root={folder}', TMPFILES)
    assert (done.returncode, done.stderr) == (0, '')
    made = (folder / 'run/nova-qcache').stat()
    assert (stat.S_IMODE(made.st_mode), made.st_uid, made.st_gid) == (0o711, 4242, 4343)


# -- logrotate


def _rotate(
    folder: pathlib.Path, *options: str, more: str = ''
) -> 'subprocess.CompletedProcess[str]':
    text = LOGROTATE.read_text().replace(LOGS, str(folder / 'logs'))
    # A machine of tests has no user nova.
    config = folder / 'logrotate.conf'
    config.write_text(more + text.replace('su nova nova', 'su root root'))
    config.chmod(0o644)
    return _run('logrotate', f'--state={folder / "state"}', *options, config)


@pytest.fixture
def logs(folder: pathlib.Path) -> pathlib.Path:
    made = folder / 'logs'
    made.mkdir(mode=0o755)
    return made


def test_logrotate_understands_its_file(folder: pathlib.Path, logs: pathlib.Path) -> None:
    (logs / 'nova-qcache-keeper.log').write_text('said\n')
    done = _rotate(folder, '--debug')
    assert done.returncode == 0
    assert 'error' not in done.stderr
    assert f'considering log {logs}/nova-qcache-keeper.log' in done.stderr
    assert f'log {logs}/nova-qcache-recorder.log does not exist -- skipping' in done.stderr


def test_logrotate_rotates(folder: pathlib.Path, logs: pathlib.Path) -> None:
    for name in ('nova-qcache-keeper.log', 'nova-qcache-recorder.log', 'nova-compute.log'):
        (logs / name).write_text('said\n')
    done = _rotate(folder, '--force')
    assert (done.returncode, done.stderr) == (0, '')
    assert sorted(os.listdir(logs)) == [
        'nova-compute.log',
        'nova-qcache-keeper.log.1',
        'nova-qcache-recorder.log.1',
    ]


def test_beside_another_file_for_the_same_logs(folder: pathlib.Path, logs: pathlib.Path) -> None:
    """As the file and the manual say: only where nothing else rotates them."""
    (logs / 'nova-qcache-keeper.log').write_text('said\n')
    other = f'{logs}/*.log {{\n  weekly\n  su root root\n}}\n'
    done = _rotate(folder, more=other)
    assert done.returncode != 0
    assert 'duplicate log entry' in done.stderr
