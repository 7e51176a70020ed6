# SPDX-License-Identifier: Apache-2.0
"""Which images are deleted: a real HTTP server answers, as it should or not."""

import json
import socket
from unittest import mock
import uuid

from keystoneauth1 import loading
from oslo_config import cfg
import pytest
import requests

from nova_qcache import exception
from nova_qcache.system import glance as glance_module
from nova_qcache.system import waiting
from nova_qcache.system.glance import Glance
from tests.unit.fake_cloud import FakeCloud
from tests.unit.fake_cloud import REGION

THERE, GONE, OTHER = (str(uuid.UUID(int=n << 64)) for n in (1, 2, 3))
JSON = {'Content-Type': 'application/json'}
PASSWORD = 'very-secret'


@pytest.fixture
def cloud():
    with FakeCloud() as made:
        made.images[THERE] = 'active'
        yield made


@pytest.fixture
def configure(tmp_path):
    def made(cloud, more='', **options):
        values = {
            'auth_type': 'password',
            'auth_url': f'{cloud.url}/identity/v3',
            'username': 'nova',
            'password': PASSWORD,
            'user_domain_id': 'default',
            'project_name': 'service',
            'project_domain_id': 'default',
            **options,
        }
        lines = ['[asking]', *(f'{name} = {value}' for name, value in values.items()), more]
        file = tmp_path / 'nova.conf'
        file.write_text('\n'.join(lines) + '\n')
        conf = cfg.ConfigOpts()
        conf([f'--config-file={file}'], project='nova')
        return conf

    return made


@pytest.fixture
def glance(cloud, configure):
    return Glance(configure(cloud), 'asking')


def unknown(glance, *image_ids):
    """The error that there is, of which no part is a secret."""
    with pytest.raises(exception.GlanceUnknown) as caught:
        glance.deleted(image_ids or [THERE, GONE])
    assert PASSWORD not in str(caught.value)
    return str(caught.value)


def many(count):
    return [str(uuid.UUID(int=n)) for n in range(1, count + 1)]


def test_only_what_is_not_found_is_deleted(glance):
    assert glance.deleted([THERE, GONE]) == {GONE}


def test_nothing_is_asked_about_nothing(glance, cloud):
    assert glance.deleted([]) == set()
    assert cloud.requests == []


def test_an_image_that_is_not_listed_is_asked_about_by_itself(glance, cloud):
    cloud.images[OTHER] = 'active'
    cloud.unlisted = {OTHER}
    assert glance.deleted([OTHER]) == set()
    assert f'/{OTHER}' in cloud.asked


@pytest.mark.parametrize('is_listed', [True, False])
@pytest.mark.parametrize(
    ('state', 'is_deleted'),
    [('deleted', True), ('pending_delete', True), ('deactivated', False), ('queued', False)],
)
def test_states(glance, cloud, state, is_deleted, is_listed):
    cloud.images[OTHER] = state
    cloud.unlisted = set() if is_listed else {OTHER}
    assert glance.deleted([OTHER]) == ({OTHER} if is_deleted else set())


def test_a_glance_without_any_image(glance, cloud):
    cloud.images.clear()
    assert glance.deleted([GONE]) == {GONE}


def test_where_it_is(glance, cloud):
    assert glance.check() == f'{cloud.url}/image'


def test_no_connection_stays_open(glance, cloud):
    glance.deleted([GONE])
    waiting.until(
        lambda: cloud.connections == 0 or None,
        what='the end of connections',
        seconds=10,
        remedy='Close them',
        poll_seconds=0.01,
    )


# -- how much is asked


def test_images_are_asked_about_by_the_fifty(glance, cloud):
    cloud.images |= dict.fromkeys(many(500), 'active')
    assert glance.deleted(many(500)) == set()
    # One list and one image prove that it is Glance.
    assert len(cloud.asked) == 2 + 10
    assert all(len(each) < 2000 for each in cloud.requests), 'what proxies take for an address'


