# SPDX-License-Identifier: Apache-2.0
"""Each way in which a base can change: which generation results, what the next guest reads, and
how many bytes of the base it took to know."""

from collections.abc import Callable, Iterator
import json
import os
import pathlib
import re
import shutil
from typing import Any

import pytest

from tests.functional import account
from tests.functional import bases
from tests.functional import generations
from tests.functional import guests
from tests.functional import installation
from tests.functional import users
from tests.functional import waiting
from tests.functional.site import MIB
from tests.functional.site import Site

pytestmark = pytest.mark.usefixtures('keeping')

CACHED = 8 * MIB
"""Bytes that the cache of these tests has, of 16 MiB."""

_KEEPER = 'nova_qcache.cmd.keeper'

Compared = Callable[[], int]


@pytest.fixture
def compared(site: Site, cache: dict[str, Any]) -> Compared:
    """How many bytes of the base were compared since the last call: what qemu-io was told."""
    script = site.folder / 'script'
    script.touch()
    script.chmod(0o666)
    wrapper = f'#!/bin/sh\ntee -a {script} | qemu-io "$@"\n'
    site.configure(qemu_io=str(site.program('qemu-io', wrapper)))
    site.end_keeper()  # the next one reads the configuration of now
    waiting.until(lambda: not site.running(_KEEPER), 'the end of the keeper')

    def since() -> int:
        reads = re.findall(r'^read \d+ (\d+)$', script.read_text(), re.MULTILINE)
        os.truncate(script, 0)
        return sum(int(length) for length in reads)

    return since


def _replace(base: pathlib.Path, content: bytes, like: os.stat_result | None = None) -> None:
    """Put another file in its place, with the same times if so told."""
    other = base.with_name('other')
    other.write_bytes(content)
    os.chown(other, users.PRODUCT.uid, users.PRODUCT.gid)
    other.chmod(0o644)
    if like is not None:
        os.utime(other, ns=(like.st_atime_ns, like.st_mtime_ns))
    other.rename(base)


def _with_a_change(base: pathlib.Path, offset: int) -> bytes:
    content = bytearray(base.read_bytes())
    content[offset] ^= 1
    return bytes(content)


def _sealed_long_ago(cache: dict[str, Any]) -> None:
    path = pathlib.Path(cache['path']).with_suffix('.json')
    record = json.loads(path.read_bytes())
    record['sealed']['sealed_at'] = 1.0
    path.write_text(json.dumps(record))


def _announce(site: Site, base: pathlib.Path) -> None:
    """What Nova's driver says before Nova writes a base."""
    site.manage("manager.boots.announce_write(sys.argv[2], 'raw')", str(base))


def _examined(site: Site, base: pathlib.Path) -> dict[str, Any]:
    """Let boots come until nothing is in doubt any more, and return the plan of the next."""
    assert site.boot_plan(base)['kind'] == 'PLAIN', 'it is in doubt, so the boot is plain'
    return waiting.until(
        lambda: plan if (plan := site.plan(base))['kind'] != 'PLAIN' else {}, 'the examination'
    )


def _require_right_bytes(site: Site, plan: dict[str, Any], base: pathlib.Path) -> None:
    """A guest of that plan reads what the base has now."""
    file = guests.file_node(base)
    guests.require_equal(site, guests.play_chain(plan['cache'], file), base)


def test_another_file_of_the_same_size_and_times(
    site: Site, base: pathlib.Path, cache: dict[str, Any], compared: Compared
) -> None:
    before = generations.number(base)
    _replace(base, _with_a_change(base, 5 * MIB), base.stat())
    plan = _examined(site, base)
    assert plan['kind'] == 'RECORD'
    assert generations.number(base) == before + 1
    assert 0 < compared() <= CACHED


def test_changed_in_place_and_found_later(
    site: Site, base: pathlib.Path, cache: dict[str, Any], compared: Compared
) -> None:
    """Nothing but its times shows that: no boot waits, and the keeper compares everything."""
    before = generations.number(base)
    _sealed_long_ago(cache)
    bases.flip(base, 5 * MIB)
    os.utime(base, ns=(1, 1))
    assert site.boot_plan(base)['kind'] == 'PLAY'
    waiting.until(lambda: site.plan(base)['kind'] == 'RECORD', 'the comparison')
    assert generations.number(base) == before + 1
    assert 0 < compared() <= CACHED


def test_changed_in_place_outside_of_what_is_cached(
    site: Site, base: pathlib.Path, cache: dict[str, Any], compared: Compared
) -> None:
    before = generations.number(base)
    _sealed_long_ago(cache)
    bases.flip(base, 12 * MIB, MIB)
    os.utime(base, ns=(1, 1))
    plan = site.boot_plan(base)
    assert (plan['kind'], plan['cache']) == ('PLAY', cache['path'])
    revalidations = site.run_path / 'examinations'
    waiting.until(lambda: list(revalidations.glob('*.examined')), 'the comparison')
    assert compared() == CACHED
    os.utime(base, ns=(2, 2))
    plan = site.boot_plan(base)
    assert (plan['kind'], plan['cache']) == ('PLAY', cache['path'])
    assert generations.number(base) == before
    assert not list(revalidations.glob('*.examine')), 'once in revalidate_hours'
    _require_right_bytes(site, plan, base)


