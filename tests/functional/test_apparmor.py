# SPDX-License-Identifier: Apache-2.0
"""What libvirt's own helper makes of our chains, and AppArmor's own compiler of our rule.

Neither needs a kernel with AppArmor: the helper prints the rules that it would load, and the
compiler loads nothing.
"""

from collections.abc import Iterator
import pathlib
import re
import shutil
import subprocess
import uuid

from oslo_config import cfg
import pytest

from nova_qcache import conf as qcache_conf
from nova_qcache.model.key import CacheKey
from nova_qcache.model.key import Generation
from nova_qcache.system import confinement
from nova_qcache.system.paths import Paths
from tests import chains
from tests.functional import account
from tests.functional import waiting

HELPER = '/usr/lib/libvirt/virt-aa-helper'
APPARMOR = pathlib.Path('/etc/apparmor.d')
LOCAL = pathlib.Path('local/abstractions/libvirt-qemu')
SNIPPET = pathlib.Path(__file__).parents[2] / 'etc/apparmor.d' / LOCAL
PROFILE = """
#include <tunables/global>
profile nova-qcache-test flags=(attach_disconnected) {
  #include <abstractions/libvirt-qemu>
}
"""

UUID = str(uuid.uuid4())
KEY = CacheKey(str(uuid.uuid4()), Generation.first_of_new_epoch())


def play_xml(overlay: pathlib.Path, cache: pathlib.Path, base: pathlib.Path) -> str:
    return domain_xml(overlay, chains.play(cache, base))


def record_xml(overlay: pathlib.Path, socket: pathlib.Path) -> str:
    return domain_xml(overlay, chains.record(socket))


def domain_xml(overlay: pathlib.Path, chain: str) -> str:
    return f"""
        <domain type='qemu'>
          <name>nova-qcache-test</name>
          <uuid>{UUID}</uuid>
          <memory unit='MiB'>64</memory>
          <vcpu>1</vcpu>
          <os><type arch='x86_64' machine='pc'>hvm</type></os>
          <devices>
            <emulator>/usr/bin/qemu-system-x86_64</emulator>
            <disk type='file' device='disk'>
              <driver name='qemu' type='qcow2' cache='none'/>
              <source file='{overlay}'/>
              {chain}
              <target dev='vda' bus='virtio'/>
            </disk>
          </devices>
        </domain>"""


def rules(xml: str) -> list[str]:
    """Return what the helper would let a domain do, one rule each."""
    done = subprocess.run(
        [HELPER, '--dryrun', '--create', '--uuid', f'libvirt-{UUID}'],
        input=xml,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=waiting.PATIENCE,
    )
    assert done.returncode == 0, done.stdout
    # libvirt 9 and 11
    include = rf'#include (if exists )?<libvirt/libvirt-{UUID}\.files>'
    assert re.search(include, done.stdout), done.stdout
    found = re.findall(r'^  ((?:deny )?"/.*,)$', done.stdout, re.MULTILINE)
    assert found, done.stdout
    return found


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    yield
    assert not list((APPARMOR / 'libvirt').glob(f'*{UUID}*'))


@pytest.fixture
def make(book: account.Account):
    def make_file(name: str) -> pathlib.Path:
        path = book.folder / name
        path.touch()
        return path

    return make_file


@pytest.fixture
def socket() -> pathlib.Path:
    """Where a recorder listens if nothing is configured."""
    conf = cfg.ConfigOpts()
    qcache_conf.register_opts(conf)
    conf([], default_config_files=[], default_config_dirs=[])
    return Paths.from_conf(conf).nbd_socket(KEY)


@pytest.fixture
def policy(book: account.Account) -> pathlib.Path:
    """A root folder with a copy of the policy of this host, as its packages have it, on a kernel
    with AppArmor."""
    shutil.copytree(APPARMOR, book.folder / 'root/etc/apparmor.d', symlinks=True)
    local = book.folder / 'root/etc/apparmor.d' / LOCAL
    local.parent.mkdir(exist_ok=True)  # Debian 13 has none
    local.write_text('')
    enabled = book.folder / 'root/sys/module/apparmor/parameters/enabled'
    enabled.parent.mkdir(parents=True)
    enabled.write_text('Y\n')
    return book.folder / 'root'


def compile_profile(policy: pathlib.Path, *options: str) -> str:
    folder = policy / 'etc/apparmor.d'
    done = subprocess.run(
        [
            'apparmor_parser',
            '--skip-kernel-load',
            '--skip-cache',
            f'--base={folder}',
            f'--Include={folder}',
            *options,
        ],
        input=PROFILE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors='replace',
        timeout=waiting.PATIENCE,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def compiled_patterns(policy: pathlib.Path) -> list[str]:
    """Return the regular expressions that the compiler makes of the paths of all rules."""
    printed = compile_profile(policy, '-D', 'rule-exprs')
    found = re.findall(r'^\w+: .*?   ->   (.*)$', printed, re.MULTILINE)
    assert len(found) > 100, printed
    return found


def test_a_guest_that_plays_may_read_its_chain(make) -> None:
    overlay, cache, base = make('disk'), make('cache.qcow2'), make('base')
    found = [rule for rule in rules(play_xml(overlay, cache, base)) if str(overlay.parent) in rule]
    assert found == [
        f'"{overlay}" rwk,',
        f'"{cache}" rk,',
        f'deny "{cache}" w,',
        f'"{base}" rk,',
        f'deny "{base}" w,',
    ]


def test_a_guest_that_records_may_not_connect(make, socket) -> None:
    """When a libvirt makes a rule for the socket, ``system.confinement`` asks for too much."""
    overlay = make('disk')
    found = rules(record_xml(overlay, socket))
    assert f'"{overlay}" rwk,' in found
    assert not [rule for rule in found if 'qcache' in rule.replace('nova-qcache-test', '')]


def test_our_rule_is_what_is_missing(policy, socket) -> None:
    def covering() -> list[str]:
        return [each for each in compiled_patterns(policy) if re.fullmatch(each, str(socket))]

    assert covering() == []
    problem = confinement.problem(socket.parent, policy)
    assert problem is not None
    assert f'`{socket.parent}/*.nbd rw,`' in problem

    shutil.copyfile(SNIPPET, policy / 'etc/apparmor.d' / LOCAL)
    (pattern,) = covering()
    assert not re.fullmatch(pattern, f'{socket.parent}/further/{socket.name}')
    assert not re.fullmatch(pattern, f'{socket.parent.parent}/control/{socket.name}')
    assert confinement.problem(socket.parent, policy) is None


def test_the_rule_that_is_proposed_compiles(policy) -> None:
    folder = pathlib.Path('/srv/a place, {or} [two]*/guests')
    problem = confinement.problem(folder, policy)
    assert problem is not None
    rule = problem.split('`')[1]
    (policy / 'etc/apparmor.d' / LOCAL).write_text(rule + '\n')
    socket = f'{folder}/x.nbd'
    assert any(re.fullmatch(each, socket) for each in compiled_patterns(policy))
    assert confinement.problem(folder, policy) is None
