# SPDX-License-Identifier: Apache-2.0
"""One round: a host, its guests, one fault, and what was lost."""

import contextlib
import dataclasses
import random
import time
from typing import Any

from bench.faults import ground
from bench.faults import leaks
from bench.faults import promise
from bench.faults.bases import Gone
from bench.faults.fault import Fault
from bench.faults.fault import Phase
from bench.faults.patience import Patience
from bench.faults.plants import Plant
from bench.faults.row import logs_of
from bench.faults.row import Row
from bench.faults.row import shorter
from bench.faults.scene import RECONNECT_SECONDS
from bench.faults.scene import Scene
from tests.functional import account
from tests.functional import waiting
from tests.functional.installation import Installation
from tests.functional.site import Site

__all__ = ['Round']


class Round:
    """:param stands: what the host stands on; by default one that the fault can use
    :param scale: of the time that the fault lasts
    :param seconds: that time itself
    :param reconnect_seconds: as :class:`Scene` takes it
    """

    def __init__(
        self,
        kind: type[Fault],
        phase: Phase,
        chance: random.Random,
        *,
        stands: ground.Ground | None = None,
        scale: float = 1.0,
        seconds: float | None = None,
        plant: Plant | None = None,
        reconnect_seconds: int = RECONNECT_SECONDS,
    ) -> None:
        stands = stands or chance.choice(kind.grounds)
        self.row = Row(kind.kind, phase.value, dataclasses.asdict(stands))
        self._kind, self._phase, self._chance, self._stands = kind, phase, chance, stands
        self._scale, self._seconds = scale, seconds
        self._plant = plant
        self._reconnect_seconds = reconnect_seconds
        self._scene: Scene
        self._patience: Patience
        self._fault: Fault
        self._began = 0.0
        self._was_ready = False
        self._known: list[Any] | None = None
        self._wrong: set[int] = set()

    def run(self, product: Installation) -> Row:
        began = time.monotonic()
        book = account.Account()
        try:
            site = Site(book, product)
            self._scene = Scene(site, self._stands, self._chance, self._reconnect_seconds)
            self._patience = Patience(self._scene, self.row)
            self._fault = self._kind(self._scene, self._scale)
            if self._seconds is not None:
                self._fault.seconds = self._seconds
            self._play()
        except Exception as e:  # whatever it is, this round failed and the next one comes
            self.row.problems.append(f'{type(e).__name__}: {e}'[:1000])
            self._rescue()
        except BaseException:  # told to end
            self._rescue()
            book.close()
            raise
        self.row.leaks += [shorter(each) for each in book.close()]
        if not self.row.lost:
            self.row.logs = {}
        self.row.seconds = round(time.monotonic() - began, 1)
        return self.row

    def _rescue(self) -> None:
        """After a problem: what is stopped or frozen would keep the host from its end."""
        scene = getattr(self, '_scene', None)
        if scene is None:
            return
        with contextlib.suppress(Exception):
            if self._stands.base in ('fuse', 'nbd', 'tcp'):
                scene.base.go_on()
        self.row.notes += scene.notes
        scene.end_compute()
        self.row.logs = logs_of(scene.site.folder)
        with contextlib.suppress(Exception):
            self._count()
            scene.end_guests()
        scene.kill('keeper', 'recorder', 'daemon')

    # -- the course of a round

    def _play(self) -> None:
        scene = self._scene
        free_before = ground.free_blocks(scene.disk.path)
        if self._plant is not None:
            self._plant.prepare(scene)
        self._began = time.monotonic()
        self._until_the_fault()
        self._mark('fault')
        self._after_the_fault()
        self._mark('after')
        self.row.problems += [] if self._fault.spoils_cache else promise.broken_by(scene)
        self._count()
        scene.end_guests()
        self._patience.departure()
        self._mark('departure')
        if isinstance(self._fault, Gone):
            self._fault.bring_back()
        self._next_boot()
        self._mark('next boot')
        self.row.logs = logs_of(scene.site.folder)
        if self._plant is not None:
            self._plant.leak(scene)
        self.row.notes += scene.notes
        self.row.leaks += leaks.clear_up(scene, free_before)
        self._mark('cleared up')

    def _mark(self, step: str) -> None:
        self.row.steps[step] = round(time.monotonic() - self._began, 1)

    def _until_the_fault(self) -> None:
        scene, phase = self._scene, self._phase
        if phase is Phase.COLD:
            if self._chance.random() < 0.5:
                scene.compute('sweep')  # it is at work already
            self._inject()
        special = self._plant.special(scene) if self._plant is not None else {}
        if phase is Phase.BEFORE:
            plan = scene.plan('first')
            scene.doze(0, 0.2)
            self._inject()
            if self._kind.ends_guests:
                self._undo()
                return
            guest = scene.begin_boot(plan)
            self._undo()
            scene.see_up(guest)
            scene.compute('release', 'first')
        else:
            scene.boot(**special)
        for _ in range(self._chance.randrange(3)):
            scene.boot()
        if phase is Phase.COLD:
            self._undo()
        self._patience.reads(10)
        if phase not in (Phase.COLD, Phase.BEFORE):
            kinds = [guest.plan['kind'] for guest in scene.guests]
            # A small quota may be full before the last of them comes.
            wanted = {'RECORD', 'PLAY'} if scene.state == 'READY' else {'RECORD'}
            assert kinds[0] == 'RECORD', f'{kinds} before any fault: {scene.notes}'
            assert set(kinds) <= wanted, f'{kinds} before any fault: {scene.notes}'
        if phase is Phase.RECORDING:
            scene.doze(0, 1.5)
            self._strike()
        elif phase is Phase.SEALING:
            scene.doze(0.2, 1)
            self._strike_the_seal()
        elif phase in (Phase.SEALED, Phase.PLAYING, Phase.IDLE):
            self._reach_the_seal()

    def _reach_the_seal(self) -> None:
        scene = self._scene
        scene.doze(0.2, 1)
        if self._kind.base_is_lost:
            self._known = scene.guests[0].keep()
            for guest in scene.guests:
                guest.keep()
        waiting.until(scene.ask_to_seal, 'a recorder that hears')
        self._patience.state('READY', 'sealing')
        self._was_ready = True
        if self._phase is Phase.PLAYING:
            self._patience.reads(10, scene.boot())
            scene.doze(0, 1)
        elif self._phase is Phase.IDLE:
            self._count()
            scene.end_guests()
            scene.guests.clear()
            scene.doze(0, 2)
        self._strike()

    def _strike(self) -> None:
        if self._kind.base_is_lost:
            self._lose_the_base()
            return
        self._inject()
        self._undo()

    def _strike_the_seal(self) -> None:
        scene = self._scene
        offset = self._chance.uniform(-0.03, 0.15)
        if offset < 0:
            self._inject()
            time.sleep(-offset)
            scene.ask_to_seal()
        else:
            scene.ask_to_seal()
            time.sleep(offset)
            self._inject()
        self._undo()

    def _inject(self) -> None:
        self.row.moment_s = round(time.monotonic() - self._began, 3)
        self.row.hit = self._fault.inject()

    def _undo(self) -> None:
        began = time.monotonic()
        time.sleep(self._fault.seconds)
        self.row.problems += self._fault.undo()
        self.row.lasted_s = round(time.monotonic() - began, 3)

    def _lose_the_base(self) -> None:
        """For good: what is cached is read on, everything comes to its end."""
        scene = self._scene
        plain = scene.see_up(scene.begin_boot({'kind': 'PLAIN', 'reason': 'to compare with'}))
        self._patience.reads(5, plain)
        scene.guests.remove(plain)
        try:
            for guest in scene.guests:
                guest.keep(self._known)
            self._inject()
            self._undo()
            for guest in scene.guests:
                self._patience.progress(guest, 'again')
            if scene.state == 'WARMING':
                scene.ask_to_seal()
                self._patience.end_of_seal()
                for guest in scene.guests:
                    self._patience.progress(guest, 'again')
            errors = plain.facts()['errors']
            ours = [guest.facts()['errors'] for guest in scene.guests]
            self.row.notes.append(f'errors of a plain guest beside: {errors}; of ours: {ours}')
        finally:
            plain.end()

    def _after_the_fault(self) -> None:
        scene = self._scene
        if self._kind.ends_guests:
            self._count()
            scene.guests.clear()
            return
        if self._kind.base_is_lost:
            return
        self._patience.recorder()
        for guest in scene.guests:
            self._patience.progress(guest)
        scene.doze(0.2, 0.6)
        if scene.guests and scene.state == 'WARMING':
            scene.ask_to_seal()
        self._patience.end_of_seal()

    def _next_boot(self) -> None:
        """It works, whatever has become of the cache; a cache that it plays is sound."""
        scene = self._scene
        scene.guests.clear()
        guest = scene.boot()
        self._patience.reads(20, guest)
        kind, reason = guest.plan['kind'], guest.plan['reason']
        if kind == 'PLAY':
            self.row.cache = 'kept' if self._was_ready else 'sealed, and kept'
            self.row.problems += promise.unsound(scene)
        elif kind == 'RECORD':
            self.row.cache = 'recorded again'
        else:
            self.row.cache = 'not used'
            self.row.notes.append(f'the next boot is plain: {shorter(reason)}')
        self._count()
        scene.end_guests()

    # -- counting

    def _count(self) -> None:
        """Add up what the guests of the moment have seen."""
        for guest in self._scene.guests:
            facts = guest.facts()
            self.row.guests.append(guest.plan['kind'])
            errors = facts['errors']
            mine = errors['again'] + (0 if self._kind.base_is_lost else errors['anywhere'])
            self.row.guest_errors += mine
            if mine:
                self.row.notes.append(f'errors: {facts["said"]}')
            self._wrong |= set(facts['wrong'])
            longest = max(self.row.longest_wait_s, facts['longest'])
            self.row.longest_wait_s = round(longest, 2)
        self.row.wrong_bytes = len(self._wrong)
