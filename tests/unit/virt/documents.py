# SPDX-License-Identifier: Apache-2.0
"""XML of domains as libvirt 9.0 dumps it while they run, and what the tests say about it."""

import hashlib

from lxml import etree

from tests.unit.builders import IMAGE
from tests.unit.builders import KEY

INSTANCE = '5a1c0f0e-7d7b-4a44-9c1d-0c8f4c5e2b11'
BASE_NAME = hashlib.sha1(IMAGE.encode()).hexdigest()
OVERLAY = f'/var/lib/nova/instances/{INSTANCE}/disk'
BASE = f'/var/lib/nova/instances/_base/{BASE_NAME}'
CACHE = f'/var/lib/nova/qcache/{KEY.stem}.qcow2'
SOCKET = f'/run/nova-qcache/guests/{KEY.stem}.nbd'
FOREIGN_SOCKET = '/run/volumes/volume-1.nbd'

_STANDS_ON_BASE = f"""
      <backingStore type='file' index='5'>
        <format type='raw'/>
        <source file='{BASE}'/>
        <backingStore/>
      </backingStore>"""

_PLAYS = f"""
      <backingStore type='file' index='4'>
        <format type='qcow2'/>
        <source file='{CACHE}'>
          <seclabel model='dac' relabel='no'/>
        </source>
        <backingStore type='file' index='5'>
          <format type='raw'/>
          <source file='{BASE}'>
            <seclabel model='dac' relabel='no'/>
          </source>
          <backingStore/>
        </backingStore>
      </backingStore>"""

_RECORDS = f"""
      <backingStore type='network' index='4'>
        <format type='raw'/>
        <source protocol='nbd' name='top'>
          <host transport='unix' socket='{SOCKET}'/>
        </source>
        <backingStore/>
      </backingStore>"""

_DOMAIN = """\
<domain type='qemu' id='7'>
  <name>instance-00000001</name>
  <uuid>{instance}</uuid>
  <metadata>
    <nova:instance xmlns:nova="http://openstack.org/xmlns/libvirt/nova/1.1">
      <nova:name>h\N{LATIN SMALL LETTER E WITH ACUTE}</nova:name>
      <nova:root type="image" uuid="{image}"/>
    </nova:instance>
  </metadata>
  <memory unit='KiB'>131072</memory>
  <vcpu placement='static'>1</vcpu>
  <os>
    <type arch='x86_64' machine='pc-i440fx-7.2'>hvm</type>
    <boot dev='hd'/>
  </os>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2' cache='none' discard='unmap'{on_error}/>
      <source file='{overlay}' index='3'/>{chain}
      <mirror type='file' job='copy' ready='yes'>
        <format type='qcow2'/>
        <source file='/var/lib/nova/instances/snapshots/x/1.delta' index='6'/>
        <backingStore/>
      </mirror>
      <target dev='vda' bus='virtio'/>
      <alias name='virtio-disk0'/>
      <address type='pci' domain='0x0000' bus='0x00' slot='0x03' function='0x0'/>
    </disk>
    <disk type='network' device='disk'>
      <driver name='qemu' type='qcow2' cache='writeback' rerror_policy='stop'/>
      <source protocol='rbd' name='volumes/volume-1' index='2'>
        <host name='192.0.2.1' port='6789'/>
      </source>
      <backingStore type='network' index='1'>
        <format type='raw'/>
        <source protocol='nbd' name='top'>
          <host transport='unix' socket='{foreign_socket}'/>
        </source>
        <backingStore/>
      </backingStore>
      <target dev='vdb' bus='virtio'/>
      <serial>0d9a2f9b-3a2f-43ae-bd38-3be5dbf5e62c</serial>
      <alias name='virtio-disk1'/>
      <address type='pci' domain='0x0000' bus='0x00' slot='0x04' function='0x0'/>
    </disk>
    <disk type='file' device='cdrom'>
      <driver name='qemu'/>
      <target dev='hda' bus='ide'/>
      <readonly/>
    </disk>
  </devices>
  <seclabel type='dynamic' model='dac' relabel='yes'>
    <label>+64055:+106</label>
    <imagelabel>+64055:+106</imagelabel>
  </seclabel>
</domain>
"""


def _domain(chain: str, on_error: str = '') -> str:
    return _DOMAIN.format(
        instance=INSTANCE,
        image=IMAGE,
        overlay=OVERLAY,
        chain=chain,
        on_error=on_error,
        foreign_socket=FOREIGN_SOCKET,
    )


PLAIN = _domain('')
"""As Nova defines it."""
DETECTED = _domain(_STANDS_ON_BASE)
"""As it runs: libvirt adds the chain that it found in the overlay."""
PLAYING = _domain(_PLAYS)
RECORDING = _domain(_RECORDS, " rerror_policy='stop'")
OURS = {'play': PLAYING, 'record': RECORDING}


def same(one: str | bytes, other: str | bytes) -> bool:
    """Whether two documents say the same, however they are written."""
    return _canonical(one) == _canonical(other)


def _canonical(xml: str | bytes) -> bytes:
    parser = etree.XMLParser(remove_blank_text=True)
    text: bytes = etree.tostring(etree.fromstring(xml, parser), method='c14n')
    return text


def names_ours(xml: str) -> bool:
    """Whether anything of ours is named anywhere in a document."""
    return KEY.stem in xml
