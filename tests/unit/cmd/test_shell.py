# SPDX-License-Identifier: Apache-2.0
"""The program nova-qcache around its commands: options, configuration, errors, users, progress."""

import contextlib
import errno
import importlib
from importlib import metadata
import os
import pathlib
import pwd
import re
import shlex
import signal
import subprocess
import sys
from unittest import mock

from oslo_config import cfg
import pytest
import tqdm

from nova_qcache import exception
from nova_qcache.cache.view import CacheView
from nova_qcache.cmd import entry
from nova_qcache.cmd import shell
from nova_qcache.cmd import status
from tests.unit import builders
from tests.unit.builders import IMAGE


def test_the_manager_gets_the_configuration(run, manager_class, manager):
    manager.caches.return_value = []
    assert run('list').code == 0
    conf = manager_class.call_args.args[0]
    assert conf.qcache.quota == '16'


def test_the_last_configuration_file_counts(run, manager_class, manager, tmp_path):
    manager.caches.return_value = []
    other = tmp_path / 'other.conf'
    other.write_text('[qcache]\nquota = 99\n')
    assert run(f'--config-file={other}', 'list').code == 0
    assert manager_class.call_args.args[0].qcache.quota == '99'


def test_a_folder_of_configuration_files(run, manager_class, manager, tmp_path):
    manager.caches.return_value = []
    (tmp_path / 'x.conf').write_text('[qcache]\nquota = 98\n')
    assert run(f'--config-dir={tmp_path}', 'list').code == 0
    assert manager_class.call_args.args[0].qcache.quota == '98'


def test_a_configuration_file_that_is_not_there(run, manager_class, tmp_path):
    ended = run(f'--config-file={tmp_path / "gone"}', 'list')
    assert (ended.code, ended.out) == (1, '')
    assert str(tmp_path / 'gone') in ended.err
    assert 'Traceback' not in ended.err
    manager_class.assert_not_called()


@pytest.mark.parametrize('text', ['[qcache]\nquota = much\n', 'quota = 1\n', '[qcache\n'])
def test_a_configuration_file_that_cannot_be_read(run, tmp_path, text):
    broken = tmp_path / 'broken.conf'
    broken.write_text(text)
    ended = run(f'--config-file={broken}', 'list')
    assert (ended.code, ended.out) == (1, '')
    assert ended.err
    assert 'Traceback' not in ended.err


def test_a_configuration_that_makes_no_sense_is_one_line(run, short_folder):
    builders.config(short_folder, quota=0)
    ended = run('list')
    assert (ended.code, ended.out) == (1, '')
    assert ended.err == (
        'A quota of 0 bytes leaves no room for anything. Set [qcache] quota (MiB) to 1 or more.\n'
    )


def test_a_cache_folder_that_is_a_file_is_one_line(run, short_folder):
    (short_folder / 'cache').write_text('')
    ended = run('show', IMAGE)
    assert (ended.code, ended.out) == (1, '')
    assert ended.err.count('\n') == 1
    assert repr(str(short_folder / 'cache')) in ended.err
    assert 'Move it away or name another folder' in ended.err


def test_an_image_id_that_is_none_is_one_line(run):
    ended = run('show', '../x')
    assert (ended.code, ended.out) == (1, '')
    assert ended.err.count('\n') == 1
    assert "'../x' is not an image ID" in ended.err


def test_a_command_that_does_not_exist(run, manager_class):
    ended = run('frobnicate')
    assert (ended.code, ended.out) == (2, '')
    assert ended.err == (
        "nova-qcache has no command 'frobnicate'; which one do you mean? "
        '`nova-qcache --help` lists all.\n'
    )
    manager_class.assert_not_called()


def test_a_command_that_is_misspelt(run, manager_class):
    ended = run('lsit', '--help-me')
    assert (ended.code, ended.out) == (2, '')
    assert "no command 'lsit'; did you mean `nova-qcache list`? " in ended.err


