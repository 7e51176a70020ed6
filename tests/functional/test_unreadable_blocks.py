# SPDX-License-Identifier: Apache-2.0
"""A base some of whose blocks cannot be read: guests get I/O errors there, and nothing else."""

from collections.abc import Callable, Collection, Iterator
import contextlib
import json
import re
import subprocess
from typing import Any, Self

import pytest

from nova_qcache import exception
from nova_qcache.keeper.guests import Guests
from nova_qcache.model.states import Phase
from nova_qcache.system.libvirt_domains import Paused
from nova_qcache.system.paths import Paths
from tests.functional import bases
from tests.functional import guests
from tests.functional import users
from tests.functional import waiting
from tests.functional.site import MIB
from tests.functional.site import NEVER
from tests.functional.site import Site

_BLOCK = 4096
_SIZE = 2 * MIB
_BLOCKS = range(_SIZE // _BLOCK)
_BAD = frozenset({100, 101, 102, 260, 511})
"""Some beside each other, one alone in its cluster, and the last one."""


def _byte(block: int) -> int:
    return block % 251 + 1


@pytest.fixture
def server(site: Site) -> bases.NbdServer:
    """Serves a base in which each block consists of one byte of its own."""
    path = site.bases / 'base.raw'
    path.write_bytes(b''.join(bytes([_byte(at)]) * _BLOCK for at in _BLOCKS))
    path.chmod(0o644)
    return bases.NbdServer(site, path, bad=[(at * _BLOCK, _BLOCK) for at in _BAD])


def _read(site: Site, chain: dict[str, Any], reads: Collection[str]) -> str:
    """Return what qemu-io says of these reads of a chain, one after the other, as a guest's qemu
    does them."""
    command = ['qemu-io', '-r', f'json:{json.dumps(chain)}']
    for read in reads:
        command += ['-c', f'read {read}']
    done = site.run(command, users.GUEST)
    said = done.stdout + done.stderr
    assert 'verification failed' not in said, done
    answers = re.findall(r'^read (?:failed: Input/output error$|\d+/)', said, re.M)
    assert len(answers) == len(reads), done
    return said


def _unreadable(site: Site, chain: dict[str, Any], blocks: range = _BLOCKS) -> set[int]:
    """Read a chain block by block, and return the blocks that a guest is given an I/O error for;
    all others have the bytes of the base."""
    said = _read(site, chain, [f'-P {_byte(at)} {at * _BLOCK} {_BLOCK}' for at in blocks])
    return set(blocks) - {int(at) // _BLOCK for at in re.findall(r'bytes at offset (\d+)', said)}


def _through(plan: dict[str, Any]) -> dict[str, Any]:
    """Return the chain of a guest that waits for its recorder, as libvirt 9.2 makes it."""
    node = {
        'driver': 'nbd',
        'server': {'type': 'unix', 'path': plan['socket']},
        'export': plan['export'],
        'reconnect-delay': NEVER,
    }
    return {'driver': 'raw', 'read-only': True, 'file': node}


def _base_node(server: bases.NbdServer) -> dict[str, Any]:
    return {'driver': 'nbd', 'server': {'type': 'unix', 'path': server.uri.partition('=')[2]}}


def _require_errors(site: Site, chain: dict[str, Any], bad: Collection[int]) -> None:
    assert _unreadable(site, chain) == set(bad)


@pytest.mark.core
def test_while_it_is_recorded_and_later(site: Site, server: bases.NbdServer) -> None:
    plain = {'driver': 'raw', 'read-only': True, 'file': _base_node(server)}
    _require_errors(site, plain, _BAD)
    plan = site.record(server.uri)
    with guests.NbdGuest(site, plan) as guest:
        guest.require(server.path, 0, 65536)
        _require_errors(site, _through(plan), _BAD)
        assert site.recorder().unreadable_blocks == len(_BAD)
        guest.require(server.path, 65536, 65536)
        shown = site.ask('seal', site.image_id, '--wait')
        assert shown['state'] == 'READY', 'what could be read is cached'
        guest.require(server.path, 0, 131072)
        _require_errors(site, _through(plan), _BAD)
        site.kill(plan['daemon_pid'])
        waiting.until(lambda: site.recorder().daemon_pid != plan['daemon_pid'], 'another daemon')
        _require_errors(site, _through(plan), _BAD)
    _require_errors(site, guests.play_chain(shown['path'], None), _BAD)


def test_blocks_that_can_be_read_again(site: Site, server: bases.NbdServer) -> None:
    plan = site.record(server.uri)
    with guests.NbdGuest(site, plan):
        _require_errors(site, _through(plan), _BAD)
        server.mend()
        waiting.until(lambda: not site.recorder().unreadable_blocks, 'another look at the base')
        _require_errors(site, _through(plan), [])


def test_what_is_cached_of_a_base_that_is_gone(site: Site, server: bases.NbdServer) -> None:
    """A read that is cached in part fails; what is cached of it is read on."""
    site.configure(base_reconnect_seconds=1)
    server.mend()
    cached, length = 16, 32
    plan = site.record(server.uri)

    def require_errors_beyond() -> None:
        assert 'read failed' in _read(site, _through(plan), [f'0 {length * _BLOCK}'])
        assert _unreadable(site, _through(plan), range(length)) == set(range(cached, length))

    with guests.NbdGuest(site, plan) as guest:
        guest.require(server.path, 0, cached * _BLOCK)
        server.stop()
        require_errors_beyond()
        assert site.recorder().unreadable_blocks == length - cached
        assert site.ask('seal', site.image_id, '--wait')['state'] == 'READY'
        require_errors_beyond()
        server.damage([(0, _SIZE)])
        server.start()  # without one no daemon can be started
        site.kill(plan['daemon_pid'])
        waiting.until(lambda: site.recorder().daemon_pid != plan['daemon_pid'], 'another daemon')
        require_errors_beyond()


def test_a_read_beside_a_cluster_that_cannot_be_copied(
    site: Site, server: bases.NbdServer
) -> None:
    """Each block of it can be read. It ends with an error, until nothing is copied any more."""
    server.mend()
    plan = site.record(server.uri)
    read = f'{2 * _BLOCK} {3 * _BLOCK}'
    with guests.NbdGuest(site, plan) as guest:
        guest.require(server.path, 0, 4 * _BLOCK)
        server.damage([(2 * _BLOCK, _BLOCK), (7 * _BLOCK, _BLOCK)])
        assert 'read failed' in _read(site, _through(plan), [read])
        assert _unreadable(site, _through(plan), range(2)) == set()
        assert site.ask('seal', site.image_id, '--wait')['state'] == 'READY'
        # It is answered right after the seal, too, but refused once more while that look begins.
        waiting.until(lambda: not site.recorder().unreadable_blocks, 'another look')
        assert 'read failed' not in _read(site, _through(plan), [read])
        assert _unreadable(site, _through(plan), range(8)) == {7}


def test_what_a_dropped_recording_has_cached(site: Site, server: bases.NbdServer) -> None:
    """Its file has no name any more."""
    server.mend()
    plan = site.record(server.uri)
    with guests.NbdGuest(site, plan) as guest:
        guest.require(server.path, 0, 16 * _BLOCK)
        site.drop()
        waiting.until(lambda: site.recorder().phase is Phase.SERVING, 'the end of the recording')
        assert not site.files()
        server.damage([(0, _SIZE)])
        assert 'read failed' in _read(site, _through(plan), [f'0 {32 * _BLOCK}'])
        assert _unreadable(site, _through(plan), range(32)) == set(range(16, 32))


def test_where_nothing_is_recorded(site: Site, server: bases.NbdServer) -> None:
    """A daemon that was started under the guests of a dead one."""
    plan = site.record(server.uri)
    with guests.NbdGuest(site, plan):
        site.kill(plan['daemon_pid'])
        waiting.until(lambda: site.show()['phase'] == 'serving', 'another daemon')
        _require_errors(site, _through(plan), _BAD)


def test_in_an_audit(site: Site, server: bases.NbdServer) -> None:
    """It says nothing against the cache."""
    plan = site.record(server.uri)
    with guests.NbdGuest(site, plan) as guest:
        guest.require(server.path, 0, 65536)
        site.ask('seal', site.image_id, '--wait')
    site.see_off()
    generation = site.show()['generation']
    command = site.recorder_command(
        *('--audit', f'--base={server.uri}', f'--generation={generation}', '--revision=2'),
        site.image_id,
    )
    with site.start(command) as recorder:
        waiting.until(lambda: _audits(site), 'an audit')
        (socket,) = (site.run_path / 'guests').glob('*.nbd')
        audit = {'socket': str(socket), 'export': plan['export']}
        with guests.NbdGuest(site, audit):
            _require_errors(site, _through(audit), _BAD)
        site.see_off()
        recorder.communicate(timeout=waiting.PATIENCE)
    assert site.show()['state'] == 'READY'
    assert site.plan(server.uri)['kind'] == 'PLAY'


def _audits(site: Site) -> bool:
    # Its daemon listens before it does.
    with contextlib.suppress(ValueError, exception.RecorderUnreachable):
        return site.recorder().phase is Phase.RECORDING
    return False


class PausingGuest:
    """A qemu that reads the first block of its disk, pauses when it cannot, and waits for no
    recorder: as libvirt before 9.2 makes it. It is all the domains of a host."""

    def __init__(self, site: Site, plan: dict[str, Any]) -> None:
        node = _through(plan)
        del node['file']['reconnect-delay']
        self._xml = f"""<domain><devices><disk><source file='/x'/><target dev='vda'/><backingStore>
            <source><host socket='{plan['socket']}'/></source></backingStore></disk></devices>
            </domain>"""
        self._process = site.start(
            [
                *('qemu-system-x86_64', '-machine', 'pc,accel=tcg', '-m', '64', '-nodefaults'),
                *('-display', 'none', '-S', '-qmp', 'stdio'),
                *('-blockdev', json.dumps({'node-name': 'disk', **node})),
                *('-device', 'virtio-blk-pci,drive=disk,rerror=stop,bootindex=1'),
            ],
            stdin=subprocess.PIPE,
            **users.GUEST.arguments(),
        )
        self.resumes = 0
        self._ask('qmp_capabilities')
        self._ask('cont')

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def _ask(self, command: str) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({'execute': command}) + '\n')
        self._process.stdin.flush()
        for line in self._process.stdout:
            said = json.loads(line)
            if 'return' in said:
                return said['return']
            assert 'error' not in said, said
        raise AssertionError('qemu has ended')

    @property
    def is_paused(self) -> bool:
        return bool(self._ask('query-status')['status'] == 'io-error')

    # -- as the keeper asks libvirt

    def living(self) -> Iterator[tuple[str, str]]:
        yield 'domain one', self._xml

    def paused(self) -> list[Paused]:
        one = Paused('uuid', 'one', self._xml, frozenset({'vda'}), full=False)
        return [one] if self.is_paused else []

    def resume(self, uuid: str) -> None:
        self.resumes += 1
        self._ask('cont')


def test_a_guest_that_an_older_libvirt_pauses(site: Site, server: bases.NbdServer) -> None:
    """Nothing can hand it the error: it is left alone until there is none, and then goes on."""
    site.configure(guest_grace_seconds=0)
    server.mend()
    plan = site.record(server.uri)
    server.damage([(0, _BLOCK)])
    with PausingGuest(site, plan) as guest:
        keeper = Guests(Paths(site.cache_path, site.run_path), guest, [])

        def until(look: Callable[[], object], what: str) -> None:
            def look_with_the_keeper() -> object:
                keeper.run_once()
                return look()

            waiting.until(look_with_the_keeper, what)

        waiting.until(lambda: guest.is_paused, 'a guest that is paused')
        # Or else the keeper might resume it more than twice before the recorder knows.
        waiting.until(lambda: site.recorder().unreadable_blocks, 'what cannot be read')
        until(lambda: guest.resumes == 2, 'two more tries')
        waiting.until(lambda: guest.is_paused, 'a guest that is paused again')
        asked = len(server.reads())
        # Those of the recorder alone, which looks again.
        until(lambda: len(server.reads()) > asked, 'another look')
        assert (guest.is_paused, guest.resumes) == (True, 2)
        assert site.boot_plan(server.uri)['kind'] == 'PLAIN', 'a hard reboot helps it'
        server.mend()
        until(lambda: not site.recorder().unreadable_blocks, 'a base that can be read')
        until(lambda: guest.resumes > 2, 'a guest that goes on')
        until(lambda: not guest.is_paused, 'its read')
        assert site.recorder().pid == plan['recorder_pid'], 'it was waited for'


def test_a_comparison_that_fails_says_nothing(site: Site, server: bases.NbdServer) -> None:
    plan = site.record(server.uri)
    with guests.NbdGuest(site, plan) as guest:
        guest.require(server.path, 0, MIB // 4)
        site.ask('seal', site.image_id, '--wait')
    site.see_off()
    server.damage([(0, _BLOCK)])
    done = site.qcache('verify', site.image_id)
    assert done.returncode != 0, done
    assert site.show()['state'] == 'READY'
