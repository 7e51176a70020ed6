# SPDX-License-Identifier: Apache-2.0
"""The commands of the README and the manual do what the pages say, typed as they stand there.

Whoever follows them is new here, and has a machine without nova-qcache.
"""

from collections.abc import Iterator
import fcntl
import os
import pathlib
import re
import shutil
import stat
import subprocess
import uuid

import pytest

from tests import documented_commands
from tests import documents
from tests.functional import account
from tests.functional import terminal
from tests.functional import users
from tests.functional import waiting
from tests.functional.fresh_host import FreshHost
from tests.functional.newcomer import Newcomer
from tests.functional.newcomer import PAGE
from tests.functional.newcomer import PATIENT
from tests.functional.newcomer import PIP_SECONDS
from tests.functional.newcomer import recorders
from tests.functional.site import dismiss
from tests.functional.site import MIB

TESTS = 'tests/functional/test_documented_commands.py'
PIP = 'doc/source/install/pip.rst'


OF_THE_TEST = f"""
[qcache]
libvirt_uri =
min_free = 0
start_keeper = false
{PATIENT}
"""
"""Options of the host beside those of the README: there is no libvirt and no hurry."""

SAID = {
    'list': r'\| IMAGE \| READY ',
    'show': r'\| state +\| READY ',
    'plan': r'\| kind +\| PLAY ',
    'stats': r'\| IMAGE \|.* READY ',
    'stats --host': r'\| recordings +\| 1 ',
    'remove': r'\| IMAGE \| \w+\.1 \|',
}
"""What subcommands print, of an image with a READY cache."""

pytestmark = pytest.mark.timeout(1800)


@pytest.fixture
def tree(book: account.Account) -> pathlib.Path:
    """A source tree without ``.git``, as a downloaded archive has it; pip writes into it."""
    path = book.folder / 'tree'
    rest = ('.*', '__pycache__', '*.egg-info', 'build', 'dist')
    shutil.copytree(documents.ROOT, path, ignore=shutil.ignore_patterns(*rest))
    _give(path)
    return path


@pytest.fixture(scope='session')
def disk() -> pathlib.Path:
    """The disk of a guest that boots in seconds and says so. It is kept for the next run."""
    work = os.environ.get('QCACHE_WORK') or pathlib.Path.home() / '.cache' / 'nova-qcache'
    folder = pathlib.Path(work) / 'small-disk'
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / 'lock', 'w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another worker may build it, too
        build = documents.ROOT / 'tools' / 'guest' / 'build_small_disk.sh'
        subprocess.run([str(build), str(folder)], check=True, timeout=600)
    return folder / 'calm.raw'


def _give(folder: pathlib.Path) -> None:
    for path in (folder, *folder.rglob('*')):
        os.chown(path, users.PRODUCT.uid, users.PRODUCT.gid, follow_symlinks=False)


# -- what comes from the distribution


def test_packages_of_the_distribution() -> None:
    """The tests have installed them from bindep.txt; they are not asked for once more."""
    listed = re.findall(
        r'^(\S+)(?= \[platform:dpkg)', (documents.ROOT / 'bindep.txt').read_text(), re.MULTILINE
    )
    for command in documented_commands.run_by(f'{TESTS}::test_packages_of_the_distribution'):
        packages = command.text.removeprefix('apt-get install ').split()
        assert set(packages) <= set(listed), command
        query = ['dpkg-query', '--show', '--showformat=${db:Status-Status}\n', *packages]
        done = subprocess.run(query, capture_output=True, text=True, timeout=waiting.PATIENCE)
        assert done.stdout.split() == ['installed'] * len(packages), done


# -- by hand, as anybody


