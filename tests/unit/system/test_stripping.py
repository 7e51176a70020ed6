# SPDX-License-Identifier: Apache-2.0
"""XML without our chains; more of it is in tests/unit/virt/test_chain.py, with the driver."""

from xml.dom import minidom
from xml.parsers import expat

import pytest

from nova_qcache.system import stripping
from tests import chains
from tests.unit.builders import KEY

CHAINS = {
    'play': chains.play(f'/qcache/{KEY.stem}.qcow2', '/base'),
    'record': chains.record(f'/guests/{KEY.stem}.nbd'),
}


def xml(chain, more=''):
    return f"""<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <metadata><nova:instance xmlns:nova="http://openstack.org/xmlns/libvirt/nova/1.1">
    <nova:name>h\N{LATIN SMALL LETTER E WITH ACUTE}&lt;&amp;"'</nova:name>
  </nova:instance></metadata>
  <devices><disk type='file'>
    <driver name='qemu'{more}/><source file='/disk'/>{chain}
  </disk></devices>
  <qemu:commandline><qemu:arg value='-d'/></qemu:commandline>
</domain>"""


@pytest.mark.parametrize('kind', CHAINS)
def test_what_is_ours_goes_and_all_else_stays_where_it_was(kind):
    chained = xml(CHAINS[kind], " rerror_policy='stop'")
    assert stripping.is_in(chained)
    stripped = stripping.strip(chained)
    assert not stripping.is_in(stripped)
    # As one and the same writer writes both.
    plain = minidom.parseString(xml('')).documentElement
    assert plain is not None
    assert stripped == plain.toxml()
    assert '<nova:instance xmlns:nova=' in stripped


@pytest.mark.parametrize('chain', ['', chains.play('/elsewhere/x.qcow2', '/base')])
def test_what_is_not_ours_comes_back_as_it_is(chain):
    given = xml(chain, " rerror_policy='stop'")
    assert not stripping.is_in(given)
    assert stripping.strip(given) is given


@pytest.mark.parametrize('verb', [stripping.is_in, stripping.strip])
def test_what_is_no_xml(verb):
    with pytest.raises(expat.ExpatError):
        verb('<domain>')
