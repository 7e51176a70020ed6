# SPDX-License-Identifier: Apache-2.0
"""A base that was touched, replaced or changed: only its content decides."""

import json
import os
import pathlib
import re
import shutil
from typing import Any

import pytest

from tests.functional import generations
from tests.functional.site import MIB
from tests.functional.site import Site

pytestmark = pytest.mark.core


def _touch(base: pathlib.Path) -> None:
    os.utime(base, ns=(1, 1))


def test_a_touched_base_still_plays(site: Site, base: pathlib.Path, cache: dict[str, Any]) -> None:
    """As Nova does at every boot. A sample is compared: what qemu-io is told says how much."""
    script = site.folder / 'script'
    script.touch()
    script.chmod(0o666)
    wrapper = f'#!/bin/sh\ntee {script} | qemu-io "$@"\n'
    site.configure(qemu_io=str(site.program('qemu-io', wrapper)))
    _touch(base)
    assert site.plan(base)['kind'] == 'PLAY'
    reads = re.findall(r'^read (\d+) (\d+)$', script.read_text(), re.MULTILINE)
    assert MIB // 2 <= sum(int(length) for _, length in reads) <= 2 * MIB
    assert len({int(offset) // MIB for offset, _ in reads}) > 4, 'a sample comes from everywhere'
    script.write_text('')
    assert site.plan(base)['kind'] == 'PLAY'
    assert script.read_text() == '', 'the same times are looked into twice'


def test_a_touched_and_changed_base_does_not_play(
    site: Site, base: pathlib.Path, cache: dict[str, Any]
) -> None:
    with open(base, 'r+b') as file:
        file.write(os.urandom(8 * MIB))  # all that is cached: every sample hits it
    before = generations.number(base)
    plan = site.ask('plan', site.image_id, f'--base={base}', warnings=1)
    assert plan['kind'] == 'PLAIN'
    assert generations.number(base) == before + 1
    assert site.show()['state'] == 'STALE'
    assert site.plan(base)['kind'] == 'RECORD'


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
    with open(base, 'r+b') as file:
        file.seek(5 * MIB + 12345)
        byte = file.read(1)
        file.seek(5 * MIB + 12345)
        file.write(bytes([byte[0] ^ 1]))
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
