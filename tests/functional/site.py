# SPDX-License-Identifier: Apache-2.0
"""One host of one test: its folders and configuration, and the product run as an ordinary user."""

from collections.abc import Iterator, Sequence
import contextlib
import json
import os
import pathlib
import signal
import subprocess
from typing import Any
import uuid

import psutil

from nova_qcache import exception
from nova_qcache.system import control
from nova_qcache.system import processes
from tests.functional import account
from tests.functional import installation
from tests.functional import users
from tests.functional import waiting

__all__ = ['MANAGER', 'MIB', 'NEVER', 'Site', 'dismiss']

MIB = 1024 * 1024
NEVER = 3600
"""Seconds of a timer of the product that ends nothing while a test runs, on however slow a
machine. A test that is about a timer sets that one, and waits for what comes of it."""

MANAGER = """
import dataclasses, json, sys, threading
from oslo_config import cfg
from nova_qcache import conf as qcache_conf
from nova_qcache.engine.manager import Manager
from nova_qcache.model.plan import Boot
conf = cfg.ConfigOpts()
qcache_conf.register_opts(conf)
conf(['--config-file', sys.argv[1]], project='nova')
manager = Manager(conf)
"""
"""The beginning of a program, which gets a ``manager`` as nova-compute has one. Its first argument
is the configuration."""

_PLAN = """
plan = manager.boots.plan(Boot(*json.loads(sys.argv[2])))
manager.boots.count(plan)
said = {**dataclasses.asdict(plan), 'kind': plan.kind.value}
print(json.dumps({**said, 'cause': plan.cause and plan.cause.value}))
"""