def test_a_run_asks_about_few_one_by_one_and_another_run_about_others(glance, cloud, monkeypatch):
    monkeypatch.setattr(glance_module, '_MOST_GETS', 3)
    wanted = set(many(10))
    assert len(glance.deleted(wanted)) == 3
    found = set()
    for _ in range(200):
        found |= glance.deleted(wanted)
        if found == wanted:
            return
    pytest.fail(f'{len(wanted - found)} had no turn')


def test_a_run_ends_in_time(glance, cloud, monkeypatch):
    monkeypatch.setattr(glance_module, '_MOST_SECONDS', 0)
    assert glance.deleted([GONE]) == set()


# -- what proves nothing

ODD = {
    'unauthorized': (401, {}, b''),
    'forbidden': (403, {}, b''),
    'gone for good': (410, {}, b''),
    'internal error': (500, {}, b''),
    'bad gateway': (502, {'Content-Type': 'text/html'}, b'<html>nginx</html>'),
    'maintenance': (503, {'Retry-After': '120'}, b''),
    'redirect': (302, {'Location': '/elsewhere'}, b''),
    'choices': (300, JSON, b'{"versions": []}'),
    'a page': (200, {'Content-Type': 'text/html'}, b'<html>Welcome</html>'),
    'nothing': (200, JSON, b''),
    'no content': (204, {}, b''),
    'half a body': (200, {**JSON, 'Content-Length': '99', 'Connection': 'close'}, b'{"images":'),
    'a list': (200, JSON, b'[]'),
    'null': (200, JSON, b'null'),
    'an object of another kind': (200, JSON, b'{"id": "x", "status": "deleted"}'),
}


@pytest.mark.parametrize('odd', ODD)
def test_an_odd_answer_to_the_first_question(glance, cloud, odd):
    cloud.odd['/images?limit=1'] = ODD[odd]
    unknown(glance)


@pytest.mark.parametrize('odd', ODD)
def test_an_odd_answer_to_a_list(glance, cloud, odd):
    cloud.odd[f'id=in:{GONE}'] = ODD[odd]
    unknown(glance, GONE)


@pytest.mark.parametrize('odd', ODD)
def test_an_odd_answer_about_an_image(glance, cloud, odd):
    cloud.odd[f'/{GONE}'] = ODD[odd]
    unknown(glance)


@pytest.mark.parametrize('query', ['/images?limit=1', f'id=in:{GONE}'])
def test_a_list_that_is_not_found(glance, cloud, query):
    cloud.odd[query] = (404, {}, b'')
    assert 'does not list images' in unknown(glance, GONE)


@pytest.mark.parametrize(
    'images', [{}, 'x', None, [1], [None], [{}], [{'id': OTHER}], [{'status': 'active'}]]
)
def test_a_list_of_something_else(glance, cloud, images):
    cloud.odd['/images?limit=1'] = (200, JSON, json.dumps({'images': images}).encode())
    unknown(glance)


def test_an_outage_in_the_middle_deletes_nothing(glance, cloud):
    cloud.odd[f'/{OTHER}'] = (503, {}, b'')
    for _ in range(10):  # the order is random
        unknown(glance, GONE, OTHER)


def test_images_that_are_listed_and_not_found(glance, cloud):
    cloud.odd[f'/{THERE}'] = (404, {}, b'')
    assert f'lists image {THERE} but does not find it' in unknown(glance, GONE)


def test_a_user_who_does_not_see_all(glance, cloud):
    cloud.roles = ['member', 'service']
    assert 'its user lacks the role admin' in unknown(glance)
    assert cloud.asked == []


def test_an_empty_catalog(glance, cloud):
    cloud.regions = {}
    assert 'the catalog has no image service' in unknown(glance)


def test_a_catalog_without_glance(glance, cloud):
    cloud.service_type = 'volume'
    assert 'the catalog has no image service' in unknown(glance)


def test_a_region_without_glance(cloud, configure):
    glance = Glance(configure(cloud, region_name='Nowhere'), 'asking')
    assert "in region 'Nowhere'" in unknown(glance)


@pytest.mark.parametrize('code', [401, 404, 500, 200])
def test_a_keystone_that_gives_no_token(glance, cloud, code):
    cloud.odd['/auth/tokens'] = (code, JSON, b'{}')
    unknown(glance)
    assert cloud.asked == []


