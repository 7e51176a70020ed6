# SPDX-License-Identifier: Apache-2.0
"""What libvirt-guests does when a host goes off, by its program and its configuration."""

import pytest

from nova_qcache.system import libvirt_guests

PROGRAM = """#!/bin/sh
ON_BOOT="ignore"
ON_SHUTDOWN="{}"
test -f "$sysconfdir"/default/libvirt-guests && . "$sysconfdir"/default/libvirt-guests
    if [ "x$ON_SHUTDOWN" = xshutdown ]; then
        suspending=false
    fi
    stop-shutdown)
        ON_SHUTDOWN="shutdown"
"""
COMMENTED = """
# - suspend   all running guests are suspended using virsh managedsave
#ON_SHUTDOWN={}
#SHUTDOWN_TIMEOUT=300
"""
DEBIAN = ('usr/lib/libvirt/libvirt-guests.sh', 'etc/default/libvirt-guests')
FEDORA = ('usr/libexec/libvirt-guests.sh', 'etc/sysconfig/libvirt-guests')


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def enabled(tmp_path):
    link = tmp_path / 'etc/systemd/system/multi-user.target.wants/libvirt-guests.service'
    link.parent.mkdir(parents=True)
    link.symlink_to('/nowhere/libvirt-guests.service')
    return tmp_path


@pytest.mark.parametrize(
    ('default', 'text', 'saves'),
    [
        ('suspend', COMMENTED.format('shutdown'), True),
        ('shutdown', COMMENTED.format('suspend'), False),
        ('shutdown', 'ON_SHUTDOWN=suspend\n', True),
        ('suspend', "ON_SHUTDOWN=suspend\nON_SHUTDOWN='shutdown'\n", False),
        ('shutdown', 'ON_SHUTDOWN="suspend"  # as ever\n', True),
        ('suspend', None, True),
        ('shutdown', None, False),
        (None, 'ON_SHUTDOWN=suspend\n', True),
        (None, '', None),
    ],
)
@pytest.mark.parametrize(('program', 'file'), [DEBIAN, FEDORA], ids=['debian', 'fedora'])
def test_what_it_does(enabled, program, file, default, text, saves):
    if default is not None:
        write(enabled / program, PROGRAM.format(default))
    if text is not None:
        write(enabled / file, text)
    assert libvirt_guests.saves(enabled) is saves
    if text is not None:
        assert libvirt_guests.setting(enabled) == enabled / file


def test_one_that_is_not_there(tmp_path):
    assert libvirt_guests.saves(tmp_path) is None
    assert libvirt_guests.setting(tmp_path) == tmp_path / DEBIAN[1]


def test_one_that_is_not_enabled(tmp_path):
    write(tmp_path / DEBIAN[0], PROGRAM.format('suspend'))
    assert libvirt_guests.saves(tmp_path) is None


def test_what_cannot_be_read_is_no_alarm(enabled):
    (enabled / DEBIAN[0]).mkdir(parents=True)
    path = enabled / DEBIAN[1]
    path.parent.mkdir(parents=True)
    path.write_bytes(b'ON_SHUTDOWN=suspend\xff\n')
    assert libvirt_guests.saves(enabled) is None
