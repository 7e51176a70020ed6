# SPDX-License-Identifier: Apache-2.0
"""What the test command can run, and what beside what."""

from collections.abc import Iterator
import dataclasses
import os
import pathlib
import re

from run_tests.lanes import Part

__all__ = ['KINDS', 'Choice', 'chosen']

KINDS = ('lint', 'unit', 'functional', 'faults', 'openstack', 'lowest', 'bench')
"""Each but the faults, which run on another Debian, is an option of the command as well."""

_BESIDE = ('--numprocesses=2', '--dist=worksteal')
_SECOND_PORT_BASE = 22000
_SKIPPED_FOLDERS = {'.git', '.tox', '.venv', 'build', 'dist', '__pycache__'}
_LARGE_BYTES = 256 * 1024


@dataclasses.dataclass(frozen=True)
class Choice:
    """What is to be run, and where."""

    root: pathlib.Path
    """The checkout, which is the current folder as well."""
    work: pathlib.Path
    """With the virtual environments ``venv-...``."""
    stack: pathlib.Path
    """The state folder of tools/openstack.sh; of the second stack, with ``-2`` at its end."""
    up: frozenset[pathlib.Path]
    """State folders of stacks that somebody else has brought up, and keeps."""
    reports: pathlib.Path
    kinds: frozenset[str]
    novas: tuple[str, ...]
    """Versions of Nova that the driver's unit tests run with."""
    core: bool
    """Only the functional and OpenStack tests that are marked so."""
    workers: int
    """Functional tests at a time."""
    seed: int | None
    """Only the random tests, for longer, beginning with this seed."""
    arguments: tuple[str, ...] = ()
    """More of pytest's."""

    def tool(self, name: str) -> str:
        return str(self.work / 'venv-test' / 'bin' / name)


def chosen(choice: Choice) -> list[list[Part]]:
    """Return the lanes to run: two that take about as long, with about a processor each."""
    first: list[Part] = []
    second: list[Part] = []
    for kind in KINDS:
        if kind not in choice.kinds:
            continue
        if kind == 'openstack':
            first += _openstack(choice)
            second += [] if choice.core else _second_openstack(choice)
        elif kind == 'lowest':
            first.append(_lowest_versions(choice))
        elif kind == 'bench':
            # The one is judged by bytes, the other by nothing: they may run beside others.
            first.append(_benchmarks(choice))
            second.append(_demonstration(choice))
        else:
            second += _ordinary(choice, kind)
    return [lane for lane in (first, second) if lane]


def _ordinary(choice: Choice, kind: str) -> Iterator[Part]:
    if kind == 'lint':
        yield from _lint(choice)
    elif kind == 'unit':
        yield from _unit(choice)
    elif kind == 'functional':
        yield from _functional(choice)
    elif kind == 'faults':
        more = {'PYTHON': choice.tool('python')}
        yield Part('15 faults', ['bench/faults.sh', '15', '--seed', '13'], more)


def _lowest_versions(choice: Choice) -> Part:
    # The benchmarks are run from a checkout, with what is current. Random tests look for the
    # project's own faults: once is enough.
    return _pytest(
        choice,
        'unit tests, lowest versions',
        choice.work / 'venv-lowest',
        'tests/unit',
        '--ignore=tests/unit/virt',
        '--ignore=tests/unit/bench',
        '-m',
        'not hypothesis and not random',
        *_BESIDE,
    )


def _pytest(choice: Choice, name: str, venv: pathlib.Path, *arguments: str) -> Part:
    report = choice.reports / f'{name.replace(" ", "-").replace(",", "")}.xml'
    command = [str(venv / 'bin' / 'python'), '-m', 'pytest', f'--junitxml={report}', *arguments]
    more = {'PATH': f'{venv}/bin:{os.environ["PATH"]}'}
    if choice.seed is not None:
        more['QCACHE_SEED'] = str(choice.seed)
        command += ['-m', 'hypothesis or random']
    return Part(name, [*command, *choice.arguments], more, report)


