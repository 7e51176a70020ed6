# SPDX-License-Identifier: Apache-2.0
"""A plan as XML, and XML without our chains."""

import dataclasses
import pathlib
from xml.parsers import expat

from lxml import etree
import pytest

from nova_qcache.model.plan import Plan
from nova_qcache.model.plan import PlanKind
from nova_qcache.virt import chain
from tests import chains
from tests.unit.builders import IMAGE
from tests.unit.builders import KEY
from tests.unit.virt import documents

SCHEMA = pathlib.Path('/usr/share/libvirt/schemas/domain.rng')

DISK = """
<disk type='file' device='disk'>
  <driver name='qemu' type='qcow2' cache='none'/>
  <source file='/instances/x/disk'/>
  <target dev='vda' bus='virtio'/>
</disk>
"""


def with_chain(plan, reconnect_seconds=0, disk=DISK):
    """The disk that a plan makes."""
    element = etree.fromstring(disk)
    chain.add(element, plan, reconnect_seconds)
    return element


def stores(disk):
    """The layers below a disk, from its overlay to the end."""
    layer = disk.find('backingStore')
    while layer is not None:
        yield layer
        layer = layer.find('backingStore')


def relabelled(catalog):
    """What libvirt may do with the owner of a layer's file."""
    return [label.attrib for label in catalog.findall('source/seclabel')]


NOT_RELABELLED = [{'model': 'dac', 'relabel': 'no'}]


# -- add


def canonical(element):
    parser = etree.XMLParser(remove_blank_text=True)
    return etree.tostring(etree.fromstring(etree.tostring(element), parser), method='c14n')


def test_what_other_tests_take_for_our_chains(play):
    written = etree.fromstring(chains.play(play.cache, play.base))
    assert canonical(with_chain(play).find('backingStore')) == canonical(written)
    record = dataclasses.replace(play, kind=PlanKind.RECORD, cache=None, socket='/run/x.nbd')
    written = etree.fromstring(chains.record('/run/x.nbd'))
    assert canonical(with_chain(record).find('backingStore')) == canonical(written)


def test_play_names_the_format_of_the_base(play):
    _, base, _ = stores(with_chain(dataclasses.replace(play, base_format='qcow2')))
    assert base.find('format').get('type') == 'qcow2'


def test_play_leaves_errors_to_the_guest(play):
    assert 'rerror_policy' not in with_chain(play).find('driver').attrib


@pytest.mark.parametrize(
    ('mode', 'labels'),
    [(0o644, NOT_RELABELLED), (0o664, NOT_RELABELLED), (0o640, []), (0o600, [])],
)
def test_the_owner_of_a_base_stays_if_everybody_may_read_it(play, base_path, mode, labels):
    base_path.chmod(mode)
    _, base, _ = stores(with_chain(play))
    assert relabelled(base) == labels


def test_the_owner_of_a_cache_stays(play, tmp_path):
    cache_path = tmp_path / f'{KEY.stem}.qcow2'
    cache_path.touch(0o440)
    cache, _, _ = stores(with_chain(dataclasses.replace(play, cache=str(cache_path))))
    assert relabelled(cache) == NOT_RELABELLED


def test_a_base_that_cannot_be_looked_at_is_let_alone(play, base_path):
    base_path.unlink()
    _, base, _ = stores(with_chain(play))
    assert relabelled(base) == NOT_RELABELLED


def test_a_guest_of_a_recorder_waits_in_place_of_an_error(record):
    driver = with_chain(record).find('driver')
    assert driver.get('rerror_policy') == 'stop'
    assert 'error_policy' not in driver.attrib, 'its own full overlay is none of our business'


def test_where_qemu_waits_by_itself_an_error_is_the_base_s(record):
    """A guest that is paused for a block that cannot be read is paused for good."""
    assert 'rerror_policy' not in with_chain(record, 30).find('driver').attrib


def test_reconnecting_is_only_asked_for_where_libvirt_knows_it(record):
    assert with_chain(record).find('.//reconnect') is None
    assert with_chain(record, 30).find('backingStore/source/reconnect').attrib == {'delay': '30'}


def test_reconnecting_is_not_asked_for_unless_it_is_said(record):
    element = etree.fromstring(DISK)
    chain.add(element, record)
    assert element.find('.//reconnect') is None


