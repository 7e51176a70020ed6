# SPDX-License-Identifier: Apache-2.0
"""A base that was touched, replaced or changed: only its content decides."""

import json
import os
import pathlib
import shutil
from typing import Any

import pytest

from tests.functional import bases
from tests.functional import generations
from tests.functional.site import MIB
from tests.functional.site import Site

pytestmark = pytest.mark.core


def test_a_touched_base_plays_and_nobody_reads_it(
    site: Site, base: pathlib.Path, cache: dict[str, Any]
) -> None:
    """As Nova does at every boot, on all hosts that share the base."""
    site.configure(qemu_io='/no/such/program', qemu_img='/no/such/program')
    os.utime(base, ns=(1, 1))
    assert site.plan(base)['kind'] == 'PLAY'
    assert site.boot_plan(base)['kind'] == 'PLAY'


def test_a_replaced_base_waits_for_verify(
    site: Site, base: pathlib.Path, cache: dict[str, Any]
) -> None:
    copy = base.with_name('copy')
    shutil.copy2(base, copy)
    copy.rename(base)
    plan = site.plan(base)
    assert plan['kind'] == 'PLAIN'
    assert f'nova-qcache verify {site.image_id}' in plan['reason']
    assert site.boot_plan(base)['kind'] == 'PLAIN'
    (row,) = site.ask('verify', site.image_id)
    assert row['result'] == 'equal'
    assert row['compared_bytes'] >= 8 * MIB
    assert site.plan(base)['kind'] == 'PLAY'


def test_verify_finds_one_changed_byte(
    site: Site, base: pathlib.Path, cache: dict[str, Any]
) -> None:
    facts = base.stat()
    bases.flip(base, 5 * MIB + 12345)
    os.utime(base, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert site.plan(base)['kind'] == 'PLAY', 'nothing looks changed'

    before = generations.number(base)
    done = site.qcache('verify', site.image_id, '-f', 'json')
    assert done.returncode == 1, done
    (row,) = json.loads(done.stdout)
    assert str(5 * MIB + 12345) in row['result'], row
    assert generations.number(base) == before + 1
    assert site.show()['state'] == 'STALE'
    plan = site.plan(base)
    assert (plan['kind'], plan['generation']) == (
        'RECORD',
        cache['generation'].rpartition('.')[0] + f'.{before + 1}',
    )
