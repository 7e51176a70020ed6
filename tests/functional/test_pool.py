# SPDX-License-Identifier: Apache-2.0
"""The pool of caches: a budget that nobody passes, and what goes when room is needed."""

from collections.abc import Iterator
import json
import os
import pathlib
import subprocess
import threading
import time
from typing import Any
import uuid

import pytest

from tests.functional import bases
from tests.functional import users
from tests.functional import waiting
from tests.functional.guests import NbdGuest
from tests.functional.site import MIB
from tests.functional.site import Site

_QUOTA_MIB = 8
_READ = 6 * MIB
"""Of the base, by each recording: less than what its quota has room for."""


@pytest.fixture(autouse=True)
def budget(site: Site) -> None:
    """Room for two caches of :data:`_READ` and one recording, but for a little."""
    site.configure(quota=_QUOTA_MIB, cache_budget=f'{2 * _READ + _QUOTA_MIB * MIB}')


def _new_image(site: Site) -> str:
    site.image_id = str(uuid.uuid4())
    return site.image_id


def _recorded(site: Site, base: pathlib.Path) -> str:
    """Record a new image and seal it; return which."""
    image_id = _new_image(site)
    with NbdGuest(site, site.record(base)) as guest:
        guest.require(base, 0, _READ)
        shown = site.ask('seal', image_id, '--wait')
        assert shown['state'] == 'READY', shown
    site.see_off()
    return image_id


def _there(site: Site) -> set[str]:
    return {row['image_id'] for row in site.ask('list')}


def _allocated(site: Site) -> int:
    return sum(path.stat().st_blocks * 512 for path in site.files() if path.suffix != '.json')


def _evictions(site: Site, image_id: str) -> dict[str, int]:
    counted = json.loads((site.cache_path / 'statistics' / f'{image_id}.json').read_text())
    found: dict[str, int] = counted.get('evictions', {})
    return found


def _boot(site: Site, image_id: str, base: pathlib.Path) -> dict[str, Any]:
    site.image_id = image_id
    return site.boot_plan(base)


@pytest.mark.core
def test_the_third_recording_removes_the_least_valuable(site: Site, base: pathlib.Path) -> None:
    first, second = _recorded(site, base), _recorded(site, base)
    assert _boot(site, first, base)['kind'] == 'PLAY'  # so it was used last
    assert _there(site) == {first, second}
    third = _recorded(site, base)
    assert _there(site) == {first, third}
    assert _evictions(site, second) == {'room': 1}
    assert site.plan(base)['kind'] == 'PLAY'
    assert _boot(site, first, base)['kind'] == 'PLAY'


def test_a_pinned_one_stays(site: Site, base: pathlib.Path) -> None:
    first, second = _recorded(site, base), _recorded(site, base)
    assert site.ask('pin', first)['caches'] == 1
    third = _recorded(site, base)
    assert _there(site) == {first, third}, f'{second} was younger, and not pinned'

    site.ask('pin', third, '--for', '1')
    _new_image(site)
    plan = site.boot_plan(base)
    assert (plan['kind'], plan['cause']) == ('PLAIN', 'no-room')
    assert '2 pinned' in plan['reason']
    done = site.qcache('record', site.image_id, f'--base={base}')
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done
    assert str(_QUOTA_MIB * MIB) in done.stderr
    assert '[qcache] cache_budget' in done.stderr
    assert _there(site) == {first, third}

    assert site.qcache('unpin', first).returncode == 0
    again = site.qcache('unpin', first)
    assert again.returncode == 1
    assert again.stderr.count('\n') == 1
    assert 'is not pinned' in again.stderr
    fourth = _recorded(site, base)
    assert _there(site) == {third, fourth}


def test_an_image_is_pinned_before_it_has_a_cache(site: Site, base: pathlib.Path) -> None:
    shown = site.ask('pin', _new_image(site))
    assert (shown['caches'], shown['note']) == (0, 'no cache yet; the next one stays')


def test_what_qemu_has_open_stays(site: Site, base: pathlib.Path) -> None:
    first, second = _recorded(site, base), _recorded(site, base)
    site.image_id = first
    bases.QemuNbd(site, pathlib.Path(site.show()['path']), 'guest')
    third = _recorded(site, base)
    assert _there(site) == {first, third}, f'{second} was younger, and closed'


def test_what_a_boot_is_about_to_use_stays(site: Site, base: pathlib.Path) -> None:
    boot = 'Boot(sys.argv[2], sys.argv[3], "raw", sys.argv[4])'
    lease = f'print(manager.boots.plan({boot}).kind.value)'
    for image_id in (_recorded(site, base), _recorded(site, base)):
        assert site.manage(lease, image_id, str(base), f'boot-{image_id}').stdout == 'PLAY\n'
    there = _there(site)
    _new_image(site)
    plan = site.boot_plan(base)
    assert (plan['kind'], plan['cause']) == ('PLAIN', 'no-room')
    assert '2 in use' in plan['reason']
    assert _there(site) == there
    assert not site.recorders()