def test_reconnecting_is_nothing_of_a_sealed_cache(play):
    assert with_chain(play, 30).find('.//reconnect') is None


def test_plain_adds_nothing(play):
    plain = dataclasses.replace(play, kind=PlanKind.PLAIN, cache=None)
    assert documents.same(etree.tostring(with_chain(plain)), DISK)


def test_a_disk_without_a_driver(record):
    disk = with_chain(record, disk=DISK.replace("<driver name='qemu' type='qcow2'", '<x'))
    assert disk.find('driver') is None
    assert len(list(stores(disk))) == 2


# -- is_in


def test_a_chain_of_ours_is_seen(chained):
    assert chain.is_in(chained)
    assert chain.is_in(chained.encode())


@pytest.mark.parametrize('xml', [documents.PLAIN, documents.DETECTED], ids=['plain', 'detected'])
def test_a_foreign_chain_is_none_of_ours(xml):
    assert not chain.is_in(xml)
    assert not chain.is_in(xml.encode())


@pytest.mark.parametrize(
    'path',
    [
        f'/elsewhere/{KEY.stem}.qcow2',
        f'{KEY.stem}.qcow2',
        f'/{"x" * 3000}/{KEY.stem}.qcow2',
    ],
)
def test_a_cache_is_known_by_its_name_in_any_folder(path):
    assert chain.is_in(documents.PLAYING.replace(documents.CACHE, path))


@pytest.mark.parametrize(
    'path',
    [
        '',
        '/',
        documents.BASE,
        f'/var/lib/nova/qcache/{KEY.stem}',
        f'/var/lib/nova/qcache/{KEY.stem}.raw',
        f'/var/lib/nova/qcache/{KEY.stem}.qcow2.old',
        f'/var/lib/nova/qcache/{IMAGE}.qcow2',
        f'/var/lib/nova/qcache/{KEY.stem}.qcow2/disk',
        f'/var/lib/nova/qcache/{KEY.stem.upper()}.qcow2',
    ],
)
def test_other_names_are_none_of_ours(path):
    assert not chain.is_in(documents.PLAYING.replace(documents.CACHE, path))


def test_a_disk_whose_own_file_looks_like_a_cache_has_no_chain():
    xml = documents.DETECTED.replace(documents.OVERLAY, documents.CACHE)
    assert not chain.is_in(xml)
    assert chain.strip(xml) == xml


def test_a_chain_deep_below_is_seen():
    deeper = documents.PLAYING.replace(
        "<backingStore type='file' index='4'>",
        "<backingStore type='file' index='9'><format type='qcow2'/><source file='/snapshot'/>"
        "<backingStore type='file' index='4'>",
    ).replace('</backingStore>\n      <mirror', '</backingStore></backingStore>\n      <mirror')
    assert chain.is_in(deeper)
    assert documents.same(chain.strip(deeper), documents.PLAIN)


def test_a_foreign_export_at_a_host_is_none_of_ours():
    xml = """
    <domain><devices><disk><backingStore type='network'>
      <source protocol='nbd' name='x'><host name='storage' port='10809'/></source>
    </backingStore></disk></devices></domain>
    """
    assert not chain.is_in(xml)
    assert chain.strip(xml) is xml


def test_what_is_no_xml_is_an_error():
    with pytest.raises(expat.ExpatError):
        chain.is_in('<domain>')


# -- strip


def test_nothing_of_ours_is_left(chained):
    stripped = chain.strip(chained)
    assert not chain.is_in(stripped)
    assert not documents.names_ours(stripped)


def test_all_else_stays(chained):
    assert documents.same(chain.strip(chained), documents.PLAIN)


def test_a_foreign_disk_keeps_its_chain_and_its_policy(chained):
    root = etree.fromstring(chain.strip(chained))
    volume = root.find(".//disk[@type='network']")
    assert volume.find('driver').get('rerror_policy') == 'stop'
    assert volume.find('backingStore/source/host').get('socket') == documents.FOREIGN_SOCKET
    assert root.find(".//disk[@type='file']/mirror") is not None


@pytest.mark.parametrize('xml', [documents.PLAIN, documents.DETECTED], ids=['plain', 'detected'])
@pytest.mark.parametrize('kind', [str, str.encode], ids=['text', 'bytes'])
def test_xml_without_a_chain_comes_back_as_it_is(xml, kind):
    given = kind(xml)
    assert chain.strip(given) is given