def _lint(choice: Choice) -> Iterator[Part]:
    tool = choice.tool
    pages, scripts = list(_pages(choice.root)), list(_scripts(choice.root))
    yield Part('ruff check', [tool('ruff'), 'check', '.'])
    yield Part('ruff format', [tool('ruff'), 'format', '--check', '.'])
    yield Part('hacking', [tool('flake8'), '.'])
    yield Part('import-linter', [tool('lint-imports'), '--no-cache', '--no-logo'])
    yield Part('codespell', [tool('codespell'), '.'])
    yield Part('doc8', [tool('doc8'), *pages])
    yield Part('bashate', [tool('bashate'), '--ignore', 'E006', *scripts])
    yield Part('shellcheck', ['shellcheck', '--external-sources', *scripts])
    yield Part('mypy', [tool('mypy')])
    yield Part('reno lint', [tool('reno'), 'lint'])
    for name, source in (('manual', 'doc/source'), ('release notes', 'releasenotes/source')):
        target = str(choice.reports / name.replace(' ', '-'))
        options = ['-q', '-a', '-E', '-W', '--keep-going', '-d', f'{target}-trees', '-b', 'html']
        yield Part(name, [tool('python'), '-m', 'sphinx', *options, source, target])


def _files(root: pathlib.Path) -> Iterator[pathlib.Path]:
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(
            name
            for name in folders
            if name not in _SKIPPED_FOLDERS and not name.endswith(('_cache', '.egg-info'))
        )
        for name in sorted(names):
            yield pathlib.Path(folder, name).relative_to(root)


def _pages(root: pathlib.Path) -> Iterator[str]:
    return (str(path) for path in _files(root) if path.suffix == '.rst')


def _scripts(root: pathlib.Path) -> Iterator[str]:
    """Find the shell's scripts, by their name or their first line."""
    for path in _files(root):
        file = root / path
        if path.suffix == '.sh':
            yield str(path)
        elif path.suffix == '' and file.is_file() and file.stat().st_size < _LARGE_BYTES:
            with file.open('rb') as stream:
                first = stream.readline(80)
            if re.match(rb'#!.*[/ ](ba|da)?sh(\s|$)', first):
                yield str(path)


def _unit(choice: Choice) -> Iterator[Part]:
    yield _pytest(
        choice,
        'unit tests',
        choice.work / 'venv-test',
        'tests/unit',
        '--ignore=tests/unit/virt',
        *_BESIDE,
    )
    for version in choice.novas:
        # Nova's own deprecations are none of ours, and it runs in no worker of xdist.
        yield _pytest(
            choice,
            f'unit tests, Nova {version}',
            choice.work / f'venv-nova-{version}',
            'tests/unit/virt',
            '--disable-warnings',
        )


def _core(choice: Choice) -> list[str]:
    return ['-m', 'core'] if choice.core else []


def _functional(choice: Choice) -> Iterator[Part]:
    yield _pytest(
        choice,
        'functional tests',
        choice.work / 'venv-test',
        'tests/functional',
        f'--numprocesses={choice.workers}',
        '--dist=worksteal',
        '--max-worker-restart=2',
        *_core(choice),
    )


def _openstack(choice: Choice) -> Iterator[Part]:
    marks = 'core' if choice.core else 'not options'
    return _stack(choice, 'OpenStack', choice.stack, [], marks)


def _second_openstack(choice: Choice) -> Iterator[Part]:
    """Tests that want other options of nova-compute than most have a stack of their own."""
    folder = choice.stack.with_name(f'{choice.stack.name}-2')
    ports = [f'--port-base={_SECOND_PORT_BASE}']
    return _stack(choice, 'second OpenStack', folder, ports, 'options')


def _stack(
    choice: Choice, name: str, folder: pathlib.Path, options: list[str], marks: str
) -> Iterator[Part]:
    """The stack, and the tests that run on it with the Python that it brought."""
    command = ['tools/openstack.sh', '--state', str(folder)]
    yield Part(f'{name} up', [*command, 'up', *options])
    part = _pytest(
        choice,
        f'tests on {name}',
        folder / 'venv',
        'tests/openstack',
        '--verbose',
        '--disable-warnings',
        '-m',
        marks,
    )
    more = {'QCACHE_OPENSTACK': str(folder), 'QCACHE_WORK': str(choice.work)}
    yield dataclasses.replace(part, environment={**part.environment, **more})
    if folder not in choice.up:
        yield Part(f'{name} down', [*command, 'down'], undoes=True)


def _benchmarks(choice: Choice) -> Part:
    more = {'PYTHON': choice.tool('python'), 'QCACHE_WORK': str(choice.work)}
    return Part('benchmarks, a short run', ['bench/run.sh', '--smoke'], more)


def _demonstration(choice: Choice) -> Part:
    return Part('demonstration', ['tools/demo.sh'], {'QCACHE_WORK': str(choice.work)})
