# SPDX-License-Identifier: Apache-2.0
"""The quota: never passed, and no guest ever notices it."""

import os
import pathlib
import signal
import subprocess
from typing import Any

import psutil
import pytest

from nova_qcache.qemu.img import QemuImg
from tests.functional import bases
from tests.functional import sealed
from tests.functional import users
from tests.functional import waiting
from tests.functional.guests import file_node
from tests.functional.guests import Load
from tests.functional.guests import NbdGuest
from tests.functional.site import MIB
from tests.functional.site import NEVER
from tests.functional.site import Site
from tests.functional.watching import SizeWatch

_QUOTA_MIB = 32
_ALL_AT_ONCE = ('--clients=8', '--depth=16', f'--size={MIB}', f'--bytes={64 * MIB}')


@pytest.fixture
def large_base(site: Site) -> pathlib.Path:
    """Larger than what is in flight: 8 clients with 16 requests of 1 MiB each."""
    return bases.make_raw(site, 160 * MIB)


def _require_kept(watch: SizeWatch, quota: int) -> None:
    assert watch.looks > 10
    assert watch.length <= quota
    assert watch.allocated <= quota


def _require_sealed_at_quota(site: Site, base: pathlib.Path) -> None:
    shown = site.show()
    assert shown['state'] == 'READY', shown
    assert shown['note'] == 'quota'
    sealed.require_sound(site, shown, base, file_node(base))


def _load_through_the_quota(
    site: Site, plan: dict[str, Any], base: pathlib.Path, *options: str
) -> None:
    quota = plan['quota_bytes']
    with SizeWatch(pathlib.Path(plan['path'])) as watch:
        with Load(site, plan, base, *(options or _ALL_AT_ONCE)) as load:
            counted = load.require_faultless()
            assert counted['bytes'] > 4 * quota
        site.wait_for_state('READY')
    _require_kept(watch, quota)
    assert watch.length > quota // 2, 'the quota was never reached'


@pytest.mark.core
def test_many_requests_in_flight(site: Site, large_base: pathlib.Path) -> None:
    plan = site.record(large_base, 'raw', f'--quota={_QUOTA_MIB}')
    _load_through_the_quota(site, plan, large_base)
    _require_sealed_at_quota(site, large_base)


@pytest.mark.parametrize(
    ('cluster_size', 'extended_l2'), [(4096, False), (65536, False), (16384, True)]
)
def test_other_clusters(
    site: Site, large_base: pathlib.Path, cluster_size: int, extended_l2: bool
) -> None:
    site.configure(cluster_size=cluster_size, extended_l2=extended_l2)
    plan = site.record(large_base, 'raw', f'--quota={_QUOTA_MIB}')
    _load_through_the_quota(site, plan, large_base)
    _require_sealed_at_quota(site, large_base)


def test_a_quota_at_a_boundary_of_reference_counts(site: Site) -> None:
    """With clusters of 4 KiB qcow2 puts a table at 128 MiB: shortly beyond what may be written."""
    base = bases.make_raw(site, 288 * MIB)
    site.configure(cluster_size=4096)
    plan = site.record(base, 'raw', '--quota=128')
    with NbdGuest(site, plan) as guest, SizeWatch(pathlib.Path(plan['path'])) as watch:
        with Load(site, plan, base, *_ALL_AT_ONCE) as load:
            load.require_faultless()
        waiting.until(
            lambda: not [path for path in site.files() if path.suffix == '.recording'],
            'the end of the recording',
        )
        guest.require(base, 200 * MIB, MIB)
    _require_kept(watch, plan['quota_bytes'])
    # It may be dropped at its quota (recorder/quota.py): a cache or none, never half of one.
    if site.files():
        _require_sealed_at_quota(site, base)


@pytest.mark.core
@pytest.mark.parametrize('stopped', [False, True], ids=['', 'stopped recorder'])
def test_one_read_that_is_longer_than_the_quota(
    site: Site, base: pathlib.Path, stopped: bool
) -> None:
    """What fits of it is cached."""
    plan = site.record(base, 'raw', '--quota=8')
    recorder = psutil.Process(plan['recorder_pid'])
    with NbdGuest(site, plan) as guest, SizeWatch(pathlib.Path(plan['path'])) as watch:
        if stopped:
            recorder.send_signal(signal.SIGSTOP)
        try:
            guest.require(base, 0, 12 * MIB)
        finally:
            recorder.send_signal(signal.SIGCONT)
        shown = site.wait_for_state('READY')
        guest.require(base, 12 * MIB, MIB)
    _require_kept(watch, 8 * MIB)
    _require_sealed_at_quota(site, base)
    assert 4 * MIB < shown['cache_bytes'] < 8 * MIB
    extents = QemuImg().cached_extents(pathlib.Path(shown['path']))
    cached = sum(length for _, length in extents)
    assert cached > 4 * MIB, extents
    assert shown['cache_bytes'] - cached < MIB, 'what is not used is given back'


def test_a_stopped_recorder(site: Site, large_base: pathlib.Path) -> None:
    """Nobody hears the event of the threshold: the kernel alone keeps the quota."""
    plan = site.record(large_base, 'raw', f'--quota={_QUOTA_MIB}')
    recorder = psutil.Process(plan['recorder_pid'])
    with NbdGuest(site, plan) as guest, SizeWatch(pathlib.Path(plan['path'])) as watch:
        recorder.send_signal(signal.SIGSTOP)
        try:
            with Load(site, plan, large_base, *_ALL_AT_ONCE) as load:
                load.require_faultless()
            guest.require(large_base, 100 * MIB, MIB)
        finally:
            recorder.send_signal(signal.SIGCONT)
        site.wait_for_state('READY')
        guest.require(large_base, 120 * MIB, MIB)
    _require_kept(watch, _QUOTA_MIB * MIB)
    _require_sealed_at_quota(site, large_base)


def _fill(path: pathlib.Path) -> None:
    """Take all space that a file system has left."""
    subprocess.run(
        ['dd', 'if=/dev/zero', f'of={path / "filler"}', 'bs=64k'], capture_output=True, check=False
    )
    facts = os.statvfs(path)
    assert facts.f_bfree == 0, facts


@pytest.mark.core
def test_a_full_file_system(site: Site, large_base: pathlib.Path) -> None:
    site.mount(site.cache_path, '-t', 'tmpfs', '-o', 'size=48m', 'tmpfs', user=users.PRODUCT)
    plan = site.record(large_base, 'raw', f'--quota={_QUOTA_MIB}')
    _fill(site.cache_path)
    _load_through_the_quota(site, plan, large_base)
    _require_sealed_at_quota(site, large_base)


def test_many_guests_at_once(site: Site, base: pathlib.Path) -> None:
    """More than the 100 connections that qemu's NBD server takes by default."""
    plan = site.record(base)
    options = ('--clients=120', '--depth=1', '--size=65536', f'--bytes={MIB}', f'--hold={NEVER}')
    with Load(site, plan, base, *options) as load:
        load.wait_until_read()
        assert site.show()['guests'] == 120
        with NbdGuest(site, plan) as guest:
            guest.require(base, 0, MIB)
        site.ask('seal', site.image_id, '--wait')
        load.process.terminate()
        counted = load.require_faultless()
        assert counted['bytes'] == 120 * MIB
    shown = site.show()
    sealed.require_sound(site, shown, base, file_node(base))