def test_twice_is_as_once(chained):
    once = chain.strip(chained)
    assert chain.strip(once) is once


def test_the_answer_is_text_in_which_all_letters_are_kept(chained):
    for given in (chained, chained.encode()):
        stripped = chain.strip(given)
        assert isinstance(stripped, str)
        assert '\N{LATIN SMALL LETTER E WITH ACUTE}' in stripped


def test_two_disks_of_ours(chained):
    root = etree.fromstring(chained)
    root.find('devices').append(etree.fromstring(etree.tostring(root.find('.//disk'))))
    stripped = chain.strip(etree.tostring(root, encoding='unicode'))
    assert not documents.names_ours(stripped)


# -- insert


@pytest.mark.parametrize('xml', [documents.PLAIN, documents.DETECTED], ids=['plain', 'detected'])
def test_a_plan_comes_in_and_goes_out_again(xml, plan):
    inserted = chain.insert(xml, documents.OVERLAY, plan)
    assert isinstance(inserted, str)
    assert chain.is_in(inserted)
    (disk,) = etree.fromstring(inserted).xpath(f'//disk[source/@file="{documents.OVERLAY}"]')
    assert len(disk.findall('backingStore')) == 1, 'what libvirt had found goes'
    assert documents.same(chain.strip(inserted), documents.PLAIN)


def test_it_comes_in_as_it_is_added(plan):
    root = etree.fromstring(chain.insert(documents.PLAIN, documents.OVERLAY, plan, 30))
    inserted = root.find('.//disk')
    added = with_chain(plan, 30)
    for part in ('backingStore', './/source/reconnect'):
        one, other = inserted.find(part), added.find(part)
        assert (one is None) == (other is None)
        if one is not None:
            assert documents.same(etree.tostring(one).strip(), etree.tostring(other).strip())
    policy = inserted.find('driver').get('rerror_policy')
    assert policy == added.find('driver').get('rerror_policy')


def test_twice_in_is_once_in(plan):
    once = chain.insert(documents.PLAIN, documents.OVERLAY, plan)
    assert documents.same(chain.insert(once, documents.OVERLAY, plan), once)


def test_a_plan_takes_the_place_of_another(chained, plan):
    inserted = chain.insert(chained, documents.OVERLAY, plan)
    assert documents.same(inserted, chain.insert(documents.PLAIN, documents.OVERLAY, plan))


def test_a_plain_plan_takes_a_chain_away(chained):
    plain = Plan(PlanKind.PLAIN, 'x', IMAGE, documents.BASE, 'raw')
    assert documents.same(chain.insert(chained, documents.OVERLAY, plain), documents.PLAIN)


def test_other_disks_stay_as_they_are(plan):
    before, after = (
        [etree.tostring(disk) for disk in etree.fromstring(xml).findall('.//disk')[1:]]
        for xml in (
            documents.PLAIN,
            chain.insert(documents.PLAIN, documents.OVERLAY, plan),
        )
    )
    assert before == after


def test_a_disk_that_is_not_there_gets_nothing(plan):
    assert documents.same(chain.insert(documents.PLAIN, '/other', plan), documents.PLAIN)


# -- libvirt's own word


@pytest.fixture(scope='module')
def schema():
    return etree.RelaxNG(etree.parse(SCHEMA))


@pytest.mark.parametrize(
    'xml',
    [documents.PLAIN, documents.DETECTED, *documents.OURS.values()],
    ids=['plain', 'detected', *documents.OURS],
)
def test_the_documents_here_are_of_libvirt(schema, xml):
    schema.assertValid(etree.fromstring(xml))


@pytest.mark.parametrize('mode', [0o644, 0o600], ids=oct)
def test_libvirt_takes_what_is_made(schema, plan, base_path, mode):
    base_path.chmod(mode)
    inserted = chain.insert(documents.PLAIN, documents.OVERLAY, plan)
    schema.assertValid(etree.fromstring(inserted))
    schema.assertValid(etree.fromstring(chain.strip(inserted)))


def test_libvirt_would_refuse_another_child(schema, record):
    """The schema does look into the chain."""
    root = etree.fromstring(chain.insert(documents.PLAIN, documents.OVERLAY, record))
    etree.SubElement(root.find('.//disk/backingStore'), 'unknown')
    assert not schema.validate(root)
