# SPDX-License-Identifier: Apache-2.0
"""Log rate limit: a repeated error is a warning once an hour, and not at each boot."""

import logging
import re
import time

__all__ = ['LogRateLimit']

_AGAIN_SECONDS = 3600
_MOST = 1000
_VARIABLE = re.compile(r'[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9]+')


class LogRateLimit:
    """Remembers the errors that were logged as warnings."""

    def __init__(self) -> None:
        self._said: dict[str, float] = {}

    def level(self, error: Exception) -> int:
        """Return the level to log an error at: a warning the first time and once an hour, INFO
        else.

        Two errors of one kind about one path are the same, whatever else they say; so are two
        that differ in IDs and numbers only.
        """
        path = getattr(error, 'attributes', {}).get('path') or getattr(error, 'filename', None)
        about = f'{type(error).__name__}: {path or _VARIABLE.sub("", str(error))}'
        now = time.monotonic()
        if now - self._said.get(about, -_AGAIN_SECONDS) < _AGAIN_SECONDS:
            return logging.INFO
        if len(self._said) >= _MOST:
            self._said.clear()
        self._said[about] = now
        return logging.WARNING
