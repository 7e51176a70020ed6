# SPDX-License-Identifier: Apache-2.0
"""Images whose caches stay, whatever room is needed: one small file for each.

What an operator asked for is never lost: a file that cannot be read counts as a pin, and a pin
never becomes shorter but by :meth:`Pins.unpin`.
"""

import contextlib
import dataclasses
import json
import logging
import math
import os
import pathlib
import time

from nova_qcache import exception
from nova_qcache.model.key import canonical_image_id
from nova_qcache.system import files
from nova_qcache.system import locks
from nova_qcache.system.log_rate_limit import LogRateLimit
from nova_qcache.system.paths import Paths

__all__ = ['Pin', 'Pins']

LOG = logging.getLogger(__name__)

_SUFFIX = '.json'
_MODE = 0o640


@dataclasses.dataclass(frozen=True)
class Pin:
    image_id: str
    until: float | None = None
    """Seconds since the epoch, None: for good."""
    reason: str = ''
    """Free text for people."""


class Pins:
    def __init__(self, paths: Paths, lock_seconds: float) -> None:
        self._folder = paths.pins
        self._locks = paths.locks
        self._lock_seconds = lock_seconds
        self._log_limit = LogRateLimit()

    def pin(self, image_id: str, until: float | None = None, reason: str = '') -> Pin:
        """Keep the caches of an image, those to come as well. Of two pins the one that lasts
        longer holds.

        :param until: seconds since the epoch, None: for good
        :return: the one that holds
        :raises InvalidImageId: if it is none
        :raises FolderUnfit: if it cannot be written down
        :raises LockTimeout: if the caches of the image stay locked
        """
        image_id = canonical_image_id(image_id)
        with self._locked(image_id):
            before = self._lasting(image_id)
            if before is not None and _end(before.until) > _end(until):
                return before
            data = {'image_id': image_id, 'until': until, 'reason': reason}
            text = json.dumps(data, sort_keys=True).encode() + b'\n'
            try:
                files.replace_atomically(self._path(image_id), text, _MODE)
            except OSError as e:
                raise self._unfit(e) from e
        return Pin(image_id, until, reason)

    def unpin(self, image_id: str) -> bool:
        """Allow the caches of an image to be evicted again; return whether the image was pinned.

        :raises InvalidImageId: if it is none
        :raises FolderUnfit, LockTimeout: if it stays pinned
        """
        image_id = canonical_image_id(image_id)
        with self._locked(image_id):
            was_pinned = self._lasting(image_id) is not None
            try:
                with contextlib.suppress(FileNotFoundError):
                    self._path(image_id).unlink()
                    files.sync_folder(self._folder)
            except OSError as e:
                raise self._unfit(e) from e
        return was_pinned

    def all(self) -> dict[str, Pin]:
        """Return the pins that have not ended, by image.

        :raises OSError: if the folder cannot be read: nobody may say then that there is none
        """
        try:
            names = sorted(os.listdir(self._folder))
        except FileNotFoundError:  # the first version that pins has not made it yet
            return {}
        found = {}
        for name in names:
            with contextlib.suppress(exception.InvalidImageId):
                image_id = name.removesuffix(_SUFFIX)
                if name.endswith(_SUFFIX) and canonical_image_id(image_id) == image_id:
                    pin = self._lasting(image_id)
                    if pin is not None:
                        found[image_id] = pin
        return found

    def is_pinned(self, image_id: str) -> bool:
        return self._lasting(image_id) is not None

    def _locked(self, image_id: str) -> contextlib.AbstractContextManager[None]:
        """Hold the lock under which caches of the image are removed: once a pin is there, none
        goes that was chosen before."""
        return locks.image(self._locks, image_id, self._lock_seconds)

    def _lasting(self, image_id: str) -> Pin | None:
        """Return the pin of an image unless it has ended. The file of an ended pin stays until the
        next pin: removing it might remove a new pin."""
        pin = self._read(image_id)
        return pin if pin is not None and time.time() < _end(pin.until) else None

    def _read(self, image_id: str) -> Pin | None:
        path = self._path(image_id)
        try:
            data = json.loads(path.read_bytes())
            until = data['until']
            if until is not None:
                until = float(until)
                if math.isnan(until):
                    raise ValueError('its end is not a time')
            return Pin(image_id, until, str(data.get('reason', '')))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as e:
            error = exception.PinBroken(path=str(path), reason=repr(e), image_id=image_id)
            LOG.log(self._log_limit.level(error), '%s', error)
            return Pin(image_id, None, 'its file cannot be read')

    def _path(self, image_id: str) -> pathlib.Path:
        return self._folder / f'{image_id}{_SUFFIX}'

    def _unfit(self, error: OSError) -> exception.FolderUnfit:
        return exception.FolderUnfit(
            path=str(self._folder),
            reason=f'a pin cannot be written or removed there ({error.strerror})',
            remedy='Make room there, or give it to the user that nova-compute runs as',
        )


def _end(until: float | None) -> float:
    return math.inf if until is None else until
