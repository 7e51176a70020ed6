# SPDX-License-Identifier: Apache-2.0
"""The tempest plugin, run by the real tempest against the stack."""

import ast
import importlib.metadata
import json
import pathlib
import re

import pytest
from qcache_stack.stack import Stack

from tests.openstack import waiting
from tests.openstack.cloud import Cloud
from tests.openstack.compute import ComputeHost
from tests.openstack.tempest_run import Outcome
from tests.openstack.tempest_run import Workspace

ROOT = pathlib.Path(__file__).parents[2]
PACKAGE = 'nova_qcache_tempest_plugin'
FIRST = f'{PACKAGE}.tests.test_boots.BootsTest.test_the_first_server_records_and_the_second_plays'
POLICIES = f'{PACKAGE}.tests.test_policies.PoliciesTest'

_OPTIONS = {
    # Tempest waits for the end of a recording, and cannot say when it is.
    'qcache': {
        'glance_auth_section': 'service_user',
        'recording_idle_seconds': 10,
        'recording_settle_seconds': 3,
    },
    'image_cache': {'manager_interval': 2},
}
pytestmark = pytest.mark.options(**_OPTIONS)


def _declared() -> dict[str, list[str]]:
    """Return the names of all tests by the names of their classes, as the sources have them."""
    found = {}
    for path in sorted((ROOT / PACKAGE / 'tests').glob('test_*.py')):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef):
                name = f'{PACKAGE}.tests.{path.stem}.{node.name}'
                functions = [each.name for each in node.body if isinstance(each, ast.FunctionDef)]
                found[name] = [f'{name}.{each}' for each in functions if each.startswith('test_')]
    return found


TESTS = _declared()


def _all_skipped(reason: str) -> dict[str, Outcome]:
    return {name: Outcome('skip', reason) for name in TESTS}


@pytest.fixture(scope='module')
def image(session_cloud: Cloud, stack: Stack, disks: pathlib.Path, tmp_path_factory) -> str:
    """The calm guest, small enough to be copied for each test."""
    path = tmp_path_factory.mktemp('image') / 'calm.qcow2'
    convert = ['qemu-img', 'convert', '-c', '-O', 'qcow2', str(disks / 'calm.raw'), str(path)]
    stack.exec(convert)
    return session_cloud.upload(path, 'qcow2')


@pytest.fixture
def workspace(stack: Stack, tmp_path: pathlib.Path) -> Workspace:
    return Workspace(stack, tmp_path)


@pytest.fixture
def options(stack: Stack, host: ComputeHost, image: str) -> dict[str, dict[str, object]]:
    """The sections of tempest.conf for a stack whose host can be looked at."""
    files = f'--config-file {host.host.conf} --config-dir {host.host.conf_folder}'
    return {
        'service_available': {'qcache': True},
        'compute': {'image_ref': image},
        'qcache': {
            'host_command': ' '.join(stack.command([])),
            'nova_qcache_command': f'nova-qcache {files}',
            'server_networks': 'none',
            'booted_pattern': r'QCACHE data ok \d+\s+QCACHE booted',
            'boot_timeout': waiting.PATIENCE_SECONDS,
            'ready_timeout': waiting.PATIENCE_SECONDS,
            'deleted_image_timeout': waiting.PATIENCE_SECONDS,
        },
    }


def _what_is_there(cloud: Cloud, host: ComputeHost) -> dict[str, set[str]]:
    return {
        'servers': {each.id for each in cloud.api.compute.servers(all_projects=True)},
        'images': {each.id for each in cloud.api.image.images()},
        'flavors': {each.id for each in cloud.api.compute.flavors()},
        'projects': {each.id for each in cloud.api.identity.projects()},
        # Not what is COLD: recorders of another stack on this machine have sockets of such names.
        'caches': {
            row['image_id']
            for row in json.loads(host.qcache('list', '-f', 'json').stdout)
            if row['state'] != 'COLD'
        },
    }


def test_the_entry_point_resolves_and_names_all_options():
    (point,) = importlib.metadata.entry_points(group='tempest.test_plugins', name='qcache')
    plugin = point.load()()
    folder, top = plugin.load_tests()
    assert pathlib.Path(folder).relative_to(top) == pathlib.Path(PACKAGE, 'tests')
    groups = {name: {option.name for option in group} for name, group in plugin.get_opt_lists()}
    assert groups['service_available'] == {'qcache'}
    assert 'host_command' in groups['qcache']


def test_all_of_the_plugin_passes(cloud: Cloud, host: ComputeHost, workspace: Workspace, options):
    workspace.configure(options)
    before = _what_is_there(cloud, host)
    outcomes = workspace.run(PACKAGE, concurrency=2)
    passed = {name: Outcome('success', '') for names in TESTS.values() for name in names}
    assert outcomes == passed
    assert _what_is_there(cloud, host) == before
    log = (workspace.folder / 'logs' / 'tempest.log').read_text()
    assert re.search(r'were up [0-9.]+ s after the request', log), 'boots have their times there'


def test_where_the_plugin_is_not_expected_all_is_skipped(workspace: Workspace, options):
    workspace.configure({**options, 'service_available': {'qcache': False}})
    outcomes = workspace.run(PACKAGE, concurrency=1)
    assert outcomes == _all_skipped('[service_available] qcache is false')


def test_where_the_command_is_missing_all_is_skipped(workspace: Workspace, options):
    options['qcache']['nova_qcache_command'] = '/nonexistent/nova-qcache'
    workspace.configure(options)
    outcomes = workspace.run(PACKAGE, concurrency=2)
    assert {name: outcome.status for name, outcome in outcomes.items()} == dict.fromkeys(
        TESTS, 'skip'
    )
    for outcome in outcomes.values():
        assert outcome.reason.startswith('nova-qcache is not on '), outcome
        assert 'see [qcache] host_command and nova_qcache_command' in outcome.reason


def test_where_the_driver_is_stock_tests_are_skipped_or_prove_that_servers_boot(
    cloud: Cloud, stack: Stack, workspace: Workspace, options
):
    stack.restart('nova-compute', driver='stock', kill=True)
    cloud.at_end(lambda: stack.restart('nova-compute', driver='qcache', kill=True))
    workspace.configure(options)
    outcomes = workspace.run(FIRST, concurrency=1)
    assert set(outcomes) == {FIRST}
    assert outcomes[FIRST].status == 'skip', outcomes[FIRST].reason
    assert outcomes[FIRST].reason.startswith('nova-qcache is off on ')
    assert 'set [DEFAULT] compute_driver = qcache.QcacheDriver' in outcomes[FIRST].reason

    options['qcache']['host_command'] = ''
    workspace.configure(options)
    outcomes = workspace.run(f'{FIRST}|{POLICIES}', concurrency=2)
    assert outcomes.pop(FIRST) == Outcome('success', '')
    refused = f'{POLICIES}.test_a_flavor_that_says_nonsense_is_refused'
    assert outcomes.pop(refused) == Outcome('success', '')
    reason = '[qcache] host_command is empty, and this is seen on the host'
    assert outcomes == {
        name: Outcome('skip', reason) for name in TESTS[POLICIES] if name != refused
    }
