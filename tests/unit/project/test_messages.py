# SPDX-License-Identifier: Apache-2.0
"""The page with the messages for operators has all that the sources can say, and nothing else.

Sentences are taken from the syntax trees of the sources without importing anything: what is logged
as a warning or worse, the templates of errors, and why a boot is plain. The page has them in
tables, one sentence in the first cell of each row, with words in capitals for what is filled in.
"""

import ast
from collections.abc import Iterator
import dataclasses
import pathlib
import re
import textwrap

import pytest

ROOT = pathlib.Path(__file__).parents[3]
PAGE = 'doc/source/admin/messages.rst'

ROW = re.compile(r'^   \* - ``(.+?)``$', re.MULTILINE | re.DOTALL)
"""A row whose first cell is a literal; it may go on in the next lines."""

LOGGED = ('warning', 'error', 'exception', 'critical')
QUIET = ('INFO', 'DEBUG')
HOLE = '\0'
QUOTED_HOLE = '\1'
"""Between quotation marks in what is printed, as by %r."""
BARE = HOLE
"""What is nothing but a hole: the sentence of an error, which is in the page on its own."""

PERCENT = re.compile(r'%[-0-9.]*([a-z])')
BRACES = re.compile(r'\{[^{}!:]*(!r)?[^{}]*\}')

REASONS = {
    'nova_qcache/engine/admission.py': ('refusal',),
    'nova_qcache/engine/boots.py': ('_leased',),
    'nova_qcache/system/confinement.py': ('_of_apparmor', '_of_selinux'),
    'nova_qcache/engine/lookup.py': ('_result_for', '_playing', '_without_a_cache'),
    'nova_qcache/system/process_survival.py': ('problem',),
    'nova_qcache/virt/eligibility.py': ('_refusal', 'boot', 'refusal_of'),
}
"""The functions that say why a boot is plain, or why nothing can be recorded."""
NOT_PLAIN = {'the cache is being recorded', 'no cache yet', 'the cache is ready'}
"""What they say of other boots."""


@dataclasses.dataclass(frozen=True)
class Source:
    path: str
    text: str

    def tree(self) -> ast.Module:
        return ast.parse(self.text, self.path)


def sources() -> list[Source]:
    files = sorted((ROOT / 'nova_qcache').rglob('*.py'))
    return [Source(str(path.relative_to(ROOT)), path.read_text()) for path in files]


# -- what the sources can say


def text_of(node: ast.AST | None) -> str | None:
    """Return a text of the sources with holes, None for what is no text."""
    match node:
        case ast.Constant(value=str() as text):
            return text
        case ast.JoinedStr(values=values):
            return ''.join(_part(value) for value in values)
    return None


def _part(value: ast.expr) -> str:
    if isinstance(value, ast.FormattedValue):
        return QUOTED_HOLE if value.conversion == ord('r') else HOLE
    assert isinstance(value, ast.Constant)
    return str(value.value)


def logged(source: Source) -> Iterator[str]:
    """Yield the format of each call that logs at WARNING or above, or may do so."""
    for node in ast.walk(source.tree()):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        if not isinstance(node.func.value, ast.Name) or node.func.value.id != 'LOG':
            continue
        arguments = list(node.args)
        if node.func.attr == 'log':
            level = arguments.pop(0)
            if isinstance(level, ast.Attribute) and level.attr in QUIET:
                continue
        elif node.func.attr not in LOGGED:
            continue
        text = text_of(arguments[0])
        assert text is not None, f'{source.path}:{node.lineno}: a message that no test can read'
        yield PERCENT.sub(lambda match: QUOTED_HOLE if match[1] == 'r' else HOLE, text)


def templates(source: Source) -> Iterator[str]:
    """Yield the templates of errors."""
    if source.path != 'nova_qcache/exception.py':
        return
    for node in ast.walk(source.tree()):
        match node:
            case ast.Assign(targets=[ast.Name(id='template')], value=value):
                text = text_of(value)
                assert text is not None, ast.dump(value)
                yield BRACES.sub(lambda match: QUOTED_HOLE if match[1] else HOLE, text)


def reasons(source: Source) -> Iterator[str]:
    """Yield why boots are plain, or nothing is recorded."""
    for node in ast.walk(source.tree()):
        if isinstance(node, ast.FunctionDef) and node.name in REASONS.get(source.path, ()):
            said = [text for each in ast.walk(node) for text in _reasons_in(each)]
            assert said, f'{source.path}: {node.name}() says nothing any more'
            yield from (text for text in said if text not in NOT_PLAIN)


def _reasons_in(node: ast.AST) -> Iterator[str]:
    found: list[ast.AST | None] = []
    match node:
        case ast.Return(value=value):
            found = [value]
        case ast.Assign(targets=[ast.Name(id='reason')], value=value):
            found = [value]
        case ast.Call(func=ast.Name(id='Refusal') | ast.Attribute(attr='Refusal'), args=arguments):
            found = list(arguments)
        case ast.Call(func=ast.Name(id='_plain' | '_needs_revalidation'), args=arguments):
            found = list(arguments)
        case ast.Call(keywords=keywords):
            found = [each.value for each in keywords if each.arg == 'reason']
    yield from (text for text in map(text_of, found) if text)


