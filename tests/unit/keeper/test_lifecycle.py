# SPDX-License-Identifier: Apache-2.0
"""Who listens to libvirt's events, for how long, and what the loop does with errors."""

import sys
import threading
from typing import Any
from unittest import mock

import pytest

from nova_qcache import exception
from nova_qcache.keeper import lifecycle
from nova_qcache.keeper.lifecycle import Lifecycle
from tests.unit import fake_libvirt

URI = 'qemu:///system'


class _EndOfTest(BaseException):
    pass


@pytest.fixture
def connection():
    return fake_libvirt.Connection([])


@pytest.fixture
def libvirt(connection):
    """With an event loop that was begun before the first connection, and does nothing."""
    made: Any = fake_libvirt.module(connection)
    made.virEventRegisterDefaultImpl = mock.Mock(side_effect=lambda: made.opened.append('loop'))
    made.virEventRunDefaultImpl = mock.Mock()
    with (
        mock.patch.dict(sys.modules, {'libvirt': made}),
        mock.patch.object(lifecycle, '_run', autospec=True),
    ):
        yield made


@pytest.fixture
def happened():
    return mock.create_autospec(threading.Event().set)


def test_an_event_is_told(libvirt, connection, happened):
    Lifecycle(URI, happened).listen()
    assert libvirt.opened == ['loop', URI]
    happened.reset_mock()
    (callback,) = connection.callbacks
    callback(connection, 'a domain', 5, 4, None)
    happened.assert_called_once_with()


def test_once_is_enough(libvirt, connection, happened):
    made = Lifecycle(URI, happened)
    for _ in range(3):
        made.listen()
    assert libvirt.opened == ['loop', URI]
    happened.assert_called_once_with()


def test_a_connection_that_is_lost(libvirt, connection, happened):
    made = Lifecycle(URI, happened)
    made.listen()
    connection.is_open = False
    made.listen()
    assert libvirt.opened == ['loop', URI, URI]
    assert happened.call_count == 2


@pytest.mark.parametrize('error', [None, fake_libvirt.LibvirtError('client socket is closed')])
def test_a_connection_that_is_lost_is_let_go(libvirt, connection, happened, error):
    made = Lifecycle(URI, happened)
    made.listen()
    connection.is_open = False
    connection.close_error = error
    made.listen()
    assert connection.closed == 1
    assert len(connection.callbacks) == 1


def test_a_libvirt_that_is_not_there(libvirt, happened):
    made = Lifecycle(URI, happened)
    refused = fake_libvirt.LibvirtError('refused')
    with mock.patch.object(libvirt, 'openReadOnly', autospec=True, side_effect=refused):
        for _ in range(2):
            with pytest.raises(exception.DomainsUnknown, match='refused'):
                made.listen()
    happened.assert_not_called()
    made.listen()
    assert libvirt.opened == ['loop', URI]


def test_no_module(happened):
    with (
        mock.patch.dict(sys.modules, {'libvirt': None}),
        pytest.raises(exception.DomainsUnknown, match='no module'),
    ):
        Lifecycle(URI, happened).listen()


def test_the_loop_goes_on_after_an_error():
    made: Any = fake_libvirt.module(fake_libvirt.Connection([]))
    made.virEventRunDefaultImpl = mock.Mock(
        side_effect=[0, fake_libvirt.LibvirtError('x'), 0, _EndOfTest]
    )
    with (
        mock.patch('nova_qcache.keeper.lifecycle.time.sleep', autospec=True) as slept,
        pytest.raises(_EndOfTest),
    ):
        lifecycle._run(made)
    slept.assert_called_once_with(1)
