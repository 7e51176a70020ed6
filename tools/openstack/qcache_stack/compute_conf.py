# SPDX-License-Identifier: Apache-2.0
"""Configuration of nova-compute on a host: one file, and a folder of snippets that win over it."""

from qcache_stack import ini
from qcache_stack.control_conf import ControlConf
from qcache_stack.host import Host
from qcache_stack.host import QEMU_USER
from qcache_stack.process import StackError
from qcache_stack.settings import DRIVERS
from qcache_stack.settings import NOVA_USER

__all__ = ['DRIVER_SNIPPET', 'SET_SNIPPET', 'TEST_SNIPPET', 'compute_conf', 'write_snippet']

DRIVER_SNIPPET = '50-driver'
SET_SNIPPET = '60-set'
"""What ``up --set`` said."""
TEST_SNIPPET = '90-test'
"""What a test said."""


def compute_conf(host: Host, control: ControlConf) -> dict[str, dict[str, object]]:
    """Return the sections of its nova.conf; there is none about databases."""
    helper = f'sudo {host.layout.bin("privsep-helper")} --config-file {host.conf}'
    sections = ini.merge(
        control.common(),
        {
            'DEFAULT': {
                'host': host.name,
                'my_ip': host.address,
                'state_path': host.state_path,
                'instances_path': host.instances_path,
                'reserved_host_memory_mb': 0,
                'reserved_host_disk_mb': 0,
                'initial_cpu_allocation_ratio': 512,
                'initial_ram_allocation_ratio': 64,
                'initial_disk_allocation_ratio': 64,
                'vif_plugging_is_fatal': False,
                'vif_plugging_timeout': 0,
                'resume_guests_state_on_host_boot': True,
                'shutdown_timeout': 10,
                'heal_instance_info_cache_interval': -1,
            },
            'oslo_concurrency': {'lock_path': f'{host.state_path}/lock'},
            'libvirt': {
                'virt_type': 'qemu',
                'cpu_mode': 'none',
                'images_type': 'qcow2',
                'inject_partition': -2,
            },
            'filter_scheduler': {'track_instance_changes': False},
            'vnc': {'enabled': False},
            'privsep': {'helper_command': helper},
            'nova_sys_admin': {'helper_command': helper},
            'vif_plug_ovs_privileged': {'helper_command': helper},
            'vif_plug_linux_bridge_privileged': {'helper_command': helper},
            'qcache': {
                'cache_path': host.cache_path,
                'run_path': host.run_path,
                'qemu_group': QEMU_USER,
            },
        },
    )
    return sections


def write_conf(host: Host, control: ControlConf) -> None:
    text = ini.render(compute_conf(host, control))
    ini.write(host.outside(host.conf), text, gid=NOVA_USER.uid)


def write_snippet(host: Host, name: str, sections: ini.Sections) -> None:
    """Write a file of the config folder, or take it away if there is nothing in it."""
    path = host.outside(host.conf_folder) / f'{name}.conf'
    if sections:
        ini.write(path, ini.render(sections), gid=NOVA_USER.uid)
    else:
        path.unlink(missing_ok=True)


def write_driver(host: Host, driver: str) -> None:
    """:raises StackError: if there is no such driver"""
    if driver not in DRIVERS:
        raise StackError(f'no driver {driver!r}; there are {", ".join(DRIVERS)}')
    write_snippet(host, DRIVER_SNIPPET, {'DEFAULT': {'compute_driver': DRIVERS[driver]}})
