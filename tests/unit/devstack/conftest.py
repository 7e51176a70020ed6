# SPDX-License-Identifier: Apache-2.0

from collections.abc import Iterator
import pathlib
import tempfile

import pytest

from tests.unit.devstack.machine import DevStack


@pytest.fixture
def devstack() -> Iterator[DevStack]:
    # Not tmp_path: the paths of sockets are short.
    made = DevStack(pathlib.Path(tempfile.mkdtemp(prefix='qd-', dir='/tmp')))
    yield made
    made.forget()