def test_what_a_recorder_still_serves_stays(site: Site, base: pathlib.Path) -> None:
    first = _new_image(site)
    with NbdGuest(site, site.record(base)) as guest:
        guest.require(base, 0, _READ)
        site.ask('seal', first, '--wait')
        _new_image(site)
        site.configure(cache_budget=f'{_QUOTA_MIB}MiB')
        plan = site.boot_plan(base)
        assert (plan['kind'], plan['cause']) == ('PLAIN', 'no-room')
        assert '1 in use' in plan['reason']
        guest.require(base, 8 * MIB, MIB)
    site.see_off()
    assert _recorded(site, base)
    assert first not in _there(site)


def test_over_budget_at_start(site: Site, base: pathlib.Path) -> None:
    first, second = _recorded(site, base), _recorded(site, base)
    site.ask('pin', second)
    site.configure(cache_budget=f'{_QUOTA_MIB}MiB')
    found = {row['subject']: row for row in _check(site)}
    assert found['budget']['grade'] == 'warning'
    site.manage('manager.clean_up()')
    assert _there(site) == {second}
    assert _evictions(site, first) == {'room': 1}
    assert _boot(site, second, base)['kind'] == 'PLAY'

    site.configure(quota=4, cache_budget='4MiB')
    done = site.manage('for _ in range(3): manager.clean_up()')
    (line,) = done.stderr.splitlines()
    assert 'exceed their limits by' in line
    assert '1 pinned' in line
    assert _there(site) == {second}


def _check(site: Site) -> list[dict[str, Any]]:
    done = site.qcache('check', '-f', 'json')
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize(
    ('option', 'value'),
    [
        ('cache_budget', '101%'),
        ('cache_budget', '0%'),
        ('cache_budget', 'much'),
        ('cache_budget', '4MiB'),
        ('min_free', '100%'),
        ('min_free', '-1'),
        ('eviction_policy', 'best'),
    ],
)
def test_bad_options(site: Site, base: pathlib.Path, option: str, value: str) -> None:
    site.configure(**{option: value})
    done = site.qcache('record', site.image_id, f'--base={base}')
    assert (done.returncode, done.stdout) == (1, ''), done
    (line,) = done.stderr.splitlines()
    assert option in line
    assert value in line
    assert not site.files()


@pytest.fixture
def small(site: Site) -> Iterator[pathlib.Path]:
    """A file system of its own of 64 MiB for the caches."""
    site.mount(site.cache_path, '-t', 'tmpfs', '-o', 'size=64m', 'tmpfs', user=users.PRODUCT)
    yield site.cache_path


def test_a_share_that_has_no_room_for_one_quota(
    site: Site, base: pathlib.Path, small: pathlib.Path
) -> None:
    site.configure(cache_budget='12%')
    done = site.qcache('record', site.image_id, f'--base={base}')
    assert done.returncode == 1, done
    assert 'cache_budget = 12%' in done.stderr
    assert f'a quota is {_QUOTA_MIB * MIB} bytes' in done.stderr
    assert {row['subject']: row['grade'] for row in _check(site)}['budget'] == 'error'


def test_what_stays_free(site: Site, base: pathlib.Path, small: pathlib.Path) -> None:
    """64 MiB, of which 50 stay free: room for one cache and no recording beside it."""
    site.configure(cache_budget='100%', min_free='50MiB')
    first = _recorded(site, base)
    second = _recorded(site, base)
    assert _there(site) == {second}
    assert _evictions(site, first) == {'room': 1}

    filler = small / 'filler'  # somebody else
    filler.write_bytes(b'\1' * (12 * MIB))
    site.manage('manager.clean_up()')
    assert not _there(site)
    filler.write_bytes(b'\1' * (9 * MIB))
    _new_image(site)
    plan = site.boot_plan(base)
    assert (plan['kind'], plan['cause']) == ('PLAIN', 'no-room')
    assert f'of which {50 * MIB} must stay free' in plan['reason']
    filler.unlink()


def test_many_starts_at_once(site: Site, base: pathlib.Path) -> None:
    """Each reserves its whole quota before its recorder begins: no moment is over the budget."""
    site.configure(cache_budget=f'{3 * _QUOTA_MIB}MiB')
    images = [str(uuid.uuid4()) for _ in range(16)]
    most, ended = [0], threading.Event()

    def watch() -> None:
        while not ended.is_set():
            try:
                most[0] = max(most[0], _allocated(site))
            except FileNotFoundError:  # one is gone while one looks
                continue
            time.sleep(0.01)

    watcher = threading.Thread(target=watch)
    watcher.start()
    started = [
        site.start(site.command('record', image_id, f'--base={base}', '-f', 'json'))
        for image_id in images
    ]
    try:
        outcomes = [
            (each.communicate(timeout=waiting.PATIENCE), each.returncode) for each in started
        ]
    finally:
        ended.set()
        watcher.join()
        _end_all(started)
    most[0] = max(most[0], _allocated(site))  # of those that record now
    recording = [image for image, (_, code) in zip(images, outcomes, strict=True) if code == 0]
    assert len(recording) == 3, outcomes
    for (_, stderr), code in outcomes:
        assert code == 0 or 'No room for another cache' in stderr, stderr
    assert 2 * _QUOTA_MIB * MIB < most[0] <= 3 * _QUOTA_MIB * MIB
    for image_id in recording:
        site.ask('remove', image_id)
    assert os.listdir(site.run_path / 'reservations') == []


def _end_all(started: list['subprocess.Popen[str]']) -> None:
    for each in started:
        if each.poll() is None:
            each.kill()
            each.communicate()