class Site:
    def __init__(self, book: account.Account, product: installation.Installation) -> None:
        self.account = book
        self.folder = book.folder
        self.image_id = str(uuid.uuid4())
        self.cache_path = self.folder / 'cache'
        self.run_path = self.folder / 'run'
        self.config = self.folder / 'qcache.conf'
        self.environment = {
            'PATH': f'{os.path.dirname(product.python)}:/usr/sbin:/usr/bin:/sbin:/bin',
            'HOME': str(self.folder),
            'LC_ALL': 'C.UTF-8',
            account.VARIABLE: str(self.folder),
        }
        self.use(product)
        self._options: dict[str, object] = {
            'cache_path': self.cache_path,
            'run_path': self.run_path,
            'quota': 64,
            'min_free': 0,  # tests fill small disks
            'recording_idle_seconds': NEVER,
            'recording_settle_seconds': NEVER,
            'recording_max_seconds': NEVER,
            'guest_grace_seconds': NEVER,
            'plan_lease_seconds': NEVER,
            'base_reconnect_seconds': NEVER,
            'start_timeout_seconds': int(waiting.PATIENCE),
            'lock_timeout_seconds': int(waiting.PATIENCE),
            'start_keeper': False,  # most kill something and look at what is left of it
            'qemu_group': users.QEMU_GROUP,
            'libvirt_uri': '',  # guests here are nobody's but the test's
            'instances_path': self.folder / 'instances',
        }
        self.bases = self.make_folder('bases')
        self.make_folder('cache')
        self.make_folder('run')
        self.make_folder('instances')
        self.configure()
        book.farewells.append(self.dismiss)

    def use(self, product: installation.Installation) -> None:
        """Run this installation of the product from now on."""
        self.environment.pop('PYTHONPATH', None)
        self.environment |= product.environment
        self.product = product

    # -- surroundings

    def make_folder(self, name: str, user: users.User = users.PRODUCT) -> pathlib.Path:
        path = self.folder / name
        path.mkdir()
        # 0711, as the product makes those that it makes itself
        path.chmod(0o711)
        os.chown(path, user.uid, user.gid)
        return path

    def configure(self, **options: object) -> None:
        """Change options of the configuration file; the others keep their values."""
        self._options.update(options)
        lines = [f'{name} = {value}\n' for name, value in self._options.items()]
        self.config.write_text(''.join(['[qcache]\n', *lines]))

    def mount(self, where: pathlib.Path, *arguments: str, user: users.User | None = None) -> None:
        """Mount something until the end of the test.

        :param user: who gets the root of what is mounted
        """
        subprocess.run(['mount', *arguments, str(where)], check=True, capture_output=True)
        self.account.surroundings.callback(
            subprocess.run, ['umount', str(where)], check=True, capture_output=True
        )
        if user is not None:
            os.chown(where, user.uid, user.gid)
            where.chmod(0o711)

    def bindfs(self, source: pathlib.Path, where: pathlib.Path) -> None:
        """Show a folder at a second place, through FUSE."""
        server = subprocess.Popen(
            ['bindfs', '-f', str(source), str(where)], env=self.environment, umask=0
        )
        self.account.is_server(server.pid)

        def end() -> None:
            subprocess.run(['umount', str(where)], check=True, capture_output=True)
            # By itself it would also wait for mount namespaces that have a copy of the mount.
            server.terminate()
            server.wait(waiting.PATIENCE)

        waiting.until(lambda: os.path.ismount(where), 'bindfs')
        self.account.surroundings.callback(end)

    def program(self, name: str, text: str) -> pathlib.Path:
        """Write a program that the configuration can name in place of one of qemu's."""
        path = self.folder / name
        path.write_text(text)
        path.chmod(0o755)
        return path

    # -- the product

    def start(self, command: Sequence[str], **more: Any) -> 'subprocess.Popen[str]':
        """Start something as the product's user; the caller ends it."""
        arguments = {
            'stdin': subprocess.DEVNULL,
            'stdout': subprocess.PIPE,
            'stderr': subprocess.PIPE,
            'env': self.environment,
            'cwd': '/',
            'text': True,
            **users.PRODUCT.arguments(),
            **more,
        }
        return _Process(command, **arguments)

    def run(
        self,
        command: Sequence[str],
        user: users.User = users.PRODUCT,
        seconds: float = waiting.PATIENCE,
    ) -> 'subprocess.CompletedProcess[str]':
        """Run something as an ordinary user, to its end."""
        with self.start(command, **user.arguments()) as process:
            stdout, stderr = process.communicate(timeout=seconds)
        return subprocess.CompletedProcess(command, process.returncode, stdout, stderr)

    def command(self, *arguments: str) -> list[str]:
        """Return the command line of nova-qcache with this site's configuration."""
        program = self.product.scripts / 'nova-qcache'
        return [str(program), f'--config-file={self.config}', *arguments]

    def recorder_command(self, *arguments: str) -> list[str]:
        program = self.product.scripts / 'nova-qcache-recorder'
        return [str(program), f'--config-file={self.config}', *arguments]

    def qcache(self, *arguments: str) -> 'subprocess.CompletedProcess[str]':
        """Run nova-qcache, whatever comes of it."""
        command = self.command(*arguments)
        if not self._is_as_installed:
            return self.run(command)
        assert self.product.commands is not None
        return self.product.commands.run(command, users.PRODUCT, self.environment)

    def python(self, program: str, *arguments: str) -> 'subprocess.CompletedProcess[str]':
        """Run a program with the modules of the product, as its user."""
        if not self._is_as_installed:
            return self.run([self.product.python, '-c', program, *arguments])
        assert self.product.commands is not None
        return self.product.commands.run(
            ['-c', *arguments], users.PRODUCT, self.environment, program
        )

    def manage(self, code: str, *arguments: str) -> 'subprocess.CompletedProcess[str]':
        """Run some lines after those of :data:`MANAGER`, which must succeed."""
        done = self.python(MANAGER + code, str(self.config), *arguments)
        assert done.returncode == 0, done
        return done

    @property
    def _is_as_installed(self) -> bool:
        """Whether its modules are those that were imported beforehand."""
        path = self.product.environment.get('PYTHONPATH')
        return self.product.commands is not None and self.environment.get('PYTHONPATH') == path

    def ask(self, *arguments: str, warnings: int = 0) -> Any:
        """Run nova-qcache, which must succeed, and return what it says in JSON.

        :param warnings: how many lines it may have to say beside that
        """
        done = self.qcache(*arguments, '-f', 'json')
        assert done.returncode == 0, done
        assert len(done.stderr.splitlines()) == warnings, done
        return json.loads(done.stdout)

    def record(self, base: object, base_format: str = 'raw', *more: str) -> dict[str, Any]:
        """Start the recorder of the site's image and return what it says of itself."""
        answer: dict[str, Any] = self.ask(
            'record', self.image_id, f'--base={base}', f'--base-format={base_format}', *more
        )
        return answer

    def plan(self, base: object, base_format: str = 'raw') -> dict[str, Any]:
        """Return the plan that the command line shows; it starts nothing."""
        answer: dict[str, Any] = self.ask(
            'plan', self.image_id, f'--base={base}', f'--base-format={base_format}'
        )
        return answer

    def boot_plan(
        self, base: object, base_format: str = 'raw', *, before: str = ''
    ) -> dict[str, Any]:
        """Return the plan of a boot, which never fails, may start a recorder, and counts.

        :param before: a line of Python that runs before
        """
        arguments = json.dumps([self.image_id, str(base), base_format])
        answer: dict[str, Any] = json.loads(self.manage(f'{before}\n{_PLAN}', arguments).stdout)
        return answer

    def show(self) -> dict[str, Any]:
        answer: dict[str, Any] = self.ask('show', self.image_id)
        return answer

    def wait_for_state(self, state: str) -> dict[str, Any]:
        """Wait until the cache of the site's image is in that state."""

        def look() -> dict[str, Any]:
            shown = self.show()
            return shown if shown['state'] == state else {}

        return waiting.until(look, f'state {state} of the cache')

    def wait_until_cold(self) -> None:
        """Wait until nothing of the site's image is left: no file and no recorder."""

        def look() -> bool:
            return not self.files() and not self.recorders()

        waiting.until(look, 'the end of the recording')

    def files(self) -> list[pathlib.Path]:
        """Return the records and cache files of the site."""
        return sorted(path for path in self.cache_path.iterdir() if path.is_file())

    def recorders(self) -> list[psutil.Process]:
        """Return the living processes of the product that outlive their caller."""
        return self.running('nova_qcache.cmd.recorder', 'qemu-storage-daemon')

    def recorder(self) -> control.Status:
        """Return what the only recorder of the site says of itself."""
        (path,) = (self.run_path / 'control').glob('*.ctl')
        return control.RecorderClient(path, waiting.PATIENCE).status()

    def drop(self) -> None:
        """Tell the only recorder of the site to drop its recording."""
        (path,) = (self.run_path / 'control').glob('*.ctl')
        control.RecorderClient(path, waiting.PATIENCE).drop()

    def wait_until_seen(self) -> None:
        """Wait until the only recorder has seen its guests, and that they have read something."""
        waiting.until(lambda: self.recorder().recorded_bytes, 'a look of the recorder')

    def dismiss(self) -> None:
        """Tell the recorders that no more guests come: each leaves once it has none."""
        dismiss(self.run_path)

    def see_off(self) -> None:
        """Dismiss the recorders, and wait until the last one has left."""

        def look() -> bool:
            self.dismiss()
            return not self.recorders()

        waiting.until(look, 'the end of the recorders')

    def end_keeper(self) -> None:
        """End the keeper, which would wait for more, once no recorder would start another."""
        self.see_off()
        for keeper in self.running('nova_qcache.cmd.keeper'):
            with contextlib.suppress(psutil.NoSuchProcess):  # it had nothing to do any more
                keeper.send_signal(signal.SIGTERM)

    def daemons(self) -> list[psutil.Process]:
        return self.running('qemu-storage-daemon')

    def running(self, *programs: str) -> list[psutil.Process]:
        """Return the site's living processes of some programs."""
        found = []
        for process in account.processes_of(self.folder):
            with contextlib.suppress(psutil.NoSuchProcess):
                if any(word.endswith(programs) for word in process.cmdline()[:3]):
                    found.append(process)
        return found

    def kill(self, pid: int) -> None:
        """kill -9, and wait until it is gone with all its threads: what it had open is closed.

        :raises ProcessLookupError: if there is no such process
        """
        process = processes.Process(pid)
        try:
            process.signal(signal.SIGKILL)
            assert process.has_ended(waiting.PATIENCE), f'process {pid} does not end'
        finally:
            process.close()

    @contextlib.contextmanager
    def suspended(self, pid: int) -> Iterator[None]:
        """Stop a process for a while."""
        process = psutil.Process(pid)
        process.suspend()
        try:
            yield
        finally:
            process.resume()


class _Process(subprocess.Popen[str]):
    """One that is killed where the test fails within its ``with``: else it would be waited for."""

    def __exit__(self, kind: Any, *more: Any) -> None:
        if kind is not None:
            self.kill()
        super().__exit__(kind, *more)


def dismiss(run_path: pathlib.Path) -> None:
    """Tell the recorders of a host that no more guests come: each leaves once it has none."""
    for path in sorted((run_path / 'control').glob('*.ctl')):
        with contextlib.suppress(exception.RecorderUnreachable):
            control.RecorderClient(path).dismiss()
