# SPDX-License-Identifier: Apache-2.0
"""The end of ``tools/test.sh``: run what was chosen, and say how it went."""

import argparse
from collections.abc import Sequence
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

from run_tests import lanes
from run_tests import parts
from run_tests import report


def main(arguments: Sequence[str]) -> int:
    options = _parse(arguments)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupted)
    logs = options.work / 'logs'
    shutil.rmtree(logs, ignore_errors=True)
    logs.mkdir(parents=True)
    began = time.monotonic() - options.seconds

    def say(text: str) -> None:
        print(f'{time.monotonic() - began:5.0f} s  {text}', flush=True)

    with tempfile.TemporaryDirectory(prefix='reports.', dir=options.work) as folder:
        chosen = parts.chosen(_choice(options, pathlib.Path(folder)))
        try:
            results = lanes.run(chosen, logs, say)
        except KeyboardInterrupt:
            return 130
        return _summarise([part for lane in chosen for part in lane], results, options)


def _interrupted(number: int, frame: object) -> None:
    """Turn the first signal into an exception, and ignore others while all is undone."""
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)
    raise KeyboardInterrupt


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    """tools/test.sh has read the options of its user, and says here what they mean."""
    parser = argparse.ArgumentParser(prog='run_tests')
    parser.add_argument('--work', type=pathlib.Path, required=True)
    parser.add_argument('--stack', type=pathlib.Path, required=True)
    parser.add_argument('--seconds', type=int, default=0, help='what installing has taken')
    parser.add_argument('--kind', action='append', choices=parts.KINDS, required=True)
    parser.add_argument('--nova', action='append', default=[])
    parser.add_argument('--core', action='store_true')
    parser.add_argument('--workers', type=int, required=True)
    parser.add_argument('--seed', type=int)
    parser.add_argument('arguments', nargs='*', help="pytest's own, after --")
    return parser.parse_args(arguments)


def _choice(options: argparse.Namespace, reports: pathlib.Path) -> parts.Choice:
    stacks = [options.stack, options.stack.with_name(f'{options.stack.name}-2')]
    up = [each for each in stacks if 'openstack' in options.kind and _is_up(each)]
    return parts.Choice(
        root=pathlib.Path.cwd(),
        work=options.work,
        stack=options.stack,
        up=frozenset(up),
        reports=reports,
        kinds=frozenset(options.kind),
        novas=tuple(options.nova),
        core=options.core,
        workers=options.workers,
        seed=options.seed,
        arguments=tuple(options.arguments),
    )


def _is_up(stack: pathlib.Path) -> bool:
    command = ['tools/openstack.sh', '--state', str(stack), 'status']
    return subprocess.run(command, capture_output=True, timeout=120).returncode == 0


def _summarise(
    wanted: Sequence[lanes.Part], results: Sequence[lanes.Result], options: argparse.Namespace
) -> int:
    """Print how each part went, the slowest tests and all totals; return the exit code.

    The last line is ``N passed, N failed, N skipped``.
    """
    by_name = {result.part.name: result for result in results}
    failed = False
    total = report.Totals()
    print('\n== Parts')
    for part in wanted:
        result = by_name.get(part.name)
        code, seconds = (result.code, result.seconds) if result else (1, 0.0)
        words = ''
        if part.report is not None:
            totals, complaint = report.judge(code, part.report)
            total.add(totals)
            words = f'{totals}' + (f' ({complaint})' if complaint else '')
            code = code or totals.failed
        failed = failed or code != 0
        log = f' log: {result.log}' if result and code else ''
        print(f'{"FAILED" if code else "ok":<7} {part.name:<28}{seconds:6.0f} s  {words}{log}')
    reports = [part.report for part in wanted if part.report]
    if reports:
        print('\n== The ten slowest tests')
    for test in report.slowest(reports):
        print(f'{test.seconds:6.1f} s  {test.name}')
    if options.seed is not None:
        print(f'\nSeed {options.seed}; to repeat: tools/test.sh --explore {options.seed}')
    print(f'\n{total}')
    return 1 if failed or total.failed else 0


if __name__ == '__main__':
    os.environ.pop('PYTHONPATH', None)  # it was for this program alone
    os.chdir(pathlib.Path(__file__).resolve().parents[2])
    sys.exit(main(sys.argv[1:]))