@pytest.fixture
def newcomer(book: account.Account, tree: pathlib.Path, disk: pathlib.Path) -> Iterator[Newcomer]:
    home = book.folder / 'u'  # short: sockets lie below it
    home.mkdir()
    base = home / 'base.raw'
    copy = ['cp', '--sparse=always', str(disk), str(base)]
    subprocess.run(copy, check=True, timeout=waiting.PATIENCE)
    base.chmod(0o444)
    _give(home)
    surroundings = {account.VARIABLE: str(book.folder), 'PBR_VERSION': documents.pbr_version(PAGE)}
    shell = terminal.Terminal(users.PRODUCT, home, **surroundings)
    shell.folder = tree
    made = Newcomer(home / 'qcache', base, shell)
    yield made
    made.shut_down()


def test_the_quick_start(newcomer: Newcomer) -> None:
    commands = documented_commands.run_by(f'{TESTS}::test_the_quick_start')
    assert {command.page for command in commands} == {PAGE}
    for command in commands:
        assert not command.is_root
        newcomer.follow(command.text)
    assert not newcomer.folder.exists()


# -- a compute host, as root


class _Operator:
    """Types what is assigned to one test; at its end, nothing of that is left."""

    def __init__(self, host: FreshHost, commands: list[documents.Command]) -> None:
        self.host = host
        self.left = {command.text for command in commands}
        self._known = frozenset(self.left)

    def type(self, text: str, answer: str = '', seconds: float = waiting.PATIENCE) -> str:
        """Type a command that has to succeed, and return what it prints."""
        assert text in self._known, f'{text!r} is on no page any more'
        self.left.discard(text)
        return self.host.root.must(text, answer, seconds)

    def type_with(self, start: str) -> str:
        """Type the one command that begins so."""
        (text,) = (text for text in self._known if text.startswith(start))
        return self.type(text)


@pytest.fixture
def host(book: account.Account) -> FreshHost:
    return FreshHost(book)


def test_a_host_from_installation_to_its_end(host: FreshHost, tree: pathlib.Path) -> None:
    operator = _Operator(
        host,
        documented_commands.run_by(f'{TESTS}::test_a_host_from_installation_to_its_end'),
    )
    _install(operator, tree)
    _prepare(operator, tree)
    _use(operator)
    _upgrade(operator, tree)
    _uninstall(operator, tree)
    assert not operator.left


def _install(operator: _Operator, tree: pathlib.Path) -> None:
    host = operator.host
    host.root.environment['PBR_VERSION'] = documents.pbr_version(PIP)
    host.root.folder = tree
    operator.type('pip install .', seconds=PIP_SECONDS)
    host.root.folder = host.folder / 'root'
    (site,) = host.venv.glob('lib/python3*/site-packages')
    assert (site / 'nova/virt/qcache/__init__.py').is_file()

    checkout = host.folder / 'checkout'
    (checkout / 'nova' / 'virt').mkdir(parents=True)
    host.root.names = {'PREFIX': str(host.venv), 'SITE': str(site), 'NOVA': str(checkout)}
    operator.type_with('ln -s SITE')
    link = checkout / 'nova/virt/qcache/__init__.py'
    assert link.samefile(site / 'nova/virt/qcache/__init__.py')


def _prepare(operator: _Operator, tree: pathlib.Path) -> None:
    host = operator.host
    operator.type_with('usermod ')
    assert 'nova' in host.root.must('getent group libvirt-qemu').rpartition(':')[2]

    operator.type_with('install -d -o ')
    _require_folder_of_nova(host.outside('/var/lib/nova/qcache'))
    host.root.folder = tree
    operator.type_with('install -m ')
    host.root.folder = host.folder / 'root'
    installed = host.venv / 'share/nova-qcache/tmpfiles.d/nova-qcache.conf'
    there = host.outside('/etc/tmpfiles.d/nova-qcache.conf')
    assert there.read_bytes() == installed.read_bytes()
    operator.type_with('systemd-tmpfiles ')
    _require_folder_of_nova(host.outside('/run/nova-qcache'))
    host.outside('/run/nova-qcache').rmdir()  # as at a boot of the host, where systemd runs it
    operator.type_with('systemd-tmpfiles ')
    _require_folder_of_nova(host.outside('/run/nova-qcache'))

    operator.type_with('install -d /etc/apparmor.d')
    operator.type_with('cat PREFIX')
    rules = host.outside('/etc/apparmor.d/local/abstractions/libvirt-qemu').read_text()
    assert '/run/nova-qcache/guests/*.nbd rw,' in rules

    operator.type_with('oslo-config-generator ')
    assert '[qcache]' in (host.folder / 'root/qcache.conf.sample').read_text()

    host.write('/etc/nova/nova.conf', documents.ini('README.rst'))
    host.write('/etc/nova/nova.conf.d/test.conf', OF_THE_TEST)
    said = operator.type('nova-qcache check')
    assert '| ok ' in said
    assert '| error ' not in said


