# SPDX-License-Identifier: Apache-2.0
"""The parts of tools/openstack.sh that need no OpenStack."""

import importlib
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
from unittest import mock

import pytest

_FOLDER = pathlib.Path(__file__).parents[3] / 'tools' / 'openstack'


@pytest.fixture(autouse=True)
def _path(monkeypatch):
    monkeypatch.syspath_prepend(str(_FOLDER))


def _module(name):
    return importlib.import_module(f'qcache_stack.{name}')


@pytest.fixture
def sleeper():
    child = subprocess.Popen(['sleep', '600'], start_new_session=True)
    yield child
    child.kill()
    child.wait()


def test_only_the_standard_library_is_imported():
    program = (
        'import sys; before = set(sys.modules); import qcache_stack.cli\n'
        'names = {n.partition(".")[0] for n in set(sys.modules) - before}\n'
        'print(sorted(names - set(sys.stdlib_module_names) - {"qcache_stack"}))'
    )
    done = subprocess.run(
        [
            sys.executable,
            '-I',
            '-c',
            f'import sys; sys.path.insert(0, {str(_FOLDER)!r})\n{program}',
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == '[]\n'


class TestProcess:
    def test_a_child_is_alive_until_it_is_killed(self, sleeper):
        process = _module('process')
        found = process.Process.of(sleeper.pid)
        assert found.alive
        assert found.session() == [found]
        process.kill_all([found])
        assert not found.alive  # not even while it is a zombie
        assert found.session() == []

    def test_another_process_with_the_same_pid_is_left_alone(self, sleeper):
        process = _module('process')
        found = process.Process(sleeper.pid, process.Process.of(sleeper.pid).start_time - 1)
        assert not found.alive
        assert found.session() == []
        found.signal(signal.SIGKILL)
        process.stop_all([found], 1)
        assert sleeper.poll() is None

    def test_helpers_end_with_a_leader_that_was_killed(self):
        process = _module('process')
        leader = subprocess.Popen(
            ['sh', '-c', 'sleep 600 & echo; wait'], start_new_session=True, stdout=subprocess.PIPE
        )
        assert leader.stdout is not None
        leader.stdout.readline()
        found = process.Process.of(leader.pid)
        leader.kill()
        leader.wait()
        (helper,) = found.session()
        process.stop_all([found], 1)
        assert not helper.alive
        leader.stdout.close()

    def test_marks_are_compared_whole(self, tmp_path):
        process = _module('process')
        value = str(tmp_path)
        child = subprocess.Popen(['sleep', '600'], env={**os.environ, 'QCACHE_MARK': value})
        try:
            found = process.everything_marked
            mine = process.Process.of(child.pid)
            assert process.wait_for(lambda: found('QCACHE_MARK', value) == [mine], 600)
            assert found('QCACHE_MARK', value[:-1]) == []
        finally:
            child.kill()
            child.wait()

    def test_a_failure_shows_what_was_said(self):
        process = _module('process')
        with pytest.raises(process.StackError, match=r'(?s)status 3.*too bad'):
            process.run(['sh', '-c', 'echo too bad >&2; exit 3'], os.environ)


class TestTasks:
    def test_each_waits_for_what_it_needs(self):
        done = []

        def slowly():
            time.sleep(0.05)
            done.append('second')

        tasks = _module('tasks').Tasks(lambda text: None)
        tasks.add('third', lambda: done.append('third'), 'second', 'first')
        tasks.add('second', slowly, 'first')
        tasks.add('first', lambda: done.append('first'))
        tasks.run()
        assert done == ['first', 'second', 'third']

    def test_those_without_needs_run_at_a_time(self):
        both = threading.Barrier(2)
        tasks = _module('tasks').Tasks(lambda text: None)
        for name in ('one', 'other'):
            tasks.add(name, lambda: both.wait(600))
        tasks.run()

    def test_after_an_error_nothing_begins(self):
        process = _module('process')
        tasks = _module('tasks').Tasks(lambda text: None)

        def fail():
            raise process.StackError('no')

        begun = []
        tasks.add('bad', fail)
        tasks.add('next', lambda: begun.append(1), 'bad')
        with pytest.raises(process.StackError, match='no'):
            tasks.run()
        assert begun == []
        assert process.given_up.is_set()

    def test_who_asks_for_a_token_as_it_starts_waits_for_the_catalog(self):
        """Until then keystone knows nobody, and they end."""
        starter = mock.create_autospec(_module('up').Starter, instance=True)
        starter.services = starter.client = starter.ports = starter.passwords = mock.Mock()
        tasks = mock.create_autospec(_module('tasks').Tasks, instance=True)
        _module('up').Starter._control_tasks(starter, tasks)
        needs = {call.args[0]: call.args[2:] for call in tasks.add.call_args_list}
        for name in ('nova-conductor', 'nova-scheduler'):
            assert 'catalog' in needs[name]

    def test_a_need_that_nobody_fills_is_an_error(self):
        tasks = _module('tasks').Tasks(lambda text: None)
        tasks.add('one', lambda: None, 'other')
        with pytest.raises(ValueError, match='other'):
            tasks.run()


class TestIni:
    def test_text(self):
        ini = _module('ini')
        sections = ini.merge({'a': {'x': 1, 'y': True}}, {'a': {'x': '2'}, 'b': {'z': None}})
        assert ini.render(sections) == '[a]\nx = 2\ny = true\n\n[b]\nz = None\n'

    def test_a_file_has_its_mode_and_no_draft_is_left(self, tmp_path):
        path = tmp_path / 'folder' / 'a.conf'
        _module('ini').write(path, 'text', uid=os.getuid(), gid=os.getgid(), mode=0o640)
        assert path.read_text() == 'text'
        assert path.stat().st_mode & 0o777 == 0o640
        assert [each.name for each in path.parent.iterdir()] == ['a.conf']


class TestState:
    def test_no_file_is_no_stack(self, tmp_path):
        settings, state = _module('settings'), _module('state')
        assert state.State(settings.Layout(tmp_path)).read() == {}
        with pytest.raises(_module('process').StackError, match='no stack is up'):
            _module('stack').Stack.load(tmp_path)

    @pytest.mark.parametrize('text', ['{', '{"version": 0}'])
    def test_a_file_that_makes_no_sense_is_refused(self, tmp_path, text):
        settings, state = _module('settings'), _module('state')
        (tmp_path / 'state.json').write_text(text)
        with pytest.raises(_module('process').StackError):
            state.State(settings.Layout(tmp_path)).read()


class TestHost:
    @pytest.mark.parametrize(
        ('inside', 'outside'),
        [
            ('/var/lib/nova/instances/_base', 'nova/instances/_base'),
            ('/etc/nova/nova.conf', 'etc/nova/nova.conf'),
            ('/run', 'run'),
        ],
    )
    def test_paths_from_outside(self, tmp_path, inside, outside):
        host = _module('host').Host(_module('settings').Layout(tmp_path))
        assert host.outside(inside) == tmp_path / 'host1' / outside

    def test_a_path_that_is_not_its_own_is_the_machines(self, tmp_path):
        host = _module('host').Host(_module('settings').Layout(tmp_path))
        assert host.outside('/running/x') == pathlib.Path('/running/x')


class TestSettings:
    def test_ports_are_consecutive_and_each_has_one(self):
        ports = _module('settings').Ports(30000).all()
        assert list(ports.values()) == list(range(30000, 30000 + len(ports)))

    def test_surroundings_owe_nothing_to_the_caller(self, tmp_path, monkeypatch):
        settings = _module('settings')
        monkeypatch.setenv('http_proxy', 'http://nowhere')
        monkeypatch.setenv('PYTHONPATH', '/nowhere')
        environment = settings.environment(settings.Layout(tmp_path), '/home')
        assert not {'http_proxy', 'PYTHONPATH'} & set(environment)
        assert environment[settings.MARK] == str(tmp_path)

    @pytest.mark.parametrize('text', ['a=b', '.x=1', 'a.=1', 'a.b'])
    def test_a_setting_without_all_its_parts_is_refused(self, text, capsys):
        with pytest.raises(SystemExit):
            _module('cli').main(['--state', '/nowhere', 'up', '--set', text])
        assert 'SECTION.OPTION=VALUE' in capsys.readouterr().err
