# SPDX-License-Identifier: Apache-2.0
"""The mutants of a module: its source with one small change each.

The changes to a node are mutmut's. Which nodes are changed is decided here: mutmut itself leaves
out the module level, properties and context managers, and so the table of states.
"""

from collections.abc import Iterator
import dataclasses
import difflib

import libcst as cst
import libcst.matchers as m
from mutmut.mutation import mutators

__all__ = ['Mutant', 'mutants']


@dataclasses.dataclass(frozen=True)
class Mutant:
    place: str
    """The qualified name of the function or class; empty at the module level."""
    is_outside: bool
    """Whether that is no function."""
    was: str
    """The changed lines, without indentation."""
    becomes: str
    source: str
    diff: str

    @property
    def key(self) -> tuple[str, str, str]:
        return self.place, self.was, self.becomes


def mutants(source: str, name: str) -> list[Mutant]:
    """Return the mutants of a module.

    :param name: of its file, for the diffs
    """
    module = cst.MetadataWrapper(cst.parse_module(source)).module
    collector = _Collector()
    module.visit(collector)
    found = {}
    for place, is_outside, old, new in collector.changes:
        changed = cst.ensure_type(module.deep_replace(old, new), cst.Module).code
        if changed != source and changed not in found and _compiles(changed):
            found[changed] = _mutant(place, is_outside, source, changed, name)
    return list(found.values())


def _compiles(source: str) -> bool:
    try:
        compile(source, 'mutant', 'exec')
    except SyntaxError:
        return False
    return True


def _mutant(place: str, is_outside: bool, source: str, changed: str, name: str) -> Mutant:
    lines = [
        line.rstrip('\n')
        for line in difflib.unified_diff(
            source.splitlines(keepends=True), changed.splitlines(keepends=True), name, name
        )
    ]
    was = ' '.join(line[1:].strip() for line in lines[2:] if line.startswith('-'))
    becomes = ' '.join(line[1:].strip() for line in lines[2:] if line.startswith('+'))
    return Mutant(place, is_outside, was, becomes, changed, '\n'.join(lines))


class _Collector(cst.CSTVisitor):
    def __init__(self) -> None:
        super().__init__()
        self.changes: list[tuple[str, bool, cst.CSTNode, cst.CSTNode]] = []
        self._nodes: list[cst.FunctionDef | cst.ClassDef] = []

    def on_visit(self, node: cst.CSTNode) -> bool:
        if _is_left_alone(node):
            return False
        if isinstance(node, cst.FunctionDef | cst.ClassDef):
            self._nodes.append(node)
        place = '.'.join(each.name.value for each in self._nodes)
        is_outside = not any(isinstance(each, cst.FunctionDef) for each in self._nodes)
        self.changes += [(place, is_outside, old, new) for old, new in _changes(node)]
        return True

    def on_leave(self, original_node: cst.CSTNode) -> None:
        # What is left alone has not been entered, but is left.
        if isinstance(original_node, cst.FunctionDef | cst.ClassDef):
            self._nodes.pop()


def _is_left_alone(node: cst.CSTNode) -> bool:
    """Return whether nothing in there is changed.

    Messages and log lines are what ``tests/unit/project/test_messages.py`` reads; assertions are
    for the type checker; decorators say what a thing is.
    """
    kinds = cst.Annotation | cst.Assert | cst.Decorator | cst.Import | cst.ImportFrom
    return (
        isinstance(node, kinds)
        or m.matches(node, m.Expr(value=m.SimpleString() | m.ConcatenatedString()))
        or m.matches(node, m.Expr(value=m.Call(func=m.Attribute(value=m.Name('LOG')))))
        or m.matches(node, m.Call(func=m.Name('isinstance') | m.Name('len')))
        or m.matches(node, m.Assign(targets=[m.AssignTarget(m.Name('LOG') | m.Name('__all__'))]))
        or isinstance(node, cst.AssignTarget)
        or (isinstance(node, cst.SimpleString) and _is_text(node))
    )


def _is_text(node: cst.CSTNode) -> bool:
    """Return whether it is a text for people: it is more than a word."""
    if isinstance(node, cst.ConcatenatedString):
        return True
    if isinstance(node, cst.FormattedString):
        return any(
            isinstance(part, cst.FormattedStringText) and ' ' in part.value for part in node.parts
        )
    return isinstance(node, cst.SimpleString) and ' ' in node.value


def _is_literal(node: cst.CSTNode) -> bool:
    literal = m.SimpleString() | m.Integer() | m.Float() | m.Name('True') | m.Name('False')
    return bool(m.matches(node, m.Assign(value=literal) | m.AnnAssign(value=literal)))


def _changes(node: cst.CSTNode) -> Iterator[tuple[cst.CSTNode, cst.CSTNode]]:
    for kind, operator in mutators.mutation_operators:
        if operator is mutators.operator_assignment and _is_literal(node):
            continue  # a literal has another mutant, as a value
        if isinstance(node, kind) and operator not in _REPLACED:
            for new in operator(node):
                yield node, new
    if isinstance(node, cst.SimpleString):
        # mutmut's other two are the same in small and in capital letters.
        yield node, next(iter(mutators.operator_string(node)))
    elif isinstance(node, cst.Call):
        for argument, new in _without_arguments(node):
            if not _is_text(argument.value):
                yield node, new
    elif isinstance(node, cst.If | cst.While | cst.IfExp):
        if m.matches(node.test, m.Name() | m.Attribute() | m.Call() | m.NamedExpr()):
            negated = cst.UnaryOperation(
                cst.Not(), node.test.with_changes(lpar=[cst.LeftParen()], rpar=[cst.RightParen()])
            )
            yield node, node.with_changes(test=negated)
    elif isinstance(node, cst.Expr) and isinstance(node.value, cst.Call):
        yield node, cst.Pass()
    elif isinstance(node, cst.Dict | cst.Set | cst.Tuple | cst.List):
        for index in range(len(node.elements)):
            yield node, _without_element(node, index)


def _without_arguments(node: cst.Call) -> Iterator[tuple[cst.Arg, cst.Call]]:
    """A keyword argument is left out, so that its default counts, and any other one is None."""
    for index, argument in enumerate(node.args):
        changed = [*node.args]
        if argument.keyword is not None:
            del changed[index]
        elif argument.star or m.matches(argument.value, m.Name('None')):
            continue
        else:
            changed[index] = argument.with_changes(value=cst.Name('None'))
        yield argument, node.with_changes(args=changed)


def _without_element(
    node: cst.Dict | cst.Set | cst.Tuple | cst.List, index: int
) -> cst.BaseExpression:
    left = [*node.elements[:index], *node.elements[index + 1 :]]
    if isinstance(node, cst.Set) and not left:
        return cst.parse_expression('set()')
    if isinstance(node, cst.Tuple) and len(left) == 1:
        left = [left[0].with_changes(comma=cst.Comma())]
    return node.with_changes(elements=left)


_REPLACED = {mutators.operator_string, mutators.operator_arg_removal}
