# SPDX-License-Identifier: Apache-2.0
"""The commands of the README and the manual that take a cloud, typed as they stand there."""

from collections.abc import Callable, Mapping
import pathlib
import re
import subprocess

import pytest
from qcache_stack.stack import Stack

from tests import documented_commands
from tests.openstack import waiting
from tests.openstack.cloud import Cloud
from tests.openstack.cloud import Server
from tests.openstack.compute import ComputeHost

TESTS = 'tests/openstack/test_documented_commands.py'
ROOT = pathlib.Path(__file__).parents[2]


def filled(text: str, names: Mapping[str, str]) -> str:
    """Return a command with what stands for names in capitals."""
    for name, value in names.items():
        text = re.sub(rf'(?<![\w-]){name}(?![\w-])', value, text)
    return text


@pytest.fixture
def say(stack: Stack) -> Callable[[str], str]:
    """A function that types a command on the compute host, which must succeed, and returns what it
    prints."""

    def type_there(text: str) -> str:
        if text.startswith('tools/'):  # of the machine that the stack is on
            command = ['bash', '-c', text]
            done = subprocess.run(
                command,
                cwd=ROOT,
                capture_output=True,
                text=True,
                timeout=waiting.PATIENCE_SECONDS,
                check=False,
            )
        else:
            done = stack.exec(['bash', '-c', text], check=False)
        # An upgrade check ends with 1 if there is anything that is worth a look.
        assert done.returncode in ((0, 1) if text.endswith(' upgrade check') else (0,)), done
        return done.stdout

    return type_there


@pytest.fixture
def server(cloud: Cloud, ready_calm: str) -> Server:
    made = cloud.boot(ready_calm)
    made.wait_until_booted(boots=1)
    return made


def test_a_cloud_with_a_server(
    cloud: Cloud,
    host: ComputeHost,
    stack: Stack,
    ready_calm: str,
    server: Server,
    say: Callable[[str], str],
):
    commands = documented_commands.run_by(f'{TESTS}::test_a_cloud_with_a_server')
    flavor = cloud.api.compute.create_flavor(name='documented', ram=192, vcpus=1, disk=1)
    cloud.at_end(cloud.api.compute.delete_flavor, flavor.id)
    cloud.at_end(say, f'openstack image unset --property qcache:policy {ready_calm}')
    names = {
        'SERVER': server.id,
        'DOMAIN': server.domain,
        'IMAGE': ready_calm,
        'FLAVOR': flavor.name,
        'PYTHON': str(stack.layout.bin('python')),
    }
    assert host.kind(server) == 'PLAY'
    expected = {
        'openstack server show': f'(?s)host1 .*{server.domain}',
        'openstack server list': server.id,
        'virsh dumpxml': f'(?s)<backingStore type=.file.*{host.host.cache_path}/{ready_calm}',
        'virsh domuuid': server.id,
        'ps -C': r'(?m)^libvirt\S* +\S+ +\S*qemu-system-x86_64 ',
        'upgrade check': r'Check: nova .*\n.*Result: Success .*\n.*Nova 34\.\S+ fits',
        'PYTHON -c': r"<class 'nova_qcache\.virt\.driver\.QcacheDriver'>",
    }
    for command in commands:
        said = say(filled(command.text, names))
        for words, pattern in expected.items():
            if words in command.text:
                assert re.search(pattern, said), (command, said)
        for kind, policy in re.findall(r'^openstack (\w+) set .*policy=(\w+)', command.text):
            assert policy_of(cloud, kind, names) == policy
        if ' reboot ' in command.text:
            server.wait_for('ACTIVE').wait_until_booted(boots=2)
            assert host.kind(server) == 'PLAY'


def policy_of(cloud: Cloud, kind: str, names: Mapping[str, str]) -> str:
    """Return the policy that an image or a flavor has now."""
    if kind == 'image':
        found = cloud.api.image.get_image(names['IMAGE']).properties
    else:
        flavor = cloud.api.compute.find_flavor(names['FLAVOR'], get_extra_specs=True)
        found = flavor.extra_specs
    policy: str = found['qcache:policy']
    return policy
