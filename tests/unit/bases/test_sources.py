# SPDX-License-Identifier: Apache-2.0
"""The contract that every source keeps, and what is peculiar to each of ours."""

import contextlib
import importlib.metadata
import json
import os
import pathlib
import socket
from unittest import mock

import pytest

from nova_qcache import exception
from nova_qcache.bases.file import FileSource
from nova_qcache.bases.nbd import NbdSource
from nova_qcache.cache import plugins
from nova_qcache.model.source import BaseChange
from nova_qcache.model.source import BaseIdentity
from nova_qcache.model.source import FORMATS
from nova_qcache.model.source import Source
from nova_qcache.system import files

SCHEMES = sorted(point.name for point in importlib.metadata.entry_points(group=plugins.SOURCES))

ANOTHER = {
    'file': '/another/base',
    'nbd': 'nbd://host/another',
    'nbd+unix': 'nbd+unix:///another?socket=/run/nbd',
}
"""A second reference for each installed source; the first one is in the fixture below."""


@pytest.mark.parametrize('scheme', SCHEMES)
@pytest.mark.parametrize('base_format', FORMATS)
class TestContract:
    @pytest.fixture
    def source(self, scheme, base_format, base):
        reference = {
            'file': str(base),
            'nbd': 'nbd://host:1234/export',
            'nbd+unix': 'nbd+unix:///export?socket=/run/nbd',
        }[scheme]
        return plugins.source(reference, base_format, reconnect_seconds=3)

    def test_it_is_a_source_that_says_what_it_is(self, source, scheme, base_format):
        assert isinstance(source, Source)
        assert scheme in source.schemes
        assert source.base_format == base_format
        assert source.reconnect_seconds == 3

    def test_identity_is_unchanged_since_itself(self, source):
        assert source.identity().changes_since(source.identity()) is BaseChange.NONE

    def test_first_bytes_are_few_or_a_matter_of_qemu(self, source):
        found = source.first_bytes(3)
        assert found is None or len(found) == 3

    def test_protocol_node(self, source):
        node = source.protocol_node()
        assert 'node-name' not in node
        assert node['driver'] in source.drivers
        assert json.loads(json.dumps(node)) == node

    def test_nodes_are_read_only_and_end_with_the_name(self, source, base_format):
        nodes = source.nodes('x')
        assert nodes[-1]['node-name'] == 'x'
        assert nodes[-1]['driver'] == base_format
        assert all(node['read-only'] is True for node in nodes)
        names = [node['node-name'] for node in nodes]
        assert len(set(names)) == len(names)
        assert not set(names) & {node['node-name'] for node in source.nodes('y')}

    def test_options_and_names_take_no_look_at_the_base(self, scheme, base_format, tmp_path):
        """It may hang, and somebody may have to end what reads it."""
        reference = {'file': str(tmp_path / 'gone')}.get(scheme, ANOTHER[scheme])
        refused = AssertionError('a look at the base')
        calls = ('open', 'stat', 'lstat', 'listdir', 'scandir', 'access')
        with contextlib.ExitStack() as patches:
            for name in calls:
                patches.enter_context(
                    mock.patch.object(os, name, autospec=True, side_effect=refused)
                )
            patches.enter_context(mock.patch('builtins.open', autospec=True, side_effect=refused))
            patches.enter_context(
                mock.patch.object(socket, 'socket', autospec=True, side_effect=refused)
            )
            source = plugins.source(reference, base_format)
            names = [node['node-name'] for node in source.nodes('x')]
            assert names == source.node_names('x')
            assert source.image_node()['file'] == source.protocol_node()
            assert source.filename

    def test_what_is_learned_changes_no_name(self, source):
        before = [node['node-name'] for node in source.nodes('x')]
        with contextlib.suppress(exception.InvalidBase):
            source.learn()
        assert [node['node-name'] for node in source.nodes('x')] == before

    def test_image_node_names_no_other_file(self, source, base_format):
        node = source.image_node()
        assert node['driver'] == base_format
        assert node['read-only'] is True
        assert node['file'] == source.protocol_node()
        assert ('backing' in node) == (base_format == 'qcow2')
        assert node.get('backing') is None

    def test_a_qcow2_base_opens_no_backing_file(self, source, base_format):
        top = source.nodes('x')[-1]
        assert top.get('backing') is None
        assert ('backing' in top) == (base_format == 'qcow2')

    def test_generation_name_is_a_file_name_of_its_own(self, source, scheme, base_format):
        name = source.generation_name()
        assert pathlib.PurePath(name).name == name
        assert 0 < len(os.fsencode(name)) <= 200
        other = plugins.source(ANOTHER[scheme], base_format)
        assert (other.generation_folder(), other.generation_name()) != (
            source.generation_folder(),
            name,
        )

    def test_generation_folder_is_absolute_or_none(self, source):
        folder = source.generation_folder()
        assert folder is None or folder.is_absolute()

    def test_a_reference_with_a_nul_is_refused(self, scheme, base_format):
        reference = ANOTHER[scheme] + '\0'
        with pytest.raises(exception.InvalidBase) as caught:
            plugins.source(reference, base_format)
        assert repr(reference) in str(caught.value)


