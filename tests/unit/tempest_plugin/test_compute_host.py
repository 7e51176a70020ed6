# SPDX-License-Identifier: Apache-2.0
"""Commands on a compute host: what is run, what comes back, and what is said when it fails."""

import json
import pathlib
import shlex
import textwrap

import pytest

from nova_qcache_tempest_plugin.compute_host import ComputeHost
from nova_qcache_tempest_plugin.compute_host import HostError
from nova_qcache_tempest_plugin.compute_host import ProgramMissing
from nova_qcache_tempest_plugin.domain import Boot
from nova_qcache_tempest_plugin.domain import Kind

IMAGE = "571967d4-6860-4b23-8649-8ffe1f34d7a6"
OTHER = "c566ebb2-6860-4b23-8649-8ffe1f34d7a6"


@pytest.fixture
def program(tmp_path: pathlib.Path):
    """Make a program of the host that keeps its arguments, and return how it is called."""

    def make(name: str, body: str) -> str:
        path = tmp_path / name
        path.write_text(f'#!/bin/sh\necho "$*" >>{tmp_path}/calls\n{textwrap.dedent(body)}\n')
        path.chmod(0o755)
        return str(path)

    return make


@pytest.fixture
def calls(tmp_path: pathlib.Path):
    return lambda: (tmp_path / "calls").read_text().splitlines()


def prints(value) -> str:
    return f"echo {shlex.quote(json.dumps(value))}"


def host(**options) -> ComputeHost:
    return ComputeHost("compute-1", **{"host_command": "env", **options})


def test_the_command_line_is_host_program_options_arguments(program, calls):
    before = program("ssh", prints([]))
    made = host(
        host_command=f"{before} -o BatchMode=yes root@{{host}}",
        nova_qcache_command="nova-qcache --config-file /etc/nova/nova-cpu.conf",
    )
    assert made.states(IMAGE) == []
    assert calls() == [
        "-o BatchMode=yes root@compute-1 nova-qcache --config-file /etc/nova/nova-cpu.conf "
        "list -f json"
    ]


def test_states_are_those_of_the_image(program):
    rows = [
        {"image_id": IMAGE, "state": "STALE"},
        {"image_id": OTHER, "state": "RECORDING"},
        {"image_id": IMAGE, "state": "READY"},
    ]
    made = host(nova_qcache_command=program("nova-qcache", prints(rows)))
    assert made.states(IMAGE) == ["STALE", "READY"]


def test_show_and_figures(program):
    shown = {"image_id": IMAGE, "state": "READY"}
    assert host(nova_qcache_command=program("a", prints(shown))).show(IMAGE) == shown
    made = host(nova_qcache_command=program("b", prints([{"image_id": OTHER}, shown])))
    assert made.figures(IMAGE) == shown
    assert made.figures(IMAGE[::-1]) == {}


def test_only_an_image_with_caches_is_forgotten(program, calls):
    rows = prints([{"image_id": IMAGE, "state": "READY"}])
    made = host(nova_qcache_command=program("nova-qcache", rows))
    made.forget(OTHER)
    made.forget(IMAGE)
    assert calls() == ["list -f json", "list -f json", f"remove --force {IMAGE}"]


def test_a_boot_is_read_from_the_domain(program, calls):
    xml = "<domain><devices><disk device='disk'/></devices></domain>"
    virsh = program("virsh", f'echo "{xml}"')
    made = host(virsh_command=f"{virsh} --connect qemu:///system")
    assert made.boot("instance-0000001a", IMAGE) == Boot(Kind.PLAIN)
    assert calls() == ["--connect qemu:///system dumpxml instance-0000001a"]


def test_a_domain_that_is_none_is_an_error(program):
    made = host(virsh_command=program("virsh", "echo nothing"))
    with pytest.raises(HostError, match="instance-1 on compute-1: 'nothing"):
        made.boot("instance-1", IMAGE)


@pytest.mark.parametrize("name", ["", "-1", "a b", "a;reboot", "$(reboot)", "a\nb"])
def test_a_name_that_a_shell_could_take_for_more_is_refused(program, tmp_path, name):
    made = host(virsh_command=program("virsh", ""), nova_qcache_command=program("q", prints([])))
    for look in (lambda: made.boot(name, IMAGE), lambda: made.show(name)):
        with pytest.raises(HostError, match="is no name"):
            look()
    assert not (tmp_path / "calls").exists()


def test_a_failure_says_what_was_run_what_it_said_and_which_options_to_see(program):
    path = program("nova-qcache", "echo the folder is away >&2; exit 1")
    with pytest.raises(HostError) as caught:
        host(nova_qcache_command=path).states(IMAGE)
    assert not isinstance(caught.value, ProgramMissing)
    assert str(caught.value) == (
        f"env {path} list -f json ended with 1 for compute-1: the folder is away; "
        "see [qcache] host_command and nova_qcache_command"
    )


def test_a_program_that_is_missing_is_told_apart(program):
    there = program("there", "")
    with pytest.raises(ProgramMissing, match=r"see .* and nova_qcache_command"):
        host(nova_qcache_command="/nonexistent/qcache").require_programs()
    with pytest.raises(ProgramMissing, match=r"see .* and virsh_command"):
        host(nova_qcache_command=there, virsh_command="/nonexistent/virsh").require_programs()
    host(nova_qcache_command=there, virsh_command=there).require_programs()


def test_sudo_says_it_in_words(program):
    sudo = program("sudo", "echo sudo: nova-qcache: command not found >&2; exit 1")
    with pytest.raises(ProgramMissing):
        host(host_command=sudo).require_programs()


def test_a_host_command_that_is_missing_is_no_missing_program():
    with pytest.raises(
        HostError, match=r"/nonexistent/ssh.*see \[qcache\] host_command"
    ) as caught:
        host(host_command="/nonexistent/ssh {host}").require_programs()
    assert not isinstance(caught.value, ProgramMissing)


def test_a_command_that_does_not_end_is_ended(program):
    path = program("nova-qcache", "exec sleep 60")
    with pytest.raises(HostError, match=r"took longer than 1 s; see .* host_timeout"):
        host(nova_qcache_command=path, timeout=1).states(IMAGE)


def test_what_is_no_json_is_an_error(program):
    with pytest.raises(HostError, match="list on compute-1 printed no JSON but 'hello"):
        host(nova_qcache_command=program("nova-qcache", "echo hello")).states(IMAGE)
