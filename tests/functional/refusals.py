# SPDX-License-Identifier: Apache-2.0
"""What the product must do with what it cannot use: say so in one line, and leave nothing."""

import subprocess

from tests.functional import waiting
from tests.functional.site import Site

__all__ = ['require_nothing_left', 'require_refused']


def require_refused(site: Site, done: 'subprocess.CompletedProcess[str]', *said: str) -> None:
    """Check that a command refused, with one line that says all of ``said``, and left nothing."""
    assert (done.returncode, done.stdout) == (1, ''), done
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done
    for words in said:
        assert words in lines[0], f'{words!r} is not in {lines[0]!r}'
    require_nothing_left(site)


def require_nothing_left(site: Site) -> None:
    """Check that no process, socket or file of a recording is left."""
    waiting.until(lambda: not site.recorders(), 'the end of the recorder')
    for folder in ('guests', 'control'):
        path = site.run_path / folder
        if path.is_dir():
            left = [each.name for each in path.iterdir() if each.suffix != '.log']
            assert not left, left
    if site.cache_path.is_dir():
        left = [each.name for each in site.files() if each.name != 'filler']
        assert not left, left
