# SPDX-License-Identifier: Apache-2.0
"""Which test runs each command of the README and the manual, or why none does.

A command has one entry, however many pages have it. Tests that run several ask :func:`run_by` for
theirs, so what is assigned to them here is run.
"""

from tests import documents

__all__ = ['NOT_RUN', 'OWN_WORDS', 'PARTS', 'RUN', 'run_by']

_QUICK_START = 'tests/functional/test_documented_commands.py::test_the_quick_start'
_PACKAGES = 'tests/functional/test_documented_commands.py::test_packages_of_the_distribution'
_HOST = 'tests/functional/test_documented_commands.py::test_a_host_from_installation_to_its_end'
_CLOUD = 'tests/openstack/test_documented_commands.py::test_a_cloud_with_a_server'
_TEMPEST = 'tests/openstack/test_tempest.py::test_all_of_the_plugin_passes'

_QCACHE_CONF = 'bin/nova-qcache --config-file qcache.conf'
_IMAGE = '571967d4-6860-4b23-8649-8ffe1f34d7a6'
_GUEST = 'qemu-system-x86_64 -m 512 -display none -serial stdio'

RUN = {
    # -- quickstart.rst
    'apt-get install python3-venv qemu-system-common qemu-system-x86 qemu-utils': _PACKAGES,
    'python3 -m venv /tmp/qcache': _QUICK_START,
    '/tmp/qcache/bin/pip install .': _QUICK_START,
    'cd /tmp/qcache': _QUICK_START,
    f'{_QCACHE_CONF} check': _QUICK_START,
    f'{_QCACHE_CONF} record {_IMAGE} --base BASE': _QUICK_START,
    'qemu-img create -f qcow2 -b BASE -F raw first.qcow2': _QUICK_START,
    f'{_GUEST} -blockdev driver=nbd,node-name=recorder,export=top,read-only=on,server.type=unix,'
    'server.path=SOCKET -drive if=virtio,format=qcow2,file=first.qcow2,'
    'backing=recorder': _QUICK_START,
    f'{_QCACHE_CONF} seal --wait {_IMAGE}': _QUICK_START,
    f'{_QCACHE_CONF} list': _QUICK_START,
    f'{_QCACHE_CONF} plan {_IMAGE} --base BASE': _QUICK_START,
    'qemu-img create -f qcow2 -b BASE -F raw second.qcow2': _QUICK_START,
    f'{_GUEST} -blockdev driver=qcow2,node-name=cache,read-only=on,file.driver=file,'
    'file.filename=CACHE -drive if=virtio,format=qcow2,file=second.qcow2,'
    'backing=cache': _QUICK_START,
    f'{_QCACHE_CONF} remove {_IMAGE}': _QUICK_START,
    'cd /': _QUICK_START,
    'rm -rf /tmp/qcache': _QUICK_START,
    # -- a host: installed, configured, used, upgraded, cleared
    'apt-get install qemu-system-common qemu-utils': _PACKAGES,
    'usermod --append --groups libvirt-qemu nova': _HOST,
    'pip install .': _HOST,
    'pip wheel --no-deps --wheel-dir dist .': _HOST,
    'install -d -o nova -g nova -m 0711 /var/lib/nova/qcache': _HOST,
    'install -m 0644 etc/tmpfiles.d/nova-qcache.conf /etc/tmpfiles.d': _HOST,
    'ln -s SITE/nova/virt/qcache NOVA/nova/virt/qcache': _HOST,
    'install -d /etc/apparmor.d/local/abstractions': _HOST,
    'cat PREFIX/share/nova-qcache/apparmor.d/local/abstractions/libvirt-qemu '
    '>>/etc/apparmor.d/local/abstractions/libvirt-qemu': _HOST,
    'systemd-tmpfiles --create /etc/tmpfiles.d/nova-qcache.conf': _HOST,
    'oslo-config-generator --namespace nova_qcache --output-file qcache.conf.sample': _HOST,
    'nova-qcache check': _HOST,
    'nova-qcache list': _HOST,
    'nova-qcache show IMAGE': _HOST,
    'nova-qcache show IMAGE -c state -c note -c allocated_bytes -c quota_bytes': _HOST,
    'nova-qcache plan IMAGE --base=BASE --base-format=raw': _HOST,
    "nova-qcache stats -c Image -c State -c MiB -c 'Quota MiB' -c Boots -c 'Hit %'": _HOST,
    'nova-qcache stats --host': _HOST,
    'nova-qcache remove IMAGE': _HOST,
    'pip install --upgrade .': _HOST,
    'pip uninstall nova-qcache': _HOST,
    'rm -r /var/lib/nova/qcache /run/nova-qcache': _HOST,
    'rm -r /var/lib/nova/instances/_base/.nova-qcache': _HOST,
    # -- a cloud
    "PYTHON -c 'from nova.virt.qcache import QcacheDriver; print(QcacheDriver)'": _CLOUD,
    'nova-qcache-status upgrade check': _CLOUD,
    'ps -C qemu-system-x86_64 -o user,group,args': _CLOUD,
    'openstack server show SERVER -c OS-EXT-SRV-ATTR:host '
    '-c OS-EXT-SRV-ATTR:instance_name': _CLOUD,
    'virsh dumpxml DOMAIN': _CLOUD,
    'virsh domuuid DOMAIN': _CLOUD,
    'openstack image set --property qcache:policy=never IMAGE': _CLOUD,
    'openstack flavor set --property qcache:policy=never FLAVOR': _CLOUD,
    'openstack flavor set --property qcache:policy=always FLAVOR': _CLOUD,
    'openstack server reboot --hard SERVER': _CLOUD,
    'tools/openstack.sh exec -- openstack server list': _CLOUD,
    'tempest run --regex nova_qcache_tempest_plugin --concurrency 2': _TEMPEST,
}
"""Commands by the tests that run them."""

