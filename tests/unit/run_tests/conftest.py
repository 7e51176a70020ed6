# SPDX-License-Identifier: Apache-2.0
"""The programs of tools/run_tests, which no wheel has."""

import importlib
import pathlib

import pytest

TOOLS = pathlib.Path(__file__).parents[3] / 'tools'


@pytest.fixture(autouse=True)
def tools_path(monkeypatch):
    monkeypatch.syspath_prepend(str(TOOLS))


@pytest.fixture
def lanes():
    return importlib.import_module('run_tests.lanes')


@pytest.fixture
def parts():
    return importlib.import_module('run_tests.parts')


@pytest.fixture
def report():
    return importlib.import_module('run_tests.report')


@pytest.fixture
def program():
    return importlib.import_module('run_tests.__main__')
