# SPDX-License-Identifier: Apache-2.0
"""How a server has booted, by its domain's XML as libvirt prints it."""

import pytest

from nova_qcache_tempest_plugin import domain
from nova_qcache_tempest_plugin.domain import Boot
from nova_qcache_tempest_plugin.domain import Kind

IMAGE = "571967d4-6860-4b23-8649-8ffe1f34d7a6"
OTHER = "c566ebb2-6860-4b23-8649-8ffe1f34d7a6"
BASE = "<source file='/var/lib/nova/instances/_base/0f2a'/>"
CACHE = f"/var/lib/nova/qcache/{IMAGE}.1662dea46f6b.1.qcow2"
SOCKET = f"/run/nova-qcache/guests/{IMAGE}.1662dea46f6b.1.nbd"


def xml(chain: str) -> str:
    return f"""
<domain type='kvm' id='7'>
  <devices>
    <disk type='file' device='cdrom'><source file='{CACHE}'/></disk>
    <disk type='file' device='disk'>
      <source file='/var/lib/nova/instances/c566ebb2/disk' index='1'/>
      {chain}
      <target dev='vda' bus='virtio'/>
    </disk>
  </devices>
</domain>"""


def file(source: str, below: str = "<backingStore/>") -> str:
    return (
        f"<backingStore type='file' index='2'><format type='raw'/>{source}{below}</backingStore>"
    )


def socket(path: str) -> str:
    source = f"<source protocol='nbd' name='top'><host transport='unix' socket='{path}'/></source>"
    return f"<backingStore type='network'>{source}<backingStore/></backingStore>"


@pytest.mark.parametrize("chain", ["", "<backingStore/>", file(BASE)])
def test_an_overlay_on_its_base_is_plain(chain):
    assert domain.boot(xml(chain), IMAGE) == Boot(Kind.PLAIN)


def test_a_cache_in_between_is_played():
    chain = file(f"<source file='{CACHE}'/>", file(BASE))
    assert domain.boot(xml(chain), IMAGE) == Boot(Kind.PLAY, CACHE)


def test_a_socket_is_a_recorder():
    assert domain.boot(xml(socket(SOCKET)), IMAGE) == Boot(Kind.RECORD, SOCKET)


def test_a_cache_of_another_image_is_none_of_ours():
    chain = file(f"<source file='{CACHE}'/>", file(BASE))
    assert domain.boot(xml(chain), OTHER) == Boot(Kind.PLAIN)


@pytest.mark.parametrize("text", ["", "error: no domain", "<domain/>"])
def test_what_is_no_domain_is_an_error(text):
    with pytest.raises(ValueError, match=r"domain|XML"):
        domain.boot(text, IMAGE)
