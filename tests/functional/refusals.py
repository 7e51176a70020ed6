# SPDX-License-Identifier: Apache-2.0
"""What the product must do with what it cannot use: say so in one line, and leave nothing."""

import json
import pathlib
import subprocess

from tests.functional import waiting
from tests.functional.site import Site

__all__ = ['require_nothing_left', 'require_plain_boot', 'require_refused', 'require_unfit']


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


def require_plain_boot(site: Site, base: pathlib.Path, *said: str) -> None:
    """Check that a boot goes on without a cache, and that its plan says why."""
    plan = site.boot_plan(base)
    assert plan['kind'] == 'PLAIN', plan
    for words in said:
        assert words in plan['reason'], plan


def require_unfit(site: Site, subject: str, *said: str) -> None:
    """Check that ``check`` finds the host unfit, and says so in the row of that subject."""
    done = site.qcache('check', '-f', 'json')
    assert (done.returncode, done.stderr) == (1, ''), done
    (finding,) = (row for row in json.loads(done.stdout) if row['subject'] == subject)
    assert finding['grade'] == 'error'
    for words in said:
        assert words in finding['found'] + finding['remedy'], finding
    assert finding['remedy'], finding