@pytest.mark.parametrize(
    'code, stream, words',
    [
        (2, 'err', ['frobnicate']),
        (2, 'err', ['list', '--frobnicate']),
        (2, 'err', ['show']),
        (2, 'err', ['seal', IMAGE, '--timeout=soon']),
        (2, 'err', ['seal', IMAGE, '--timeout=-1']),
        (2, 'err', ['seal', IMAGE, '--timeout=0']),
        (2, 'err', ['seal', IMAGE, '--timeout=nan']),
        (2, 'err', ['seal', IMAGE, '--timeout=inf']),
        (1, 'err', ['list', '-c', 'Frobnication']),
        (1, 'err', ['help', 'frobnicate']),
        (1, 'err', ['show', 'frobnicate']),
    ],
)
def test_a_command_line_that_makes_no_sense_ends_as_the_manual_says(
    run, manager, code, stream, words
):
    manager.caches.return_value = []
    ended = run(*words)
    assert ended.code == code
    silent = {'out': ended.err, 'err': ended.out}[stream]
    assert (ended.out + ended.err).strip()
    assert silent == ''


def test_version_and_help(run):
    assert metadata.version('nova-qcache') in run('--version').out
    ended = run('--help')
    assert ended.code == 0
    for command in ('check', 'invalidate', 'list', 'plan', 'record', 'remove', 'seal', 'show'):
        assert command in ended.out


@pytest.mark.parametrize(
    ('error', 'said'),
    [
        (exception.InvalidImageId(image_id='x'), "'x' is not an image ID."),
        (cfg.Error('x'), 'x'),
        (PermissionError(1, 'y'), 'nova-qcache failed: y.'),
        (PermissionError(1, 'y', '/z'), "nova-qcache failed at '/z': y."),
    ],
)
def test_errors_of_the_way_in_are_one_line_too(root_logger, capsys, error, said):
    with mock.patch.object(shell.Shell, 'run', autospec=True, side_effect=error):
        assert shell.main([]) == 1
    out, err = capsys.readouterr()
    assert (out, err.count('\n')) == ('', 1)
    assert err.startswith(said)


@pytest.mark.parametrize('options', [[], ['--debug'], ['-v']])
def test_without_a_command(root_logger, capsys, options):
    with pytest.raises(SystemExit) as ended:
        shell.main(options)
    assert ended.value.code == 2
    said = 'nova-qcache needs a command. `nova-qcache --help` lists all.\n'
    assert capsys.readouterr() == ('', said)


@pytest.mark.parametrize('interrupted', ['command', 'constructor'])
def test_ctrl_c_is_one_line(run, manager, interrupted):
    manager.caches.side_effect = KeyboardInterrupt
    with contextlib.ExitStack() as stack:
        if interrupted == 'constructor':
            stack.enter_context(
                mock.patch.object(shell, 'Shell', autospec=True, side_effect=KeyboardInterrupt)
            )
        ended = run('list')
    assert (ended.code, ended.out) == (130, '')
    assert ended.err == 'Interrupted. What was started may go on; see `nova-qcache list`.\n'


@pytest.mark.parametrize(
    ('program', 'module'), [(entry.nova_qcache, shell), (entry.nova_qcache_status, status)]
)
def test_ctrl_c_before_main_is_ready(capsys, program, module):
    with mock.patch.object(module, 'main', autospec=True, side_effect=KeyboardInterrupt):
        assert program() in (130, 255)
    assert capsys.readouterr() == ('', 'Interrupted.\n')


@pytest.mark.parametrize(
    ('before', 'meanwhile'),
    [(signal.default_int_handler, signal.SIG_DFL), (signal.SIG_IGN, signal.SIG_IGN)],
)
def test_ctrl_c_while_modules_are_imported(monkeypatch, before, meanwhile):
    seen = []

    def main():
        seen.append(signal.getsignal(signal.SIGINT))
        return 0

    def load(name):
        main()
        return mock.Mock(main=main)

    former = signal.signal(signal.SIGINT, before)
    try:
        with mock.patch.object(importlib, 'import_module', autospec=True, side_effect=load):
            assert entry.nova_qcache() == 0
    finally:
        signal.signal(signal.SIGINT, former)
    assert seen == [meanwhile, before]


