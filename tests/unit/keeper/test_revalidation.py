# SPDX-License-Identifier: Apache-2.0
"""Caches that are to be compared: who asks, who is asked for, what a failure means."""

import os
import time
from unittest import mock

import pytest

from nova_qcache import exception
from nova_qcache.cache.usage import Usage
from nova_qcache.cache.verify import Verification
from nova_qcache.cache.verify import Verifier
from nova_qcache.keeper.revalidation import Request
from nova_qcache.keeper.revalidation import Requests
from nova_qcache.keeper.revalidation import Revalidator
from nova_qcache.model.key import CacheKey
from nova_qcache.system.progress import silent
from tests.unit import builders
from tests.unit.builders import GENERATION
from tests.unit.builders import KEY
from tests.unit.builders import OTHER_IMAGE

OTHER = CacheKey(OTHER_IMAGE, GENERATION)


@pytest.fixture
def requests(paths):
    return Requests(paths.revalidations)


@pytest.fixture
def proof():
    made = mock.create_autospec(Verifier, instance=True)
    made.verify.return_value = Verification(KEY, '', 4096)
    return made


@pytest.fixture
def usage():
    return mock.create_autospec(Usage, instance=True)


@pytest.fixture
def revalidator(catalog, generations, proof, usage, requests, current):
    return Revalidator(catalog, generations, proof, usage, requests, 7, 5000)


def test_requests_are_kept_until_done(requests, paths):
    assert requests.pending() == {}
    requests.add(KEY, 'md5:1')
    requests.add(OTHER)
    requests.add(KEY, 'md5:2')
    assert Requests(paths.revalidations).pending() == {KEY: Request('md5:2'), OTHER: Request()}
    requests.done(KEY)
    requests.done(KEY)
    assert requests.pending() == {OTHER: Request()}


@pytest.mark.parametrize('text', [b'', b'x', b'[]', b'{}', b'{"image_hash": 5}', b'\xff', b'5'])
def test_a_request_that_says_nothing(requests, paths, text):
    requests.add(KEY, 'md5:1')
    (path,) = paths.revalidations.iterdir()
    path.write_bytes(text)
    assert requests.pending() == {KEY: Request()}


def test_no_boot_waits_for_a_disk(requests):
    with mock.patch.object(os, 'fsync', autospec=True) as fsync:
        requests.add(KEY)
    fsync.assert_not_called()


def test_foreign_files(requests, paths):
    (paths.revalidations / 'x').touch()
    (paths.revalidations / KEY.stem).touch()
    assert requests.pending() == {}


# -- those that can wait

DAY = 24 * 3600


@pytest.fixture
def now():
    """Seconds since the epoch; a test may change it."""
    with mock.patch.object(time, 'time', autospec=True, return_value=time.time() + 5) as made:
        yield made


def test_one_that_can_wait_is_asked_for_once(requests):
    assert requests.add_now_and_then(KEY, DAY)
    assert not requests.add_now_and_then(KEY, DAY)
    assert requests.pending() == {KEY: Request(can_wait=True)}


def test_it_comes_after_those_that_cannot(requests):
    requests.add_now_and_then(OTHER, DAY)  # the first one by its name
    requests.add(KEY)
    assert list(requests.pending()) == [KEY, OTHER]


def test_one_that_cannot_wait_takes_its_place(requests):
    requests.add_now_and_then(KEY, DAY)
    requests.add(KEY, 'md5:1')
    assert not requests.add_now_and_then(KEY, DAY)
    assert requests.pending() == {KEY: Request('md5:1')}


@pytest.mark.parametrize(
    ('later', 'asked'),
    [(0, False), (DAY - 60, False), (DAY + 60, True), (-60, True)],
    ids=['now', 'within a day', 'after a day', 'the clock was put back'],
)
@pytest.mark.parametrize('kind', ['waits', 'urgent'])
def test_it_is_asked_for_again_after_a_while(requests, now, kind, later, asked):
    if kind == 'waits':
        requests.add_now_and_then(KEY, DAY)
    else:
        requests.add(KEY)
    requests.done(KEY)
    now.return_value += later
    assert requests.add_now_and_then(KEY, DAY) is asked
    assert (KEY in requests.pending()) is asked


def test_the_end_of_a_revalidation_counts_and_not_its_request(requests, paths):
    requests.add_now_and_then(KEY, DAY)
    (path,) = paths.revalidations.iterdir()
    os.utime(path, (1, 1))
    requests.done(KEY)
    assert not requests.add_now_and_then(KEY, DAY)


def test_what_is_known_of_caches_that_are_gone_is_forgotten(requests, paths):
    for key in (KEY, OTHER):
        requests.add(key)
        requests.done(key)
    requests.forget_others([KEY])
    assert [path.stem for path in paths.revalidations.iterdir()] == [KEY.stem]
    assert not requests.add_now_and_then(KEY, DAY)


