# SPDX-License-Identifier: Apache-2.0
"""The seed of random tests: the same in every run, unless one asks for another."""

import pytest

from tests import seeds


def test_the_same_in_every_run(monkeypatch):
    monkeypatch.delenv(seeds.VARIABLE, raising=False)
    assert not seeds.explore()
    assert seeds.seed() == seeds.seed()


def test_another_one(monkeypatch):
    monkeypatch.setenv(seeds.VARIABLE, '4711')
    assert seeds.explore()
    assert seeds.seed() == 4711


def test_no_number(monkeypatch):
    monkeypatch.setenv(seeds.VARIABLE, 'any')
    with pytest.raises(ValueError, match='any'):
        seeds.seed()
