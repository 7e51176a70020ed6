# SPDX-License-Identifier: Apache-2.0
"""What Nova and operators do with a running domain through libvirt, while its disk records and
while it plays: it reads what it would read without a cache, and the cache is none the worse."""

from collections.abc import Callable, Iterator
import contextlib
import os
import pathlib
import shutil
import subprocess
from xml.etree import ElementTree

import pytest

from tests import chains
from tests.functional import account
from tests.functional import guests
from tests.functional import libvirt_host
from tests.functional import real_guests
from tests.functional import sealed
from tests.functional import users
from tests.functional import waiting
from tests.functional.libvirt_host import Domain
from tests.functional.libvirt_host import Libvirt
from tests.functional.site import MIB
from tests.functional.site import Site

_SIZE = 16 * MIB


@pytest.fixture(scope='module')
def built() -> pathlib.Path:
    return real_guests.build()


@pytest.fixture(scope='module')
def libvirt() -> Iterator[Libvirt]:
    with account.opened() as book:
        yield Libvirt(book)


class Image:
    """An image of which the next boot records, or plays."""

    def __init__(self, site: Site, base: pathlib.Path, kind: str) -> None:
        self.site = site
        self.base = base
        self.kind = kind
        self.content = site.folder / 'content.raw'
        """What a guest must read now."""
        shutil.copyfile(base, self.content)
        self.content.chmod(0o644)
        if kind == 'PLAY':
            plan = site.record(base)
            with guests.NbdGuest(site, plan) as guest:
                guest.require(base, 0, _SIZE // 2)
                site.ask('seal', site.image_id, '--wait')
            site.see_off()
        plan = site.boot_plan(base)
        assert plan['kind'] == kind, plan
        self.way = plan['cache'] or plan['socket']
        """The sealed cache, or the socket of the recorder."""

    def disk(self, target: str = 'vda', driver: str = '') -> str:
        """Return the XML of a disk with an overlay of its own."""
        overlay = real_guests.make_overlay(self.site, target, str(self.base))
        if self.kind == 'PLAY':
            return libvirt_host.disk(overlay, chains.play(self.way, self.base), target, driver)
        return libvirt_host.disk(overlay, chains.record(self.way), target, driver)

    def write(
        self, domain: Domain, at: int, length: int, letter: str, target: str = 'vda'
    ) -> None:
        """Let a disk be written to, and note what it has now."""
        domain.io(f'write -P {ord(letter)} {at} {length}', target)
        self.note(at, length, letter)

    def note(self, at: int, length: int, letter: str) -> None:
        with open(self.content, 'r+b') as file:
            file.seek(at)
            file.write(letter.encode() * length)

    def require_in(self, domain: Domain) -> None:
        """The running qemu has the cache open, or is at the recorder."""
        assert self.way in domain.opened()

    def require_sound(self) -> None:
        """It has what was read, is as good as any, and the next boot plays it."""
        if self.kind == 'RECORD':
            self.site.ask('seal', self.site.image_id, '--wait')
        shown = self.site.show()
        assert shown['cache_bytes'] >= _SIZE // 2, shown
        node = guests.file_node(self.base)
        sealed.require_sound(self.site, shown, self.base, node)
        assert self.site.qcache('verify', self.site.image_id).returncode == 0
        assert self.site.plan(self.base)['kind'] == 'PLAY'


@pytest.fixture(params=['RECORD', 'PLAY'])
def image(site: Site, base: pathlib.Path, request: pytest.FixtureRequest) -> Image:
    return Image(site, base, request.param)


def _target(image: Image, name: str) -> pathlib.Path:
    """Make a delta that a domain may write to."""
    path = image.site.folder / name
    backing = ('-b', str(image.base), '-F', 'raw')
    subprocess.run(['qemu-img', 'create', '-q', '-f', 'qcow2', *backing, str(path)], check=True)
    os.chown(path, users.GUEST.uid, users.GUEST.gid)
    return path


def _require_content(image: Image, path: pathlib.Path) -> None:
    """A qcow2 file reads as the disk does."""
    chain = {'driver': 'qcow2', 'file': guests.file_node(path)}
    guests.require_equal(image.site, chain, image.content)


# -- after these the disk stands on what it stood on


def _live_snapshot(image: Image, domain: Domain) -> None:
    """As Nova's _live_snapshot() does it."""
    delta = _target(image, 'delta')
    job = ('--shallow', '--reuse-external', '--transient-job', '--wait')
    domain.virsh('blockcopy', 'vda', '--dest', str(delta), '--format', 'qcow2', *job, '--finish')
    _require_content(image, delta)


def _disk_only_snapshot_and_active_commit(image: Image, domain: Domain) -> None:
    above = image.site.folder / 'above.qcow2'
    spec = ('--diskspec', f'vda,file={above}')
    domain.virsh('snapshot-create-as', 'after', '--disk-only', '--no-metadata', *spec)
    assert str(above) in domain.opened()
    image.require_in(domain)
    image.write(domain, 5 * MIB, 65536, 'b')
    domain.require_equal(image.content)
    domain.virsh('blockcommit', 'vda', '--active', '--shallow', '--wait', '--pivot')
    assert str(above) not in domain.opened()


def _backup_begin_push(image: Image, domain: Domain) -> None:
    copy = _target(image, 'backup.qcow2')
    order = image.site.folder / 'backup.xml'
    order.write_text(f"""
        <domainbackup mode='push'><disks>
          <disk name='vda' type='file'><target file='{copy}'/><driver type='qcow2'/></disk>
        </disks></domainbackup>""")
    domain.virsh('backup-begin', str(order), '--reuse-external')
    waiting.until(
        lambda: 'Completed' in domain.virsh('domjobinfo', '--completed', '--keep-completed'),
        'the end of the backup',
    )
    waiting.until(lambda: str(copy) not in domain.opened(), 'the end of the last write')
    _require_content(image, copy)


def _blockresize(image: Image, domain: Domain) -> None:
    domain.virsh('blockresize', 'vda', f'{_SIZE // MIB + 8}M')
    with open(image.content, 'r+b') as file:
        file.truncate(_SIZE + 8 * MIB)


def _hot_plug_of_a_second_disk(image: Image, domain: Domain) -> None:
    """Of the same image, with an overlay of its own."""
    path = image.site.folder / 'second.xml'
    path.write_text(image.disk('vdb'))
    domain.virsh('attach-device', str(path), '--live')
    domain.require_equal(image.base, 'vdb')


def test_operations(libvirt: Libvirt, image: Image) -> None:
    with _written_to(libvirt, image) as domain:
        for operate in (
            *(_live_snapshot, _disk_only_snapshot_and_active_commit, _backup_begin_push),
            *(_hot_plug_of_a_second_disk, _blockresize),
        ):
            operate(image, domain)
            domain.require_equal(image.content)
            image.require_in(domain)
        image.require_sound()
        domain.require_equal(image.content)


@contextlib.contextmanager
def _written_to(libvirt: Libvirt, image: Image) -> Iterator[Domain]:
    """A domain whose disk has something of its own."""
    with libvirt_host.running(image.site, libvirt, image.disk()) as domain:
        image.require_in(domain)
        image.write(domain, 3 * MIB, 100 * 1024, 'a')
        yield domain


# -- after these it does not


def _blockpull(image: Image, domain: Domain) -> None:
    domain.virsh('blockpull', 'vda', '--wait')


def _blockcopy_with_pivot(image: Image, domain: Domain) -> None:
    copy = image.site.folder / 'copy.qcow2'
    job = ('--transient-job', '--wait', '--pivot')
    domain.virsh('blockcopy', 'vda', '--dest', str(copy), '--format', 'qcow2', *job)
    assert str(copy) in domain.opened()


@pytest.mark.parametrize('operate', [_blockpull, _blockcopy_with_pivot])
def test_operations_that_leave_the_cache_behind(
    libvirt: Libvirt, image: Image, operate: Callable[[Image, Domain], None]
) -> None:
    with _written_to(libvirt, image) as domain:
        operate(image, domain)
        domain.require_equal(image.content)
        assert image.way not in domain.opened()
        image.require_sound()
        domain.require_equal(image.content)


def test_storage_migration(libvirt: Libvirt, image: Image) -> None:
    """With the XML that Nova's driver gives it: the destination has no cache and no recorder."""
    site = image.site
    there = Libvirt(site.account)
    with _written_to(libvirt, image) as domain:
        domain.require_equal(image.content)
        overlay = real_guests.make_overlay(site, 'there', str(image.base))
        arriving = site.folder / 'arriving.xml'
        arriving.write_text(_with_plain_disk(domain.virsh('dumpxml', '--migratable'), overlay))
        place = site.make_folder('migration', users.GUEST)
        sockets = [f'--migrateuri=unix://{place}/memory', f'--disks-uri=unix://{place}/disks']
        domain.virsh(
            *('migrate', '--desturi', there.uri, '--live', '--copy-storage-inc'),
            *('--xml', str(arriving), *sockets),
        )
        domain.libvirt = there
        assert image.way not in domain.opened()
        domain.require_equal(image.content)
        image.require_sound()


def _with_plain_disk(xml: str, overlay: pathlib.Path) -> str:
    root = ElementTree.fromstring(xml)
    (disk,) = root.iterfind('.//disk')
    for catalog in disk.findall('backingStore'):
        disk.remove(catalog)
    (source,) = disk.iterfind('source')
    source.clear()
    source.set('file', str(overlay))
    return ElementTree.tostring(root, encoding='unicode')


_DRIVERS = [
    "cache='none' io='native'",
    "cache='none' io='io_uring'",
    "cache='writeback' io='threads'",
    "cache='directsync' io='native'",
    "cache='unsafe'",
    "cache='none' discard='unmap' detect_zeroes='unmap'",
]


def test_how_disks_are_driven(libvirt: Libvirt, image: Image) -> None:
    """Many disks of one image in one domain; the last one's guest discards."""
    targets = {f'vd{"abcdefgh"[number]}': each for number, each in enumerate(_DRIVERS)}
    disks = ''.join(image.disk(target, driver) for target, driver in targets.items())
    with libvirt_host.running(image.site, libvirt, disks) as domain:
        image.require_in(domain)
        for target in targets:
            image.write(domain, 3 * MIB, 100 * 1024, 'a', target)
            image.write(domain, 5 * MIB, 256 * 1024, '\0', target)
            domain.require_equal(image.content, target)
        domain.io(f'discard {7 * MIB} {MIB}', target)
        image.note(7 * MIB, MIB, '\0')
        domain.require_equal(image.content, target)
        image.require_sound()
        domain.require_equal(image.content, target)


def test_iothreads_and_queues(libvirt: Libvirt, image: Image, built: pathlib.Path) -> None:
    """They are used once a guest has a driver for its disk: the small one boots."""
    site = image.site
    kernel = real_guests.Kernel(site, built)
    console = site.make_folder('console', users.GUEST) / 'text'
    blocks = [(offset, 1024) for offset in range(0, _SIZE // 1024, 1024)]
    words = f'console=ttyS0 quiet qcache.blocks=0+1024*{len(blocks)}'
    disk = image.disk(driver="cache='none' io='native' iothread='1' queues='2'")
    with libvirt_host.running(
        site,
        libvirt,
        disk,
        more=f"<serial type='file'><source path='{console}'/></serial>",
        os_more=f'<kernel>{kernel.kernel}</kernel><initrd>{kernel.initrd}</initrd>'
        f'<cmdline>{words}</cmdline>',
    ) as domain:
        waiting.until(lambda: 'QCACHE booted' in console.read_text(), 'the boot of a guest')
        found = real_guests.blocks(console.read_text())
        assert found == real_guests.checksums(image.base, blocks)
        image.require_in(domain)
        image.require_sound()


def test_owners_of_files(libvirt: Libvirt, image: Image) -> None:
    """libvirt gives a disk to its guest's user, remembers in an attribute whose it was, and gives
    it back. What guests share stays as it is."""
    disk = image.disk()
    overlay = image.site.folder / 'vda.qcow2'
    os.chown(overlay, 12345, 12345)
    shared = [image.base, pathlib.Path(image.way)]
    before = [_rights(path) for path in shared]
    with libvirt_host.running(image.site, libvirt, disk) as domain:
        domain.require_equal(image.content)
        assert overlay.stat().st_uid == users.GUEST.uid
        assert any('libvirt' in name for name in os.listxattr(overlay))
        assert [_rights(path) for path in shared] == before
    assert overlay.stat().st_uid == 12345
    assert [_rights(path) for path in shared] == before
    image.require_sound()


def _rights(path: pathlib.Path) -> tuple[object, ...]:
    facts = path.stat()
    return facts.st_uid, facts.st_gid, facts.st_mode, os.listxattr(path)