@pytest.mark.parametrize('path', ['/nowhere/x.log', '/'])
def test_a_log_file_that_cannot_be_written(run, manager_class, path):
    ended = run(f'--log-file={path}', 'list')
    assert (ended.code, ended.out) == (1, '')
    assert ended.err.startswith(f'The log file {path!r} cannot be used: ')
    assert ended.err.count('\n') == 1
    manager_class.assert_not_called()


def test_a_folder_in_the_place_of_a_configuration_file(run, manager_class, tmp_path):
    ended = run(f'--config-file={tmp_path}', 'list')
    assert (ended.code, ended.out, ended.err.count('\n')) == (1, '', 1)
    assert ended.err.startswith(f"The configuration file '{tmp_path}' cannot be used: Is a dir")
    manager_class.assert_not_called()


NAME = 'no\udcffutf-8'


def test_a_name_that_is_no_text_is_printed(run, manager):
    view = CacheView(builders.KEY, pathlib.Path(NAME), 'BROKEN', 0, 0, '')
    manager.caches.return_value = [view]
    ended = run('show', IMAGE)
    assert (ended.code, ended.err) == (0, '')
    assert '\\udcff' in ended.out


# -- as a process of its own: whose standard streams are not as usual


def process(short_folder, script):
    """Run a line of shell that calls ``$Q``, the program."""
    builders.config(short_folder)
    program = 'import sys; from nova_qcache.cmd import shell; sys.exit(shell.main())'
    file = short_folder / 'q'
    file.write_text(program)
    command = f'{sys.executable} -P {file} --config-file={short_folder}/nova.conf'
    root = pathlib.Path(__file__).parents[3]
    return subprocess.run(
        ['bash', '-c', f'set -o pipefail; Q="{command}"; {script}'],
        capture_output=True,
        text=True,
        env={**os.environ, 'PYTHONPATH': str(root)},
    )


@pytest.mark.parametrize(
    ('script', 'code', 'said'),
    [
        (
            '$Q list >&-',
            1,
            'Standard output is closed. Redirect it, for example to /dev/null.\n',
        ),
        ('$Q list >/dev/full', 1, 'Standard output cannot be written: No space left on device.\n'),
        ('exec 3> >(true); wait $!; $Q list >&3', 141, ''),
        ('$Q list 2>&- >/dev/null', 0, ''),
        ('$Q show nothing 2>&-', 1, ''),
        ('$Q list <&- >/dev/null', 0, ''),
    ],
)
def test_streams(short_folder, script, code, said):
    done = process(short_folder, script)
    assert (done.returncode, done.stdout, done.stderr) == (code, '', said)


class TestUser:
    """Root acts as the owner of the caches."""

    @pytest.fixture
    def calls(self):
        calls = mock.Mock()
        names = ('initgroups', 'setgroups', 'setgid', 'setuid')
        patches = [mock.patch.object(os, name, autospec=True) for name in names]
        for patch, name in zip(patches, names, strict=True):
            calls.attach_mock(patch.start(), name)
        yield calls
        for patch in patches:
            patch.stop()

    @pytest.fixture
    def owner(self):
        """Who the cache folder belongs to."""
        facts = os.stat_result((0o40711, 1, 1, 2, 64055, 64056, 0, 0, 0, 0))
        with mock.patch('pathlib.Path.stat', autospec=True, return_value=facts):
            yield facts

    def become(self, path, uid=0):
        with mock.patch.object(os, 'geteuid', autospec=True, return_value=uid):
            shell.become_owner(path)

    def test_an_owner_with_a_name(self, calls, owner, tmp_path):
        entry = pwd.struct_passwd(('nova', 'x', 64055, 64056, '', '/', '/bin/sh'))
        with mock.patch.object(pwd, 'getpwuid', autospec=True, return_value=entry):
            self.become(tmp_path)
        assert calls.mock_calls == [
            mock.call.initgroups('nova', 64056),
            mock.call.setgid(64056),
            mock.call.setuid(64055),
        ]

    def test_an_owner_without_a_name(self, calls, owner, tmp_path):
        with mock.patch.object(pwd, 'getpwuid', autospec=True, side_effect=KeyError):
            self.become(tmp_path)
        assert calls.mock_calls == [
            mock.call.setgroups([]),
            mock.call.setgid(64056),
            mock.call.setuid(64055),
        ]

    def test_others_stay_who_they_are(self, calls, owner, tmp_path):
        self.become(tmp_path, uid=1000)
        assert calls.mock_calls == []

    def test_without_a_folder_it_is_the_owner_of_where_it_is_going_to_be(self, calls, tmp_path):
        facts = os.stat_result((0o40711, 1, 1, 2, 64055, 64056, 0, 0, 0, 0))

        def stat(path, **_):
            if path != tmp_path:
                raise FileNotFoundError(errno.ENOENT, 'gone', str(path))
            return facts

        with (
            mock.patch('pathlib.Path.stat', stat),
            mock.patch.object(pwd, 'getpwuid', autospec=True, side_effect=KeyError),
        ):
            self.become(tmp_path / 'no' / 'folder')
        assert calls.mock_calls == [
            mock.call.setgroups([]),
            mock.call.setgid(64056),
            mock.call.setuid(64055),
        ]

    def test_a_folder_that_makes_no_sense(self, calls):
        self.become(pathlib.Path('here'))
        assert calls.mock_calls == []

    def test_root_s_own_folder(self, calls, tmp_path):
        facts = os.stat_result((0o40711, 1, 1, 2, 0, 0, 0, 0, 0, 0))
        with mock.patch('pathlib.Path.stat', autospec=True, return_value=facts):
            self.become(tmp_path)
        assert calls.mock_calls == []


