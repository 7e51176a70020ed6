# SPDX-License-Identifier: Apache-2.0
"""Native calls where there is no eventlet; tests/unit/virt/test_eventlet.py has the other half."""

import pathlib
import subprocess
import sys
import threading

import pytest

from nova_qcache.system import native

ROOT = pathlib.Path(__file__).parents[3]


def run(code):
    done = subprocess.run(
        [sys.executable, '-c', code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
        check=True,
    )
    return done.stdout


def test_run_is_a_call():
    assert native.run(divmod, 7, 3) == (2, 1)
    assert native.run(threading.get_ident) == threading.get_ident()


def test_what_is_in_time():
    assert native.within(600, lambda: 5) == 5
    assert native.within(600, lambda: None) is None


@pytest.mark.parametrize('error', [ZeroDivisionError('x'), KeyboardInterrupt()], ids=repr)
def test_an_error_is_the_callers(error):
    def fail():
        raise error

    with pytest.raises(type(error)):
        native.run(fail)
    with pytest.raises(type(error)):
        native.within(600, fail)


def test_what_hangs_is_left_behind():
    end, ended = threading.Event(), threading.Event()

    def hang():
        end.wait()
        ended.set()

    with pytest.raises(TimeoutError, match=r'no answer within 0\.01 s'):
        native.within(0.01, hang)
    assert not ended.is_set()
    end.set()
    assert ended.wait(60)


def test_what_hangs_keeps_no_process():
    code = """
import threading
from nova_qcache.system import native
try:
    native.within(0.01, threading.Event().wait)
except TimeoutError as e:
    print(e)
"""
    assert run(code) == 'no answer within 0.01 s\n'


def test_eventlet_is_not_imported():
    """Where Nova has threads, it forbids that."""
    code = """
import sys
from nova_qcache.system import native
sys.modules['eventlet'] = None
assert native.run(int, '5') == native.within(600, lambda: 5) == 5
assert 'eventlet.patcher' not in sys.modules
"""
    run(code)
