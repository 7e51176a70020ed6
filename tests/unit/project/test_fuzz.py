# SPDX-License-Identifier: Apache-2.0
"""A short run of bench/fuzz.py, and that it finds what is there to be found."""

import importlib
import json
import pathlib
import sys

import pytest

from nova_qcache import exception
from nova_qcache.qemu.qmp import Monitor
from tests import seeds
from tests.unit import virtual_time

BENCH = pathlib.Path(__file__).parents[3] / 'bench'
TIMES = 10 if seeds.explore() else 1
CASES = 4000 * TIMES
CONVERSATIONS = 150 * TIMES
SEED = seeds.seed()
PARSERS = ('record', 'lease', 'generation', 'key', 'recorder reply', 'door request')


@pytest.fixture(scope='module')
def fuzz():
    sys.path.insert(0, str(BENCH))
    before = set(sys.modules)
    yield importlib.import_module('fuzz')
    sys.path.remove(str(BENCH))
    for name in {'fuzz', 'damage'} - before:
        sys.modules.pop(name, None)


def test_these_are_all(fuzz):
    assert set(fuzz.TARGETS) == set(PARSERS)


@pytest.mark.random
@pytest.mark.parametrize('name', PARSERS)
def test_a_parser(fuzz, name, capsys):
    assert fuzz.run(name, fuzz.TARGETS[name], CASES, SEED) == 0, capsys.readouterr().err


@pytest.mark.random
def test_a_daemon_that_says_anything(fuzz, capsys):
    assert virtual_time.run(fuzz.run_qmp(CONVERSATIONS, SEED)) == 0, capsys.readouterr().err


@pytest.mark.parametrize('name', PARSERS)
def test_cases_are_fit_for_their_target(fuzz, name):
    """Neither are all of them refused nor none, so both halves of a parser are reached."""
    target, refused = fuzz.TARGETS[name], 0
    for case in target.cases(CASES, fuzz.Damage(SEED)):
        try:
            json.loads(case)
        except (ValueError, RecursionError):
            refused += 1
    assert refused < CASES * 0.6 or name == 'key'
    assert refused > CASES * 0.05


def test_a_seed_makes_the_same_cases(fuzz):
    target = fuzz.TARGETS['record']
    first, again, other = (
        list(target.cases(100, fuzz.Damage(seed))) for seed in ('one', 'one', 'two')
    )
    assert first == again != other


def key_error(case):
    try:
        data = json.loads(case)
    except (ValueError, RecursionError):
        return
    if isinstance(data, dict):
        data['quota']


def unprintable(case):
    try:
        raise exception.RecordBroken(path='', image_id='', reason=str(json.loads(case)['base']))
    except (ValueError, RecursionError, LookupError, TypeError):
        pass


@pytest.mark.parametrize(
    ('planted', 'said'),
    [(key_error, "KeyError: 'quota'"), (unprintable, 'RecordBroken')],
)
def test_a_fault_that_is_planted_is_found(fuzz, capsys, planted, said):
    record = fuzz.TARGETS['record']
    target = fuzz.Target(planted, record.valid, record.allowed)
    assert fuzz.run('planted', target, CASES, SEED) > 0
    shown = capsys.readouterr().err
    assert said in shown
    assert 'planted: b' in shown


def test_a_fault_of_a_monitor_is_found(fuzz, capsys, monkeypatch):
    async def execute(self, command, arguments=None):
        return (await self._client.execute(command, arguments))['return']

    monkeypatch.setattr(Monitor, 'execute', execute)
    assert virtual_time.run(fuzz.run_qmp(CONVERSATIONS, SEED)) > 0
    assert 'qmp: ' in capsys.readouterr().err


@pytest.mark.parametrize('fails', [False, True])
def test_report(fuzz, tmp_path, capsys, monkeypatch, fails):
    report = tmp_path / 'report.json'
    if fails:
        planted = fuzz.Target(key_error, fuzz.TARGETS['record'].valid)
        monkeypatch.setitem(fuzz.TARGETS, 'record', planted)
    options = ['--cases', '500', '--only', 'record', '--seed', 'x', '--json', str(report)]
    monkeypatch.setattr(sys, 'argv', ['fuzz.py', *options])
    assert fuzz.main() == fails
    said = json.loads(report.read_bytes())
    assert said['seed'] == 'x'
    assert said['targets']['record']['cases'] == 500
    assert bool(said['targets']['record']['failures']) is fails