OWN_WORDS = {_TEMPEST}
"""Tests that say their command in words of their own, since it is what they are about."""

PARTS = {
    'bench/run.sh --smoke',
    'tools/demo.sh',
    'tools/openstack.sh up',
    'tools/openstack.sh down',
}
"""Commands that are parts of ``tools/test.sh --all`` themselves."""

_MUTATION = 'tests the tests, and takes too long for a test'
_SYSTEMD = 'needs systemd as the first process'
_SELINUX = 'needs a kernel with SELinux, and the tools of a distribution that has it'

NOT_RUN = {
    'tools/test.sh': 'is what runs all tests',
    'tools/mutation.sh --list': _MUTATION,
    'tools/mutation.sh leases quota': _MUTATION,
    'tools/mutation.sh': _MUTATION,
    'systemctl daemon-reload': _SYSTEMD,
    'systemctl restart libvirtd': _SYSTEMD,
    'systemctl restart nova-compute': _SYSTEMD,
    'systemctl restart openstack-nova-compute': _SYSTEMD,
    'semodule -i PREFIX/share/nova-qcache/selinux/nova-qcache.cil': _SELINUX,
    'restorecon -R -v /run/nova-qcache': _SELINUX,
    'install -D -m 0755 nova-qcache /etc/libvirt/hooks/qemu.d/nova-qcache': (
        'is of no use without libvirtd; tests/functional/test_kept_xml.py runs the hook with one'
    ),
    'podman build --tag REGISTRY/nova-compute:TAG --file Containerfile .': (
        'builds on an image of a registry'
    ),
    'ansible-playbook --inventory INVENTORY nova-qcache.yml': (
        'needs Ansible, and hosts that it may change;'
        ' tests/unit/project/test_examples.py reads the play'
    ),
    "pip install '.[tempest]'": (
        'brings the newest tempest; tools/openstack/requirements.txt has the one that the plugin '
        'is run with, and "pip install ." is run'
    ),
}
"""Commands that no test runs, and why."""


def run_by(test: str) -> list[documents.Command]:
    """Return what a test runs, in the order of the pages, each text once.

    :param test: its node ID
    """
    found: dict[str, documents.Command] = {}
    for command in documents.commands():
        if RUN.get(command.text) == test:
            found.setdefault(command.text, command)
    return list(found.values())
