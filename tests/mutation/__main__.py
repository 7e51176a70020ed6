# SPDX-License-Identifier: Apache-2.0
"""Run the mutants of modules that decide against their unit tests; ``tools/mutation.sh`` calls it.

Which modules, which tests, and which mutants are equivalent: ``modules.toml``.
"""

import argparse
from collections.abc import Iterator
import dataclasses
import json
import multiprocessing
import pathlib
import shutil
import signal
import sys
import tempfile
import time
import tomllib

from tests.mutation import trial
from tests.mutation.mutants import Mutant
from tests.mutation.mutants import mutants

ROOT = pathlib.Path(__file__).parents[2]
LEAST = 90
"""Percent of the mutants of each module that are to be killed."""
WORKERS = 2
_SAY_SECONDS = 15
_LEFT_OUT = ('.*', '__pycache__', '*.egg-info', 'build', 'dist', 'doc', 'releasenotes')


class Trouble(Exception):
    """The command cannot do its work."""


@dataclasses.dataclass(frozen=True)
class Module:
    name: str
    file: str
    tests: list[str]
    equivalent: list[dict[str, str]] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Score:
    module: Module
    mutants: int = 0
    killed: int = 0
    out_of_time: int = 0
    equivalent: int = 0
    survivors: list[Mutant] = dataclasses.field(default_factory=list)
    seconds: float = 0

    @property
    def percent(self) -> float:
        judged = self.killed + len(self.survivors)
        return 100 * self.killed / judged if judged else 100


def main() -> int:
    parser = argparse.ArgumentParser(prog='tools/mutation.sh', description=__doc__)
    parser.add_argument('names', metavar='MODULE', nargs='*', help='all of them by default')
    parser.add_argument('--list', action='store_true', help='only print the modules')
    parser.add_argument(
        '--survivors', action='store_true', help='leave out the mutants that were killed before'
    )
    parser.add_argument('--work', type=pathlib.Path, required=True, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    try:
        modules = _chosen(arguments.names)
        if arguments.list:
            print('\n'.join(f'{module.name:12} {module.file}' for module in modules))
            return 0
        arguments.work.mkdir(parents=True, exist_ok=True)
        scores = [_lookup(module, arguments.work, arguments.survivors) for module in modules]
    except Trouble as e:
        print(f'error: {e}', file=sys.stderr)
        return 2
    _print_table(scores)
    return 0 if all(score.percent >= LEAST for score in scores) else 1


def _chosen(names: list[str]) -> list[Module]:
    with (ROOT / 'tests/mutation/modules.toml').open('rb') as file:
        modules = [Module(**entry) for entry in tomllib.load(file)['module']]
    unknown = {*names} - {module.name for module in modules} - {module.file for module in modules}
    if unknown:
        raise Trouble(f'unknown module {sorted(unknown)[0]}; --list prints those that there are')
    return [module for module in modules if not names or {module.name, module.file} & {*names}]


def _lookup(module: Module, work: pathlib.Path, again: bool) -> Score:
    score = Score(module)
    found = mutants((ROOT / module.file).read_text(), module.file)
    equivalent = {(entry['place'], entry['was'], entry['becomes']) for entry in module.equivalent}
    gone = equivalent - {mutant.key for mutant in found}
    if gone:
        raise Trouble(f'{module.file} has no such mutant any more: {sorted(gone)[0]}')
    notes = work / f'{module.file.replace("/", "-")}.json'
    todo = [mutant for mutant in found if mutant.key not in equivalent]
    score.mutants, score.equivalent = len(found), len(found) - len(todo)
    killed: set[tuple[str, ...]] = set()
    if again and notes.exists():
        killed = {tuple(key) for key in json.loads(notes.read_text())}
        killed &= {mutant.key for mutant in todo}
        score.killed = len([mutant for mutant in todo if mutant.key in killed])
        todo = [mutant for mutant in todo if mutant.key not in killed]
    print(f'== {module.name}: {module.file}, {len(todo)} mutants', flush=True)
    began = said = time.monotonic()
    try:
        with tempfile.TemporaryDirectory(prefix='mutation-', dir=work) as folder:
            results = _results(module, todo, pathlib.Path(folder))
            for number, (mutant, result) in enumerate(results, 1):
                if time.monotonic() - said > _SAY_SECONDS:
                    said = time.monotonic()
                    print(f'   {number} of {len(todo)}', flush=True)
                if result.passed:
                    score.survivors.append(mutant)
                    print(
                        f'\nsurvived: {mutant.place or "(module level)"}\n{mutant.diff}',
                        flush=True,
                    )
                else:
                    killed.add(mutant.key)
                    score.killed += 1
                    score.out_of_time += not result.in_time
    finally:  # what was interrupted goes on with --survivors
        # Two lines of one function may be the same.
        killed -= {mutant.key for mutant in score.survivors}
        notes.write_text(json.dumps(sorted(killed)))
    score.seconds = time.monotonic() - began
    print(f'-- {module.name}: {score.percent:.1f} %, {score.seconds:.0f} s', flush=True)
    return score


def _results(
    module: Module, todo: list[Mutant], folder: pathlib.Path
) -> Iterator[tuple[Mutant, trial.Result]]:
    if not todo:
        return
    context = multiprocessing.get_context('fork')
    trees = context.SimpleQueue()
    for number in range(WORKERS):
        tree = folder / str(number)
        shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns(*_LEFT_OUT), symlinks=True)
        trees.put((tree, module))
    with context.Pool(WORKERS, _Worker.begin, (trees,)) as pool:
        yield from pool.imap_unordered(_Worker.try_mutant, todo)


