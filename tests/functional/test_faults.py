# SPDX-License-Identifier: Apache-2.0
"""Every fault of bench/faults.sh, each at the moments that matter; and the harness itself: what is
planted is found."""

import json
import os
import pathlib
import random
import subprocess
import sys
from typing import Any

import pytest

from bench.faults import report
from bench.faults.catalogue import FAULTS
from bench.faults.fault import Phase
from bench.faults.ground import Ground
from bench.faults.rounds import Round
from tests import seeds
from tests.functional.installation import Installation

_SCRIPT = pathlib.Path(__file__).parents[2] / 'bench' / 'faults.sh'

_MOMENTS = {
    'kill-daemon': (Phase.BEFORE, Phase.RECORDING, Phase.SEALING, Phase.SEALED),
    'kill-recorder': (Phase.BEFORE, Phase.RECORDING, Phase.SEALING, Phase.SEALED),
    'kill-both': (Phase.RECORDING, Phase.SEALING, Phase.PLAYING),
    'kill-all': (Phase.RECORDING,),
    'kill-keeper': (Phase.RECORDING,),
    'term-recorder': (Phase.RECORDING,),
    'stop-daemon': (Phase.SEALING,),
    'stop-recorder': (Phase.BEFORE,),
    'stop-both': (Phase.PLAYING,),
    'disk-full': (Phase.COLD, Phase.RECORDING, Phase.SEALING),
    'inodes-full': (Phase.COLD, Phase.RECORDING),
    'switch-off': (Phase.RECORDING, Phase.SEALING, Phase.SEALED),
    'base-away': (Phase.PLAYING,),
    'base-hangs': (Phase.RECORDING,),
    'base-gone': (Phase.RECORDING, Phase.SEALED),
    'rm-cache-file': (Phase.RECORDING,),
    'rm-record': (Phase.RECORDING,),
    'rm-sockets': (Phase.RECORDING,),
    'rm-run-path': (Phase.RECORDING,),
    'rm-cache-path': (Phase.RECORDING,),
    'chmod-run-path': (Phase.RECORDING,),
    'chmod-cache-path': (Phase.SEALED,),
    'damage-cache': (Phase.IDLE,),
    'truncate-cache': (Phase.IDLE,),
}
_LONG_SECONDS = 20
_RANDOM = 40 if seeds.explore() else 6
_RUN_SECONDS = 600 * _RANDOM

pytestmark = pytest.mark.timeout(1800)

_LONG = [
    ('stop-both', Phase.RECORDING, 'file'),
    ('base-away', Phase.RECORDING, 'nbd'),
    ('base-away', Phase.SEALING, 'tcp'),
]


def _chance(what: str) -> random.Random:
    print(f'{seeds.VARIABLE}={seeds.seed()}')
    return random.Random(f'{what} {seeds.seed()}')


def _require_nothing_lost(of: Round, product: Installation) -> None:
    row = of.run(product)
    if row.lost or not row.hit:
        logs = '\n'.join(f'== {name}\n{text}' for name, text in row.logs.items())
        pytest.fail(f'{report.line_of(row.hit, row)}\n{logs}', pytrace=False)


def test_every_fault_is_here() -> None:
    assert set(_MOMENTS) == set(FAULTS)


@pytest.mark.parametrize(
    ('kind', 'phase'),
    [(kind, phase) for kind, phases in _MOMENTS.items() for phase in phases],
    ids=lambda value: value.name.lower() if isinstance(value, Phase) else value,
)
def test_fault(product: Installation, kind: str, phase: Phase) -> None:
    chance = _chance(f'{kind} {phase.name}')
    fault = FAULTS[kind]
    stands = fault.grounds[0]
    _require_nothing_lost(Round(fault, phase, chance, stands=stands), product)


@pytest.mark.parametrize(
    ('kind', 'phase', 'base'),
    _LONG,
    ids=[f'{kind}-{phase.name.lower()}' for kind, phase, _ in _LONG],
)
def test_long(product: Installation, kind: str, phase: Phase, base: str) -> None:
    stands = Ground(base=base)
    of = Round(
        FAULTS[kind],
        phase,
        _chance(f'{kind} {phase.name} long'),
        stands=stands,
        seconds=_LONG_SECONDS,
    )
    _require_nothing_lost(of, product)


def _run(folder: pathlib.Path, *arguments: str) -> tuple[int, dict[str, Any], str]:
    rows = folder / 'faults.json'
    done = subprocess.run(
        [
            *(str(_SCRIPT), *arguments),
            *(f'--json={rows}', f'--table={folder / "faults.rst"}'),
        ],
        env={**os.environ, 'PYTHON': sys.executable},
        cwd='/',
        capture_output=True,
        text=True,
        timeout=_RUN_SECONDS,
    )
    assert rows.exists(), done
    return done.returncode, json.loads(rows.read_text()), done.stdout + done.stderr


@pytest.mark.parametrize(
    ('what', 'errors', 'wrong'), [('wrong-cluster', 0, 1), ('eio', 1, 0), ('leak', 0, 0)]
)
def test_what_is_planted_is_found(
    tmp_path: pathlib.Path, what: str, errors: int, wrong: int
) -> None:
    code, found, said = _run(tmp_path, '1', '--seed=1', f'--plant={what}')
    assert code == 1, said
    assert (found['tried'], found['problems']) == (1, 0), said
    assert (found['guest_errors'], found['wrong_bytes']) == (errors, wrong), said
    assert (found['leaks'] > 0) == (what == 'leak'), said


@pytest.mark.random
@pytest.mark.timeout(_RUN_SECONDS + 60)
def test_random_faults(tmp_path: pathlib.Path) -> None:
    code, found, said = _run(
        tmp_path, str(_RANDOM), f'--seed={seeds.seed()}', '--burn=cpu=1,disk=1'
    )
    assert code == 0, said
    assert found['tried'] == len(found['faults']) == _RANDOM
    assert 'guest_errors 0, wrong_bytes 0, leaks 0' in said
    table = (tmp_path / 'faults.rst').read_text()
    assert f'bench/faults.sh {_RANDOM} --seed {seeds.seed()}' in table