class TestProgress:
    def test_programs_see_nothing(self, capsys):
        done = shell.progress('Reading', 10)
        done(4)
        done(6)
        assert capsys.readouterr() == ('', '')

    def test_people_see_a_bar_that_ends(self):
        with mock.patch.object(tqdm, 'tqdm', autospec=True) as bar:
            bar.return_value.n = 0

            def update(done):
                bar.return_value.n += done

            bar.return_value.update.side_effect = update
            done = shell.progress('Reading', 10)
            assert bar.call_args.kwargs['desc'] == 'Reading'
            assert bar.call_args.kwargs['total'] == 10
            assert bar.call_args.kwargs.get('file', sys.stderr) is sys.stderr
            done(4)
            bar.return_value.close.assert_not_called()
            done(6)
            bar.return_value.close.assert_called_once_with()


# -- help


COMMANDS = [
    *('check', 'invalidate', 'list', 'pin', 'plan', 'record', 'remove', 'seal', 'show', 'stats'),
    *('unpin', 'verify'),
]


@pytest.mark.parametrize('name', COMMANDS)
def test_each_command_has_examples_that_work(run, name, monkeypatch):
    monkeypatch.setenv('COLUMNS', '80')
    ended = run(name, '--help')
    assert (ended.code, ended.err) == (0, '')
    examples = re.findall(r'^  (nova-qcache .*)$', ended.out, re.MULTILINE)
    assert examples, ended.out
    program = shell.Shell()
    for example in examples:
        words = shlex.split(example)[1:]
        factory, found, rest = program.command_manager.find_command(words)
        assert found == name
        factory(program, None).get_parser(name).parse_args(rest)


def test_all_commands_are_looked_at():
    assert sorted(name for name, _ in shell.Shell().command_manager) == sorted(
        [*COMMANDS, 'complete', 'help']
    )


# -- what it takes


SLOW = {'prometheus_client', 'matplotlib', 'tqdm', 'oslo_log.log', 'keystoneauth1', 'qemu.qmp'}


def test_a_list_imports_what_it_needs(short_folder):
    """cliff imports all commands for each of them."""
    builders.config(short_folder)
    program = (
        'import sys; from nova_qcache.cmd import shell; shell.main(); '
        'print(*sorted(sys.modules), file=sys.stderr)'
    )
    root = pathlib.Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, '-P', '-c', program, f'--config-file={short_folder}/nova.conf', 'list'],
        capture_output=True,
        text=True,
        env={**os.environ, 'PYTHONPATH': str(root)},
    )
    assert 'nova_qcache.engine.manager' in done.stderr.split()
    assert SLOW.isdisjoint(done.stderr.split())
