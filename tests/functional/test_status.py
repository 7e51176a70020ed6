# SPDX-License-Identifier: Apache-2.0
"""nova-qcache-status on a real host, as the user of nova-compute and as root."""

import json
import os
import pathlib
import subprocess
from typing import Any

import pytest

from tests.functional import users
from tests.functional.guests import NbdGuest
from tests.functional.site import Site

pytestmark = pytest.mark.core


def _status(
    site: Site, *arguments: str, user: users.User = users.PRODUCT
) -> 'subprocess.CompletedProcess[str]':
    program = site.product.scripts / 'nova-qcache-status'
    command = [str(program), f'--config-file={site.config}', *arguments]
    return site.run(command, user)


def _checks(done: 'subprocess.CompletedProcess[str]') -> dict[str, Any]:
    assert done.stderr == ''
    return {each['check']: each for each in json.loads(done.stdout)['checks']}


def test_a_fit_host(site: Site, cache: dict[str, Any]) -> None:
    done = _status(site, 'upgrade', 'check', '--json')
    checks = _checks(done)
    # Nobody asks Glance here, which is worth a look.
    odd = {name: each['details'] for name, each in checks.items() if each['result']}
    assert set(odd) <= {'glance', 'confinement'}
    assert done.returncode == 1
    assert checks['caches']['details'] == 'all 1 records can be read'
    assert checks['recorders']['details'] == 'none at work'


def test_people_get_a_table(site: Site) -> None:
    said = _status(site, 'upgrade', 'check').stdout
    assert '| Check: qemu_storage_daemon ' in said
    assert '| Result: Success ' in said


def test_a_recorder_of_this_version(site: Site, base: pathlib.Path) -> None:
    with NbdGuest(site, site.record(base)):
        checks = _checks(_status(site, 'upgrade', 'check', '--json'))
        assert checks['recorders']['result'] == 0
        assert checks['recorders']['details'] == '1 at work, all of this version'
    site.see_off()


def test_a_record_of_a_newer_version(site: Site, cache: dict[str, Any]) -> None:
    (record,) = site.cache_path.glob('*.json')
    record.write_text(json.dumps({**json.loads(record.read_text()), 'version': 99}))
    done = _status(site, 'upgrade', 'check', '--json')
    found = _checks(done)['caches']
    assert (done.returncode, found['result']) == (1, 1)
    assert site.image_id in found['details']
    # The remedy is true.
    assert site.qcache('remove', site.image_id).returncode == 0
    assert _checks(_status(site, 'upgrade', 'check', '--json'))['caches']['result'] == 0


def test_root_leaves_nothing(site: Site) -> None:
    """What root made in the folders, nova-compute could not write to."""
    site.cache_path.rmdir()
    site.configure(qemu_group='')  # a user without a name is in no other group
    done = _status(site, 'upgrade', 'check', '--json', user=users.ROOT)
    folders = _checks(done)['folders']
    # It acts as the owner of the folder above, who is root here: nova-compute could not make it.
    assert folders['result'] == 2
    assert f'{str(site.cache_path)!r} cannot be used: it is not there' in folders['details']
    assert 'only root can make it' in folders['details']
    assert not site.cache_path.exists()
    assert list(site.run_path.iterdir()) == []


def test_a_stranger(site: Site) -> None:
    done = _status(site, 'upgrade', 'check', '--json', user=users.GUEST)
    assert done.returncode == 2
    assert _checks(done)['folders']['result'] == 2


def test_folders_that_are_none(site: Site) -> None:
    site.configure(cache_path=site.config)
    done = _status(site, 'upgrade', 'check', '--json')
    checks = _checks(done)
    assert (done.returncode, checks['folders']['result']) == (2, 2)
    assert 'caches' not in checks
    site.configure(cache_path=site.cache_path)


@pytest.mark.parametrize(
    ('arguments', 'said'),
    [
        (['--config-file=/no/such/file', 'upgrade', 'check'], '/no/such/file'),
        (['upgrade', 'cheque'], 'cheque'),
    ],
)
def test_what_makes_no_sense_is_one_line(site: Site, arguments: list[str], said: str) -> None:
    done = _status(site, *arguments)
    assert (done.returncode, done.stdout) == (255, '')
    assert len(done.stderr.splitlines()) == 1
    assert said in done.stderr
    assert not any(os.scandir(site.run_path))
