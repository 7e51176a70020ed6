# SPDX-License-Identifier: Apache-2.0
"""Which source a reference gets."""

from unittest import mock

import pytest
from stevedore import driver

from nova_qcache import exception
from nova_qcache.bases.file import FileSource
from nova_qcache.bases.nbd import NbdSource
from nova_qcache.cache import plugins
from nova_qcache.cache.eviction import LeastRecentlyUsed
from nova_qcache.cache.eviction import LeastValuable


@pytest.fixture
def forgetful():
    """What was loaded before and in this test is not remembered."""
    plugins._source_class.cache_clear()
    yield
    plugins._source_class.cache_clear()


@pytest.mark.parametrize(
    ('reference', 'kind'),
    [
        ('/a/path', FileSource),
        ('/a/nbd://path', FileSource),
        ('file:///a/path', FileSource),
        ('nbd://host/x', NbdSource),
        ('nbd+unix:///x?socket=/run/s', NbdSource),
    ],
)
def test_schemes(reference, kind):
    source = plugins.source(reference, 'qcow2', reconnect_seconds=5)
    assert type(source) is kind
    assert (source.reference, source.base_format) == (reference, 'qcow2')
    assert source.reconnect_seconds == 5


@pytest.mark.parametrize('scheme', ['http', 'rbd', 'x-y.z+1'])
def test_a_scheme_of_nobody(scheme):
    with pytest.raises(exception.InvalidBase) as caught:
        plugins.source(f'{scheme}://host/x', 'raw')
    said = str(caught.value)
    assert repr(f'{scheme}://host/x') in said
    assert f'no source for {scheme!r} is installed' in said
    assert 'or install a plugin for nova_qcache.sources' in said


@pytest.mark.parametrize('reference', ['', 'relative', '://x', 'NBD://host/x', '1://x'])
def test_what_is_no_uri_is_a_path(reference):
    with pytest.raises(exception.InvalidBase, match='it is not an absolute path'):
        plugins.source(reference, 'raw')


@pytest.mark.parametrize('base_format', ['', 'vmdk', 'RAW', 'raw ', 'iso', None])
def test_other_formats(base_format):
    with pytest.raises(exception.InvalidBase) as caught:
        plugins.source('/a/path', base_format)
    said = str(caught.value)
    assert "'/a/path'" in said
    assert f'its format is {base_format!r}' in said
    assert 'Only raw and qcow2 are cached' in said


def test_a_plugin_is_loaded_once(forgetful):
    with mock.patch.object(driver, 'DriverManager', autospec=True) as load:
        load.return_value.driver = FileSource
        plugins.source('new:///x'.replace('new', 'file'), 'raw')
        plugins.source('/y', 'raw')
    load.assert_called_once_with(plugins.SOURCES, 'file', invoke_on_load=False)


@pytest.mark.parametrize(
    'error', [ImportError('no module of that name'), AttributeError('no class')]
)
def test_a_plugin_that_cannot_be_loaded(forgetful, error):
    with (
        mock.patch.object(driver, 'DriverManager', autospec=True, side_effect=error),
        pytest.raises(exception.InvalidBase) as caught,
    ):
        plugins.source('broken://x', 'raw')
    assert str(error) in str(caught.value)


# -- eviction policies


@pytest.mark.parametrize(('name', 'kind'), [('value', LeastValuable), ('lru', LeastRecentlyUsed)])
def test_policies(name, kind):
    assert type(plugins.eviction_policy(name)) is kind


@pytest.mark.parametrize('name', ['', 'LRU', 'best'])
def test_a_policy_of_nobody(name):
    with pytest.raises(exception.InvalidOption) as caught:
        plugins.eviction_policy(name)
    said = str(caught.value)
    assert f'[qcache] eviction_policy = {name}: no such policy is installed' in said
    assert 'Give value or lru, or install a plugin for nova_qcache.eviction_policies' in said


def test_a_policy_that_cannot_be_loaded():
    error = ImportError('no module of that name')
    with (
        mock.patch.object(driver, 'DriverManager', autospec=True, side_effect=error),
        pytest.raises(exception.InvalidOption, match='no module of that name'),
    ):
        plugins.eviction_policy('broken')


def test_a_policy_that_is_none():
    with mock.patch.object(driver, 'DriverManager', autospec=True) as load:
        load.return_value.driver = 5
        with pytest.raises(
            exception.InvalidOption, match="it is of type 'int' and not an EvictionPolicy"
        ):
            plugins.eviction_policy('odd')