def test_touched(
    site: Site, base: pathlib.Path, cache: dict[str, Any], compared: Compared
) -> None:
    before = generations.number(base)
    for number in range(3):
        os.utime(base, ns=(number, number))
        plan = site.boot_plan(base)
        assert (plan['kind'], plan['cache']) == ('PLAY', cache['path'])
    assert compared() == 0, 'it was sealed just now'
    assert generations.number(base) == before
    _require_right_bytes(site, plan, base)


def test_copied_back_from_a_backup(
    site: Site, base: pathlib.Path, cache: dict[str, Any], compared: Compared
) -> None:
    before = generations.number(base)
    _replace(base, base.read_bytes())
    plan = _examined(site, base)
    assert (plan['kind'], plan['cache']) == ('PLAY', cache['path'])
    assert generations.number(base) == before
    assert compared() == CACHED
    _require_right_bytes(site, plan, base)


def test_deleted_and_downloaded_again(
    site: Site, base: pathlib.Path, cache: dict[str, Any], compared: Compared
) -> None:
    before = generations.number(base)
    content = base.read_bytes()
    base.unlink()
    _announce(site, base)
    _replace(base, content)
    plan = _examined(site, base)
    assert plan['kind'] == 'PLAY'
    assert generations.number(base) == before + 1
    assert plan['generation'].endswith(f'.{before + 1}')
    assert compared() == CACHED
    _require_right_bytes(site, plan, base)
    (shown,) = waiting.until(
        lambda: rows if len(rows := site.ask('list')) == 1 else [], 'the end of the old name'
    )
    assert (shown['state'], shown['generation']) == ('READY', plan['generation'])


def test_deleted_and_another_one_downloaded(
    site: Site, base: pathlib.Path, cache: dict[str, Any], compared: Compared
) -> None:
    before = generations.number(base)
    content = _with_a_change(base, 5 * MIB)
    base.unlink()
    _announce(site, base)
    _replace(base, content)
    plan = _examined(site, base)
    assert plan['kind'] == 'RECORD'
    assert generations.number(base) == before + 1
    assert 0 < compared() <= CACHED
    assert site.show()['state'] == 'STALE'


@pytest.fixture
def other_host(site: Site, product: installation.Installation) -> Iterator[Site]:
    """A second host that has the bases of the first one, too."""
    book = account.Account()
    other = Site(book, product)
    other.image_id = site.image_id
    other.configure(start_keeper=True)
    yield other
    other.end_keeper()
    problems = book.close()
    assert not problems, '\n'.join(problems)


def _record(site: Site, base: pathlib.Path) -> dict[str, Any]:
    with guests.NbdGuest(site, site.record(base)) as guest:
        guest.require(base, 0, CACHED)
        shown: dict[str, Any] = site.ask('seal', site.image_id, '--wait')
    site.see_off()
    return shown


@pytest.mark.parametrize('equal', [True, False], ids=['the same', 'another one'])
def test_another_host_downloads_it_again(
    site: Site, base: pathlib.Path, cache: dict[str, Any], other_host: Site, equal: bool
) -> None:
    """The counter is beside the base: each host compares for itself, and none uses its cache
    before."""
    theirs = _record(other_host, base)
    assert theirs['generation'] == cache['generation']
    content = base.read_bytes() if equal else _with_a_change(base, 5 * MIB)
    _announce(other_host, base)
    _replace(base, content)
    plans = [_examined(host, base) for host in (site, other_host)]
    assert [plan['kind'] for plan in plans] == ['PLAY' if equal else 'RECORD'] * 2
    assert plans[0]['generation'] == plans[1]['generation'] != cache['generation']
    if equal:
        _require_right_bytes(site, plans[0], base)


def test_another_host_is_between_announcing_and_writing(
    site: Site, base: pathlib.Path, cache: dict[str, Any], other_host: Site
) -> None:
    """A comparison of that time is one with the old content; the new one is doubted again."""
    _announce(other_host, base)
    plan = _examined(site, base)
    assert plan['kind'] == 'PLAY'
    _replace(base, _with_a_change(base, 5 * MIB))
    assert _examined(site, base)['kind'] == 'RECORD'


def test_a_counter_that_is_lost(
    site: Site, base: pathlib.Path, cache: dict[str, Any], compared: Compared
) -> None:
    """A new epoch: no old number comes again, and the bytes decide."""
    shutil.rmtree(generations.counter(base).parent)
    plan = _examined(site, base)
    assert plan['kind'] == 'PLAY'
    assert plan['generation'].partition('.')[0] != cache['generation'].partition('.')[0]
    assert compared() == CACHED