class _Worker:
    """A process with a tree of its own."""

    tree: pathlib.Path
    module: Module
    seconds: int
    reached: dict[str, list[str]]
    trouble: str = ''

    @classmethod
    def begin(cls, trees) -> None:
        trial.end_with_what_runs()
        cls.tree, cls.module = trees.get()
        sys.dont_write_bytecode = False
        # Twice: the second time is without the imports, and with what Python and pytest compiled.
        path = cls.tree / cls.module.file
        first = trial.run(cls.tree, cls.module.tests, 600, 1200, watched=path)
        trial.preload(cls.tree)
        cls.reached = trial.reached(cls.tree)
        second = trial.run(cls.tree, cls.module.tests, 600, 1200)
        cls.seconds = 10 + 10 * int(second.seconds)
        if not (first.passed and second.passed):
            cls.trouble = f'tests fail without a mutant:\n{second.output}'
        # A compiled file counts as that of its source by the second of its time and its size.
        sys.dont_write_bytecode = True
        for compiled in (path.parent / '__pycache__').glob(f'{path.stem}.*'):
            compiled.unlink()

    @classmethod
    def try_mutant(cls, mutant: Mutant) -> tuple[Mutant, trial.Result]:
        if cls.trouble:
            raise Trouble(cls.trouble)
        tests, only = cls.module.tests, cls._who_enter(mutant)
        if only is not None:
            tests = [name for name in tests if any(each.startswith(f'{name}::') for each in only)]
            if not tests:
                return mutant, trial.Result(True, True, 0, 'no test enters the function')
        (cls.tree / cls.module.file).write_text(mutant.source)
        return mutant, trial.run(cls.tree, tests, cls.seconds, 600, only=only)

    @classmethod
    def _who_enter(cls, mutant: Mutant) -> set[str] | None:
        """Return the tests that enter the function of a mutant; None for one outside of all."""
        if mutant.is_outside:
            return None
        return set(cls.reached.get(mutant.place, ()))


def _print_table(scores: list[Score]) -> None:
    row = '{:12} {:32} {:>8} {:>7} {:>9} {:>9} {:>11} {:>7}'
    print()
    print(
        row.format(
            'module', 'file', 'mutants', 'killed', '(by time)', 'survived', 'equivalent', 'score'
        )
    )
    for score in scores:
        print(
            row.format(
                score.module.name,
                score.module.file,
                score.mutants,
                score.killed,
                score.out_of_time,
                len(score.survivors),
                score.equivalent,
                f'{score.percent:.1f} %',
            )
        )


if __name__ == '__main__':
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # it cleans up, as Ctrl-C does
    sys.exit(main())