def test_it_is_compared_slowly(revalidator, catalog, proof, requests, find_source, paths):
    record = builders.ready(catalog, base='memory://base')
    requests.add_now_and_then(KEY, DAY)
    requests.add(OTHER)  # gone meanwhile
    assert revalidator.run_once() == 2
    proof.verify.assert_called_once_with(record, find_source.return_value, silent, '', 5000)
    assert not requests.add_now_and_then(KEY, DAY)
    assert [path.stem for path in paths.revalidations.iterdir()] == [KEY.stem]


def test_one_that_cannot_wait_is_next(revalidator, catalog, proof, requests, find_source):
    third = CacheKey(KEY.image_id, GENERATION.next())
    for key in (KEY, OTHER, third):
        builders.ready(catalog, key=key, base='memory://base')
    requests.add_now_and_then(KEY, DAY)
    requests.add_now_and_then(OTHER, DAY)
    examined = []

    def verify(record, *arguments):
        examined.append(record.key)
        if len(examined) == 1:
            requests.add(third)
        return Verification(record.key, '', 1)

    proof.verify.side_effect = verify
    assert revalidator.run_once() == 3
    assert examined == [OTHER, third, KEY]


# -- the revalidator


def test_nothing_to_do(revalidator, proof):
    assert revalidator.run_once() == 0
    proof.verify.assert_not_called()


def test_a_ready_cache_is_compared(revalidator, catalog, proof, requests, find_source):
    record = builders.ready(catalog, base='memory://base')
    requests.add(KEY, 'md5:1')
    assert revalidator.run_once() == 1
    proof.verify.assert_called_once_with(record, find_source.return_value, silent, 'md5:1', 0)
    find_source.assert_called_once_with('memory://base', 'raw', reconnect_seconds=7)
    assert requests.pending() == {}


@pytest.mark.parametrize('there', ['nothing', 'warm', 'stale'])
def test_others_are_not(revalidator, catalog, proof, requests, there):
    if there == 'warm':
        builders.warm(catalog)
    if there == 'stale':
        catalog.retire(builders.ready(catalog), 'x')
    requests.add(KEY)
    assert revalidator.run_once() == 1
    proof.verify.assert_not_called()
    assert requests.pending() == {}


@pytest.mark.parametrize(
    'error',
    [
        exception.ToolFailed(command='x', code=1, reason='y'),
        exception.DeadlinePassed(what='x', seconds=1, remedy='y'),
        OSError(5, 'x'),
    ],
)
def test_what_cannot_be_compared_stops_no_other(
    revalidator, catalog, proof, requests, find_source, caplog, error
):
    for key in (KEY, OTHER):
        builders.ready(catalog, key=key)
        requests.add(key)
    proof.verify.side_effect = [error, Verification(OTHER, '', 1)]
    assert revalidator.run_once() == 2
    assert requests.pending() == {}, 'the next boot asks again'
    assert 'Failed to compare' in caplog.text


def test_a_record_that_cannot_be_read(revalidator, catalog, requests, caplog):
    builders.ready(catalog)
    catalog.paths.record(KEY).write_bytes(b'x')
    requests.add(KEY)
    revalidator.run_once()
    assert requests.pending() == {}
    assert 'Failed to compare' in caplog.text


@pytest.mark.parametrize('in_use', [False, True])
@pytest.mark.parametrize('written_since', [False, True])
def test_a_damaged_cache_makes_way_if_nobody_uses_it(
    revalidator, catalog, proof, requests, usage, find_source, current, in_use, written_since
):
    """Of a base that has another generation by now it is in nobody's way."""
    record = builders.ready(catalog, base='memory://base')

    def retire(*arguments):
        catalog.retire(record, 'damaged')
        return Verification(KEY, 'the cache file differs from what was sealed', 0)

    proof.verify.side_effect = retire
    if in_use:
        usage.require_none.side_effect = exception.CacheInUse(path='x', reason='y', remedy='z')
    if written_since:
        current.return_value = GENERATION.next()
    requests.add(KEY)
    revalidator.run_once()
    assert (catalog.load(KEY) is None) is not (in_use or written_since)
    if not written_since:
        usage.require_none.assert_called_once_with(KEY)


def test_an_equal_cache_stays(revalidator, catalog, requests, usage, find_source):
    builders.ready(catalog, base='memory://base')
    requests.add(KEY)
    revalidator.run_once()
    assert catalog.load(KEY) is not None
    usage.require_none.assert_not_called()


@pytest.mark.parametrize('in_use', [False, True])
def test_what_was_retagged_needs_its_old_name_no_more(
    revalidator, catalog, proof, requests, usage, find_source, in_use
):
    record = builders.ready(catalog, base='memory://base')
    new = CacheKey(KEY.image_id, GENERATION.next())

    def retag(*arguments):
        catalog.retag(record, new.generation)
        return Verification(new, '', 4096)

    proof.verify.side_effect = retag
    if in_use:
        usage.require_none.side_effect = exception.CacheInUse(path='x', reason='y', remedy='z')
    requests.add(KEY)
    revalidator.run_once()
    assert catalog.keys() == ([KEY, new] if in_use else [new])
    assert catalog.require_unchanged(catalog.load(new)).read_bytes() == b'cached'