def _require_folder_of_nova(path: pathlib.Path) -> None:
    facts = path.stat()
    assert (stat.S_IMODE(facts.st_mode), facts.st_uid, facts.st_gid) == (
        0o711,
        users.PRODUCT.uid,
        users.PRODUCT.gid,
    )


def _use(operator: _Operator) -> None:
    host = operator.host
    image, base = str(uuid.uuid4()), '/var/lib/nova/instances/_base/0123456789abcdef'
    host.root.names |= {'IMAGE': image, 'BASE': base}
    host.outside(base).write_bytes(os.urandom(16 * MIB))
    plan = host.root.must('nova-qcache record IMAGE --base=BASE')
    uri = f'nbd+unix:///top?socket={terminal.field(plan, "socket")}'
    assert 'read 4194304/4194304' in host.root.must(f"qemu-io -r -f raw -c 'read 0 4M' '{uri}'")
    host.root.must('nova-qcache seal --wait IMAGE')

    def has_been_left() -> bool:
        dismiss(host.outside('/run/nova-qcache'))
        return not recorders(host.folder)

    waiting.until(has_been_left, 'the end of the recorder')

    texts = [text for text in operator.left if re.match('nova-qcache (?!check)', text)]
    assert len({text.split()[1] for text in texts}) >= 4, texts
    for text in sorted(texts, key=lambda text: (text.split()[1] == 'remove', text)):
        said = operator.type(text)
        verb = 'stats --host' if text == 'nova-qcache stats --host' else text.split()[1]
        assert re.search(SAID[verb].replace('IMAGE', image), said), (text, said)


def _upgrade(operator: _Operator, tree: pathlib.Path) -> None:
    host = operator.host
    assert host.root.must('nova-qcache --version') == f'nova-qcache {documents.pbr_version(PIP)}\n'
    host.root.environment['PBR_VERSION'] = '0.0.2'
    host.root.folder = tree
    operator.type('pip install --upgrade .', seconds=PIP_SECONDS)
    operator.type('pip wheel --no-deps --wheel-dir dist .', seconds=PIP_SECONDS)
    host.root.folder = host.folder / 'root'
    assert host.root.must('nova-qcache --version') == 'nova-qcache 0.0.2\n'


def _uninstall(operator: _Operator, tree: pathlib.Path) -> None:
    host = operator.host
    counters = host.outside('/var/lib/nova/instances/_base/.nova-qcache')
    assert any(counters.iterdir())
    operator.type('pip uninstall nova-qcache', answer='y\n')
    (site,) = host.venv.glob('lib/python3*/site-packages')
    # The folders nova and nova/virt are Nova's, where it is there.
    files = [path for path in site.rglob('*') if not path.is_dir()]
    assert not [path for path in files if 'nova' in str(path.relative_to(site))]
    operator.type_with('rm -r /var/lib/nova/qcache')
    operator.type_with('rm -r /var/lib/nova/instances')
    for path in (counters, host.outside('/run/nova-qcache'), host.outside('/var/lib/nova/qcache')):
        assert not path.exists()
    # And once more from the start, from the wheel as hosts without a tree have it.
    (wheel,) = (tree / 'dist').glob('nova_qcache-0.0.2-py3-none-any.whl')
    host.root.must(f'pip install --no-index {wheel}')
    assert host.root.must('nova-qcache --version') == 'nova-qcache 0.0.2\n'