@pytest.mark.parametrize('query', ['/images?limit=1', f'id=in:{GONE}', f'/{GONE}'])
def test_nobody_follows_to_another_address(glance, cloud, query):
    cloud.odd[query] = (302, {'Location': f'{cloud.url}/elsewhere'}, b'')
    assert 'answers 302' in unknown(glance, GONE)


def test_the_same_trouble_has_the_same_words(glance):
    said = set()
    for address in ('0x7f12ab', '0x7f34cd'):
        error = OSError(f'<urllib3.Connection object at {address}>: refused.')
        with mock.patch.object(
            loading, 'load_session_from_conf_options', autospec=True, side_effect=error
        ):
            said.add(unknown(glance))
    assert len(said) == 1


def test_nobody_listens(glance, cloud):
    with socket.socket() as other:
        other.bind(('127.0.0.1', 0))
        cloud.regions = {REGION: f'http://127.0.0.1:{other.getsockname()[1]}'}
        assert 'ConnectFailure' in unknown(glance)


@pytest.mark.parametrize(('options', 'seconds'), [({'timeout': 777}, 777), ({}, 30)])
def test_a_glance_that_never_answers(cloud, configure, options, seconds):
    real, asked = requests.Session.request, []

    def request(self, method, url, *, timeout, **more):
        asked.append(timeout)
        if url.endswith(f'/{GONE}'):
            raise requests.ReadTimeout
        return real(self, method, url, timeout=timeout, **more)

    with mock.patch.object(requests.Session, 'request', request):
        assert 'Timeout' in unknown(Glance(configure(cloud, **options), 'asking'))
    assert set(asked) == {seconds}


@pytest.mark.parametrize('kind', ['', 'none', 'no-such-plugin'])
def test_no_way_to_ask(cloud, configure, kind):
    glance = Glance(configure(cloud, auth_type=kind), 'asking')
    assert '[asking]' in unknown(glance)
    assert cloud.requests == []


def test_no_such_section(cloud, configure):
    assert 'Set auth_type in [other]' in unknown(Glance(configure(cloud), 'other'))


def test_a_file_of_certificates_that_is_missing(cloud, configure):
    cloud_url = cloud.url.replace('http:', 'https:')
    conf = configure(cloud, cafile='/no/such/file', auth_url=f'{cloud_url}/identity/v3')
    unknown(Glance(conf, 'asking'))


# -- which Glance


@pytest.mark.parametrize('path', ['/image/', '/image/v2', '/image/v2/', '/image/v2.9'])
def test_an_endpoint_in_another_spelling(glance, cloud, path):
    cloud.regions = {REGION: path}
    assert glance.deleted([THERE, GONE]) == {GONE}


@pytest.mark.parametrize(
    ('own', 'novas'), [(REGION, 'Elsewhere'), (REGION, ''), ('', REGION)], ids=str
)
def test_the_one_of_the_region(cloud, configure, own, novas):
    cloud.regions = {'Elsewhere': '/elsewhere', REGION: '/image'}
    options = {'region_name': own} if own else {}
    more = f'[glance]\nregion_name = {novas}' if novas else ''
    glance = Glance(configure(cloud, more, **options), 'asking')
    assert glance.check() == f'{cloud.url}/image'


def test_novas_own_address_and_not_that_of_the_service_whose_section_it_is(cloud, configure):
    cloud.regions = {REGION: '/elsewhere'}
    more = f'[glance]\nendpoint_override = {cloud.url}/image'
    conf = configure(cloud, more, endpoint_override=f'{cloud.url}/placement')
    assert Glance(conf, 'asking').check() == f'{cloud.url}/image'


def test_a_section_whose_options_are_registered_with_other_defaults(cloud, configure):
    conf = configure(cloud)
    for group in ('asking', 'glance'):
        options = loading.get_adapter_conf_options() + loading.get_session_conf_options()
        cfg.set_defaults(options, valid_interfaces=['public', 'internal'], timeout=7)
        conf.register_opts(options, group=group)
    assert Glance(conf, 'asking').deleted([THERE, GONE]) == {GONE}
