# SPDX-License-Identifier: Apache-2.0
"""Nova's touches of a base: what they explain, and that everything else stays suspicious."""

import dataclasses
import threading
from unittest import mock

from hypothesis import given
from hypothesis import strategies as st
import pytest

from nova_qcache import exception
from nova_qcache import touches as touches_module
from nova_qcache.source import BaseIdentity
from nova_qcache.touches import Touches
from tests.unit import builders

GONE = exception.InvalidBase(base='x', reason='No such file', remedy='Give one')


@pytest.fixture
def source():
    return builders.MemorySource()


@pytest.fixture
def touches():
    return Touches()


def later(source, **changes):
    """The base is changed by somebody."""
    changes = changes or {'mtime_ns': source.now.mtime_ns + 1}
    source.now = dataclasses.replace(source.now, **changes)
    return source.now


def touch(touches, source):
    """Nova touches the base."""
    with touches.touching(source):
        return later(source)


def test_nothing_is_explained_without_a_touch(touches, source):
    then = source.now
    assert not touches.explain(source, then, then)
    assert not touches.explain(source, then, later(source))


def test_one_touch(touches, source):
    then = source.now
    now = touch(touches, source)
    assert touches.explain(source, then, now)
    assert touches.explain(source, then, now), 'and again'


def test_a_chain_of_touches(touches, source):
    looks = [source.now, *(touch(touches, source) for _ in range(5))]
    for then in looks:
        assert touches.explain(source, then, looks[-1])


def test_only_from_then_to_now(touches, source):
    looks = [source.now, *(touch(touches, source) for _ in range(2))]
    assert not touches.explain(source, looks[0], looks[1]), 'it does not look like that any more'
    assert not touches.explain(source, looks[2], looks[0])
    other = dataclasses.replace(looks[0], mtime_ns=1)
    assert not touches.explain(source, other, looks[-1])
    assert not touches.explain(source, looks[0], other)


def test_a_foreign_change_after_the_last_touch(touches, source):
    then = source.now
    touch(touches, source)
    assert not touches.explain(source, then, later(source))


def test_a_foreign_change_between_touches_breaks_the_chain(touches, source):
    first = source.now
    second = touch(touches, source)
    third = later(source)
    now = touch(touches, source)
    assert not touches.explain(source, first, now)
    assert not touches.explain(source, second, now)
    assert touches.explain(source, third, now), 'a new chain began'


def test_a_foreign_change_back_to_an_older_look(touches, source):
    """Whoever sets the old time again has written, for all that is known."""
    first = source.now
    touch(touches, source)
    later(source, mtime_ns=first.mtime_ns)
    assert not touches.explain(source, first, BaseIdentity(4096, 7, 5))
    now = touch(touches, source)
    # The two looks are the same one: nothing can tell them apart, here or by the times alone.
    assert touches.explain(source, first, now)


@pytest.mark.parametrize('change', [{'size': 1}, {'inode': 1}, {'size': None}])
def test_a_change_of_content_is_no_touch(touches, source, change):
    then = source.now
    before = touch(touches, source)
    with touches.touching(source):
        now = later(source, **change)
    for look in (then, before, now):
        assert not touches.explain(source, look, now)


def test_a_chain_after_a_change_of_content(touches, source):
    with touches.touching(source):
        then = later(source, size=1)
    now = touch(touches, source)
    assert touches.explain(source, then, now)


def test_a_touch_that_changes_nothing(touches, source):
    with touches.touching(source):
        pass
    assert touches.explain(source, source.now, source.now)


@pytest.mark.parametrize('error', [GONE, OSError(5, 'Input/output error'), ValueError('a plugin')])
@pytest.mark.parametrize('when', ['before', 'after'])
def test_a_base_that_cannot_be_looked_at(touches, source, error, when):
    then = source.now
    now = touch(touches, source)
    looks = [error, now] if when == 'before' else [now, error]
    touched = mock.Mock()
    with (
        mock.patch.object(builders.MemorySource, 'identity', autospec=True, side_effect=looks),
        touches.touching(source),
    ):
        touched()
    touched.assert_called_once_with()
    assert not touches.explain(source, then, now)


def test_a_touch_that_fails(touches, source):
    then = source.now
    with pytest.raises(PermissionError), touches.touching(source):
        raise PermissionError(1, 'Operation not permitted')
    assert not touches.explain(source, then, source.now)


def test_a_touch_that_fails_half_way(touches, source):
    first = source.now
    touch(touches, source)
    with pytest.raises(OSError, match='x'), touches.touching(source):
        later(source)
        raise OSError('x')
    assert not touches.explain(source, first, source.now)
    then = source.now
    now = touch(touches, source)
    assert touches.explain(source, then, now)
    assert not touches.explain(source, first, now)


def test_bases_have_their_own_chains(touches, source):
    other = builders.MemorySource()
    other.reference = 'memory://other'
    then = source.now
    now = touch(touches, source)
    assert not touches.explain(other, then, now)
    touch(touches, other)
    assert touches.explain(source, then, now)


def test_explain_trims_what_is_older(touches, source):
    looks = [source.now, *(touch(touches, source) for _ in range(4))]
    assert touches.explain(source, looks[2], looks[-1])
    assert not touches.explain(source, looks[1], looks[-1])
    assert touches.explain(source, looks[3], looks[-1])


def test_a_chain_is_bounded(touches, source):
    with mock.patch.object(touches_module, '_LONGEST_CHAIN', 3):
        looks = [source.now, *(touch(touches, source) for _ in range(4))]
    assert not touches.explain(source, looks[1], looks[-1])
    assert touches.explain(source, looks[2], looks[-1])


def test_two_touches_at_once_explain_nothing_that_is_wrong(touches, source):
    """Costs a sample at most."""
    first = source.now
    with touches.touching(source):
        second = later(source)
        with touches.touching(source):
            third = later(source)
    assert touches.explain(source, first, third)
    assert not touches.explain(source, second, third)


def test_threads(touches, source):
    then = source.now
    failed = []

    def work():
        try:
            for _ in range(300):
                touch(touches, source)
                touches.explain(source, then, source.now)
                touches.explain(source, source.now, source.now)
        except Exception as e:
            failed.append(e)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []


@given(st.lists(st.sampled_from(['touch', 'foreign', 'content', 'explain', 'fail']), max_size=30))
def test_only_touches_are_explained(steps):
    """Against a plain account of who changed the base between two looks."""
    touches, source = Touches(), builders.MemorySource()
    looks, changes = [source.now], []
    for number, step in enumerate(steps):
        if step == 'explain':
            touches.explain(source, looks[len(looks) // 2], source.now)
            continue
        if step == 'touch':
            touch(touches, source)
        elif step == 'foreign':
            later(source)
        elif step == 'content':
            with touches.touching(source):
                later(source, size=number)
        else:
            with pytest.raises(OSError, match='x'), touches.touching(source):
                later(source)
                raise OSError('x')
        looks.append(source.now)
        changes.append(step)
    for number, then in enumerate(looks[:-1]):
        if touches.explain(source, then, source.now):
            assert set(changes[number:]) == {'touch'}