def sayings(all_sources: list[Source]) -> set[str]:
    return {
        ' '.join(text.split())
        for source in all_sources
        for kind in (logged, templates, reasons)
        for text in kind(source)
        if text != BARE
    }


# -- what the page has


def rows(page: str) -> list[str]:
    return [' '.join(match.split()) for match in ROW.findall(page)]


def pattern(saying: str) -> re.Pattern[str]:
    """Return what matches a row with words in capitals in place of what is filled in."""
    text = re.escape(saying)
    text = text.replace(re.escape(QUOTED_HOLE), "'[A-Z]+'").replace(re.escape(HOLE), '[A-Z]+')
    return re.compile(text)


def missing(said: set[str], page: str) -> list[str]:
    there = rows(page)
    return sorted(
        saying for saying in said if not any(pattern(saying).fullmatch(row) for row in there)
    )


def unknown(said: set[str], page: str) -> list[str]:
    patterns = [pattern(saying) for saying in said]
    return [row for row in rows(page) if not any(each.fullmatch(row) for each in patterns)]


def test_all_that_can_be_said_is_in_the_page() -> None:
    assert missing(sayings(sources()), (ROOT / PAGE).read_text()) == []


def test_the_page_has_nothing_that_is_never_said() -> None:
    assert unknown(sayings(sources()), (ROOT / PAGE).read_text()) == []


def test_no_row_is_there_twice() -> None:
    there = rows((ROOT / PAGE).read_text())
    assert sorted(set(there)) == sorted(there)


# -- the proof that all of this can fail


def _planted(path: str, text: str) -> set[str]:
    return sayings([Source(path, textwrap.dedent(text))])


PAGE_OF_ONE = """
.. list-table::

   * - message
     - meaning
   * - ``The cache of IMAGE is
       gone: REASON``
     - ``THIS`` is no message.
"""
LOGS_IT = "LOG.warning('The cache of %s is gone: %s', key, e)"


def test_a_message_over_two_lines_is_found() -> None:
    said = _planted('nova_qcache/a.py', LOGS_IT)
    assert (missing(said, PAGE_OF_ONE), unknown(said, PAGE_OF_ONE)) == ([], [])


@pytest.mark.parametrize(
    ('path', 'text'),
    [
        ('nova_qcache/a.py', "LOG.error('The cache of %s has gone: %s', key, e)"),
        ('nova_qcache/a.py', "LOG.exception('The cache of %s is gone', key)"),
        ('nova_qcache/a.py', "LOG.log(level, 'The cache of %r is gone: %s', key, e)"),
        ('nova_qcache/exception.py', "class Gone(Error):\n    template = '{what!r} is gone.'"),
        (
            'nova_qcache/engine/admission.py',
            "def refusal():\n    return f'boot {number} is too early'",
        ),
        (
            'nova_qcache/virt/eligibility.py',
            "def refusal_of():\n    return Refusal('its disk is round')",
        ),
        (
            'nova_qcache/engine/lookup.py',
            "def _result_for():\n    return _plain(plan, 'it is Monday', Cause.STALE)",
        ),
    ],
)
def test_what_the_page_has_not_is_missing(path: str, text: str) -> None:
    said = _planted(path, text)
    assert len(missing(said, PAGE_OF_ONE)) == 1
    assert unknown(said, PAGE_OF_ONE) == ['The cache of IMAGE is gone: REASON']


@pytest.mark.parametrize(
    'text',
    [
        "LOG.info('The cache of %s is gone: %s', key, e)",
        "LOG.log(logging.INFO, 'The cache of %s is gone: %s', key, e)",
        "LOG.warning('%s', e)",
    ],
)
def test_what_is_no_message_of_its_own_needs_no_row(text: str) -> None:
    assert _planted('nova_qcache/a.py', text) == set()


def test_a_message_that_cannot_be_read_is_not_passed_over() -> None:
    with pytest.raises(AssertionError, match=r'a\.py:1: a message that no test can read'):
        _planted('nova_qcache/a.py', 'LOG.warning(text)')


def test_a_function_that_gives_no_reasons_any_more_is_named() -> None:
    with pytest.raises(AssertionError, match=r'refusal\(\) says nothing any more'):
        _planted('nova_qcache/engine/admission.py', 'def refusal():\n    return None')


def test_the_functions_that_give_reasons_are_there() -> None:
    there = {
        (source.path, node.name)
        for source in sources()
        for node in ast.walk(source.tree())
        if isinstance(node, ast.FunctionDef)
    }
    named = {(path, name) for path, names in REASONS.items() for name in names}
    assert named <= there
