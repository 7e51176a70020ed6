# SPDX-License-Identifier: Apache-2.0
"""The one profile of all random tests. The same tree passes or fails the same tests each time.

``QCACHE_SEED=N`` in the environment is a search instead: by that seed, with more examples.
"""

import importlib.util

import pytest

from tests import seeds

_MORE = 10
"""So many times the usual number of examples are tried in a search, and so much longer."""

# The tests on a real OpenStack run with the Python of the stack, which has no hypothesis.
if importlib.util.find_spec('hypothesis'):
    from hypothesis import settings

    # No deadline: a busy machine is no fault of the code. No database: tests leave nothing behind.
    settings.register_profile(
        'fixed', deadline=None, database=None, print_blob=True, derandomize=True
    )
    settings.register_profile(
        'search',
        settings.get_profile('fixed'),
        derandomize=False,
        max_examples=_MORE * settings.get_profile('fixed').max_examples,
    )
    settings.load_profile('search' if seeds.explore() else 'fixed')


@pytest.hookimpl(tryfirst=True)  # before hypothesis and pytest-timeout look at them
def pytest_configure(config: pytest.Config) -> None:
    if not seeds.explore():
        return
    if getattr(config.option, 'hypothesis_seed', None) is None:
        config.option.hypothesis_seed = str(seeds.seed())
    if getattr(config.option, 'timeout', 0) is None:
        config.option.timeout = _MORE * float(config.getini('timeout'))


def pytest_report_header() -> str:
    if seeds.explore():
        return f'random tests: a search, repeated by QCACHE_SEED={seeds.seed()}'
    return 'random tests: the same examples each time; QCACHE_SEED=N searches for others'
