# SPDX-License-Identifier: Apache-2.0
"""What the README and the manual have in literal blocks: commands, and files to write.

A command stands in a block ``.. code-block:: console`` after a prompt: ``$`` for any user, ``#``
for root. It goes on in the next line after a backslash at its end. Lines without a prompt are
output.
"""

from collections.abc import Iterator
import dataclasses
import pathlib
import re

__all__ = [
    'ROOT',
    'Block',
    'Command',
    'blocks',
    'commands',
    'commands_in',
    'ini',
    'pages',
    'pbr_version',
    'read',
    'stray',
]

ROOT = pathlib.Path(__file__).parents[1]

_CONSOLE = 'console'
_DIRECTIVE = re.compile(r'( *)(?:[*-] +)?\.\. (?:code-block|code|sourcecode)::(?: +(\S+))?$')
_PARAGRAPH = re.compile(r'( *(?:[*-] +|\d+\. +)?)(?!\.\. ).*::$')
"""What ends so has a literal block of no language below it; it begins where its text does."""
_OPTION = re.compile(r' *:[a-z-]+:')
_PROMPTS = {'$ ': False, '# ': True}
_OURS = re.compile(
    r'(?:[$#] )?(?:\w+=\S* )*'
    r'(?:nova-qcache(?! is | cannot | does )(?:-status)?|openstack|virsh|pip|tox|tempest'
    r'|(?:\S*/)?(?:tools|bench)/\S+)'
    r'(?: |$)'
)
"""What is to be typed, wherever it stands."""
_SYNOPSIS = re.compile(r' \[-|\[OPTION\]')


@dataclasses.dataclass(frozen=True)
class Command:
    page: str
    """Its path in the tree."""
    is_root: bool
    text: str
    """As it is typed, in one line."""


@dataclasses.dataclass(frozen=True)
class Block:
    """A literal block."""

    language: str
    """Empty for one after two colons."""
    lines: list[str]
    """Without their common indentation."""


def pages() -> list[str]:
    """Return the README and all pages of the manual, as paths in the tree."""
    manual = sorted((ROOT / 'doc' / 'source').rglob('*.rst'))
    return ['README.rst', *(str(path.relative_to(ROOT)) for path in manual)]


def read(page: str) -> str:
    return (ROOT / page).read_text()


def commands(page: str | None = None) -> list[Command]:
    """Return all commands of a page, or of all pages, in their order.

    :raises ValueError: if a command is not complete
    """
    names = pages() if page is None else [page]
    return [command for name in names for command in commands_in(read(name), name)]


def commands_in(text: str, page: str) -> Iterator[Command]:
    """Yield the commands of a text.

    :raises ValueError: if a command goes on where its block ends
    """
    for block in blocks(text):
        if block.language == _CONSOLE:
            for line in _joined(block.lines, page):
                if line[:2] in _PROMPTS:
                    yield Command(page, _PROMPTS[line[:2]], line[2:].strip())


def stray(text: str) -> list[str]:
    """Return lines of literal blocks that look like commands and are none: they have no prompt, or
    stand in a block of another language."""
    found = []
    for block in blocks(text):
        is_console = block.language == _CONSOLE
        for line in _joined(block.lines, ''):
            is_command = is_console and line[:2] in _PROMPTS
            if _OURS.match(line) and not is_command and not _SYNOPSIS.search(line):
                found.append(line)
    return found


def ini(page: str) -> str:
    """Return the first configuration file of a page."""
    (first, *_) = (block for block in blocks(read(page)) if block.language == 'ini')
    return '\n'.join([*first.lines, ''])


def pbr_version(page: str) -> str:
    """Return the version that a page gives to a tree without ``.git``."""
    found = re.search(r'``PBR_VERSION=([0-9.]+)`` in the\s+environment', read(page))
    assert found, page
    return found[1]


def blocks(text: str) -> Iterator[Block]:
    """Yield the literal blocks of a text in reStructuredText."""
    lines = text.splitlines()
    at = 0
    while at < len(lines):
        directive, paragraph = _DIRECTIVE.match(lines[at]), _PARAGRAPH.match(lines[at])
        at += 1
        if directive:
            language, outside = directive[2] or '', len(directive[1])
            while at < len(lines) and _OPTION.match(lines[at]):
                at += 1
        elif paragraph:
            language, outside = '', len(paragraph[1])
        else:
            continue
        inside = []
        while at < len(lines) and (not lines[at].strip() or _indent(lines[at]) > outside):
            inside.append(lines[at])
            at += 1
        yield Block(language, _dedented(inside))


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _dedented(lines: list[str]) -> list[str]:
    common = min((_indent(line) for line in lines if line.strip()), default=0)
    return '\n'.join(line[common:].rstrip() for line in lines).strip('\n').splitlines()


def _joined(lines: list[str], page: str) -> Iterator[str]:
    waiting = ''
    for line in lines:
        whole = f'{waiting}{line.strip() if waiting else line}'
        waiting = ''
        if whole.endswith('\\'):
            waiting = f'{whole[:-1].rstrip()} '
        else:
            yield whole
    if waiting:
        raise ValueError(f'{page}: {waiting.strip()!r} goes on, and its block ends')