class TestBaseChange:
    THEN = BaseIdentity(size=1, inode=2, mtime_ns=3)

    @pytest.mark.parametrize(
        ('now', 'changes_since'),
        [
            (BaseIdentity(1, 2, 3), BaseChange.NONE),
            (BaseIdentity(1, 2, 4), BaseChange.TIMES),
            (BaseIdentity(1, 2, 2), BaseChange.TIMES),
            (BaseIdentity(2, 2, 3), BaseChange.FACTS),
            (BaseIdentity(1, 3, 3), BaseChange.FACTS),
            (BaseIdentity(2, 3, 4), BaseChange.FACTS),
            (BaseIdentity(), BaseChange.FACTS),
        ],
    )
    def test_degrees(self, now, changes_since):
        assert now.changes_since(self.THEN) is changes_since

    def test_only_facts_are_about_content(self):
        assert [each for each in BaseChange if each.is_about_content] == [BaseChange.FACTS]

    def test_a_source_that_knows_nothing_sees_no_change(self):
        assert BaseIdentity().changes_since(BaseIdentity()) is BaseChange.NONE


def refusal(call, *arguments, **options):
    with pytest.raises(exception.InvalidBase) as caught:
        call(*arguments, **options)
    return str(caught.value)


def test_a_name_that_is_no_text():
    """qemu takes it as JSON."""
    for source, reference in ((FileSource, '/no\udcff'), (NbdSource, 'nbd://host/no\udcff')):
        assert 'its name is not UTF-8. Give it another name' in refusal(source, reference, 'raw')


class TestFile:
    @pytest.mark.parametrize(
        'reference', ['', 'base', './base', 'file://host/base', 'file://localhostx/base']
    )
    def test_a_path_that_is_not_absolute(self, reference):
        said = refusal(FileSource, reference, 'raw')
        assert f'The base {reference!r} cannot be cached: it is not an absolute path' in said
        assert 'Give a path from the root, or a URI' in said

    def test_a_uri_names_the_same_file(self, base):
        assert (
            FileSource(f'file://{base}', 'raw').path == FileSource(str(base), 'raw').path == base
        )
        assert FileSource(f'file://{base}', 'raw').filename == str(base)
        assert FileSource(f'file://localhost{base}', 'raw').path == base

    def test_identity_is_that_of_the_file(self, base):
        facts = base.stat()
        assert FileSource(str(base), 'raw').identity() == BaseIdentity(
            facts.st_size, facts.st_ino, facts.st_mtime_ns
        )

    def test_a_base_through_a_link_is_the_file_behind_it(self, base):
        link = base.with_name('link')
        link.symlink_to(base)
        assert FileSource(str(link), 'raw').identity() == FileSource(str(base), 'raw').identity()

    @pytest.mark.parametrize('look', ['identity', 'first_bytes'])
    def test_missing(self, base, look):
        base.unlink()
        source = FileSource(str(base), 'raw')
        said = refusal(getattr(source, look), *([512] if look == 'first_bytes' else []))
        assert repr(str(base)) in said
        assert 'No such file or directory' in said
        assert 'Give the path of an image that is there' in said

    def test_a_name_that_no_file_can_have(self, tmp_path):
        said = refusal(FileSource(f'{tmp_path}/{"x" * 300}', 'raw').identity)
        assert 'File name too long' in said

    def test_unreadable(self, base):
        denied = PermissionError(13, 'Permission denied')
        with mock.patch('builtins.open', autospec=True, side_effect=denied):
            said = refusal(FileSource(str(base), 'raw').first_bytes, 512)
        assert repr(str(base)) in said
        assert 'Permission denied' in said
        assert f'Let user {os.geteuid()}, which nova-compute runs as, read it' in said

    def test_empty(self, base):
        base.write_bytes(b'')
        said = refusal(FileSource(str(base), 'raw').first_bytes, 512)
        assert f'{str(base)!r} cannot be cached: it is empty' in said
        assert 'Check whether its download has ended' in said

    def test_folder(self, base):
        said = refusal(FileSource(str(base.parent), 'raw').first_bytes, 512)
        assert f'{str(base.parent)!r} cannot be cached: it is not a regular file' in said
        assert 'Give the image file itself' in said

    def test_fifo(self, tmp_path):
        os.mkfifo(tmp_path / 'fifo')
        said = refusal(FileSource(str(tmp_path / 'fifo'), 'raw').first_bytes, 512)
        assert 'it is not a regular file' in said

    @pytest.mark.parametrize('path', ['/', '/dev/null'])
    def test_what_is_no_file_is_refused_before_a_counter_is_made_beside_it(self, path):
        assert 'it is not a regular file' in refusal(FileSource(path, 'raw').identity)

    def test_first_bytes(self, base):
        assert FileSource(str(base), 'raw').first_bytes(7) == b'content'

    @pytest.mark.parametrize('direct', [True, False])
    def test_the_page_cache_is_passed_by_where_it_can_be(self, base, direct):
        with mock.patch.object(files, 'supports_direct_io', autospec=True, return_value=direct):
            source = FileSource(str(base), 'raw')
            source.learn()
        node = source.protocol_node()
        assert node == {'driver': 'file', 'filename': str(base), 'cache': {'direct': direct}}

    def test_a_file_that_has_gone(self, base):
        base.unlink()
        said = refusal(FileSource(str(base), 'raw').learn)
        assert 'No such file' in said
        assert 'Check whether it is still there' in said

    def test_its_generation_is_beside_it(self, base):
        source = FileSource(str(base), 'raw')
        assert source.generation_folder() == base.parent / '.nova-qcache'
        assert source.generation_name() == 'base'

    @pytest.mark.parametrize('name', ['.hidden', 'a b', 'x' * 201, 'ä', '-x', 'a\\b'])
    def test_other_names_are_hashed(self, name):
        first, second = (FileSource(f'/f/{given}', 'raw') for given in (name, name + '1'))
        assert len(first.generation_name()) == 64
        assert first.generation_name() != second.generation_name()


UNIX = {'type': 'unix', 'path': '/run/s'}


class TestNbd:
    @pytest.mark.parametrize(
        ('reference', 'server', 'export'),
        [
            ('nbd://h', {'type': 'inet', 'host': 'h', 'port': '10809'}, None),
            ('nbd://h/', {'type': 'inet', 'host': 'h', 'port': '10809'}, None),
            ('nbd://h:1/x', {'type': 'inet', 'host': 'h', 'port': '1'}, 'x'),
            ('nbd://h/x/y', {'type': 'inet', 'host': 'h', 'port': '10809'}, 'x/y'),
            ('nbd://h/a%20b', {'type': 'inet', 'host': 'h', 'port': '10809'}, 'a b'),
            ('nbd://[::1]:1/x', {'type': 'inet', 'host': '::1', 'port': '1'}, 'x'),
            ('nbd+unix:///x?socket=/run/s', UNIX, 'x'),
            ('nbd+unix:///?socket=/run/s', UNIX, None),
            ('nbd+unix:///x?socket=%2Frun%2Fs', UNIX, 'x'),
        ],
    )
    def test_references(self, reference, server, export):
        node = NbdSource(reference, 'raw').protocol_node()
        assert node['driver'] == 'nbd'
        assert node['server'] == server
        assert node.get('export') == export

    @pytest.mark.parametrize(
        'reference',
        [
            'nbd://',
            'nbd:///x',
            'nbd://h:port/x',
            'nbd://h:70000/x',
            'nbd://h/x?socket=/run/s',
            'nbd://user@h/x',
            'nbd://[::1/x',
            'nbd+unix:///x',
            'nbd+unix:///x?socket=',
            'nbd+unix:///x?socket=relative',
            'nbd+unix:///x?socket=/a&socket=/b',
            'nbd+unix://h/x?socket=/run/s',
        ],
    )
    def test_references_that_make_no_sense(self, reference):
        said = refusal(NbdSource, reference, 'raw')
        assert f'The base {reference!r} cannot be cached' in said
        assert 'Give nbd://host[:port]/export or nbd+unix:///export?socket=/path' in said

    @pytest.mark.parametrize('seconds', [0, 7])
    def test_reads_wait_for_a_server_that_went_away(self, seconds):
        node = NbdSource('nbd://h/x', 'raw', reconnect_seconds=seconds).protocol_node()
        assert node.get('reconnect-delay', 0) == seconds
        assert ('reconnect-delay' in node) == bool(seconds)

    def test_it_has_no_folder_and_asks_nothing(self):
        source: Source = NbdSource('nbd://h/x', 'raw')
        assert source.generation_folder() is None
        assert source.identity() == BaseIdentity()
        assert source.first_bytes(512) is None
        assert source.filename == 'nbd://h/x'
