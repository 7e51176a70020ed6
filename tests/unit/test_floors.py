# SPDX-License-Identifier: Apache-2.0
"""The rules of the house, read from the sources' syntax trees without importing anything.

Each rule is a function that yields what is wrong with one module; the planted sources at the end
prove that each of them can fail.
"""

import ast
from collections.abc import Iterator, Mapping
import dataclasses
import pathlib
import re
import textwrap

import pytest

ROOT = pathlib.Path(__file__).parents[2]
PACKAGE = "nova_qcache"

FLOORS = {
    0: "counters eviction exception key plan progress record repetition source states",
    1: "conf config_files locks native options paths stripping",
    2: (
        "block_graph confinement filesystem glance host_boot libvirt_domains libvirt_guests"
        " mounts overlay plot process_survival processes qemu_img qemu_io qmp recollection"
        " storage_daemon waiting"
    ),
    3: (
        "admission ageing audits base control duty figures generation history inspection"
        " inventory judgement keeper leases ledger metrics occupancy pins plugins pool recorder"
        " removal scrubbing sealed_file sources store suitability sweeping upgrade upkeep"
        " usage verifier"
    ),
    4: "boots manager",
    5: "cmd scheduler virt",
}
"""The modules and packages directly below nova_qcache. A floor never imports from a higher one."""

FLOOR_OF = {name: floor for floor, names in FLOORS.items() for name in names.split()}

ALLOWED = {
    # Nova forbids asyncio in nova-compute: only what runs in the recorder's process has it.
    "asyncio": ("qmp", "recorder", "cmd.recorder"),
    "qemu.qmp": ("qmp", "recorder", "cmd.recorder"),
    # One module holds all locks, and their order.
    "oslo_concurrency.lockutils": ("locks",),
    # What is only for pictures, and large, is imported where they are drawn.
    "matplotlib": ("plot",),
    "keystoneauth1": ("glance",),
    # One module knows that nova-compute may have greenthreads.
    "eventlet": ("native",),
    # Below virt nothing knows Nova, so all of it is testable without.
    "nova": ("virt",),
}
"""Which modules below nova_qcache may import such a thing; no other may."""

MAX_LINES = 400
BANNED_NAMES = ("common", "utils")
HEADER = "SPDX-License-Identifier: Apache-2.0"


@dataclasses.dataclass
class Module:
    """One source file; ``name`` is dotted and begins below nova_qcache ('' is its __init__)."""

    path: str
    text: str
    modules: frozenset[str] = frozenset()
    """The names of all modules of the package."""

    def __post_init__(self) -> None:
        parts = pathlib.PurePath(self.path).with_suffix("").parts[1:]
        self.is_package = parts[-1] == "__init__"
        self.name = ".".join(parts[:-1] if self.is_package else parts)
        self.unit = self.name.partition(".")[0]

    def imports(self) -> Iterator[tuple[int, str]]:
        """Yield line and absolute dotted name of each import, wherever it stands."""
        for node in ast.walk(ast.parse(self.text, self.path)):
            match node:
                case ast.Import(names=names):
                    for alias in names:
                        yield node.lineno, alias.name
                case ast.ImportFrom(names=names):
                    origin = self._origin(node)
                    for alias in names:
                        yield node.lineno, f"{origin}.{alias.name}"
                case ast.Call(
                    func=ast.Name(id="__import__" | "import_module")
                    | ast.Attribute(attr="import_module"),
                    args=[ast.Constant(value=str(name)), *_],
                ):
                    yield node.lineno, name

    def _origin(self, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        here = [PACKAGE, *filter(None, self.name.split("."))]
        up = node.level - 1 if self.is_package else node.level
        return ".".join([*here[: len(here) - up], *filter(None, [node.module])])


def below(name: str, prefixes: tuple[str, ...]) -> bool:
    """Tell whether a dotted name is one of the prefixes or lies below one."""
    return any(name == prefix or name.startswith(prefix + ".") for prefix in prefixes)


def imported_modules(module: Module) -> Iterator[tuple[int, str]]:
    """Yield line and name of the modules of nova_qcache that a module imports."""
    for line, name in module.imports():
        if below(name, (PACKAGE,)) and name != PACKAGE:
            wanted = name.removeprefix(PACKAGE + ".")
            # What follows the last name that is a module is an attribute of that.
            while wanted not in module.modules and "." in wanted:
                wanted = wanted.rpartition(".")[0]
            yield line, wanted


def check_floor(module: Module) -> Iterator[str]:
    if module.unit and module.unit not in FLOOR_OF:
        yield f"{module.path}: {module.unit!r} has no floor; give it one in {__name__}.FLOORS"
        return
    own = FLOOR_OF.get(module.unit, -1)
    for line, wanted in imported_modules(module):
        unit = wanted.partition(".")[0]
        if unit not in FLOOR_OF:
            yield f"{module.path}:{line}: {unit!r} has no floor; give it one in {__name__}.FLOORS"
        elif FLOOR_OF[unit] > own:
            yield (
                f"{module.path}:{line}: floor {own} imports {unit!r} of the higher"
                f" floor {FLOOR_OF[unit]}"
            )


def check_allowed(module: Module) -> Iterator[str]:
    for line, name in module.imports():
        for thing, places in ALLOWED.items():
            if below(name, (thing,)) and not below(module.name, places):
                yield f"{module.path}:{line}: {thing} may be imported only in {', '.join(places)}"


def check_name(module: Module) -> Iterator[str]:
    for part in module.name.split("."):
        if part in BANNED_NAMES:
            yield f"{module.path}: {part!r} says nothing about what is inside"


def check_length(module: Module) -> Iterator[str]:
    length = len(module.text.splitlines())
    if length > MAX_LINES:
        yield f"{module.path}: {length} lines are more than {MAX_LINES}"


def check_header(module: Module) -> Iterator[str]:
    # A script may have its interpreter in the first line.
    if not any(HEADER in line for line in module.text.splitlines()[:2]):
        yield f"{module.path}: the first lines do not say {HEADER!r}"


RULES = (check_floor, check_allowed, check_name, check_length, check_header)


def check_reach(modules: Mapping[str, Module]) -> Iterator[str]:
    """Look for asyncio behind what nova-compute imports, over any number of steps."""
    todo = [(name, name) for name in modules if below(name, ("manager", "virt"))]
    seen = set()
    while todo:
        name, way = todo.pop()
        if name in seen or name not in modules:
            continue
        seen.add(name)
        if any(below(wanted, ("asyncio", "qemu.qmp")) for _, wanted in modules[name].imports()):
            yield f"nova-compute would import asyncio: {way}"
        for _, wanted in imported_modules(modules[name]):
            todo.append((wanted, f"{way} -> {wanted}"))
            if "." in wanted:
                package = wanted.rpartition(".")[0]
                todo.append((package, f"{way} -> {package}"))


def house(sources: Mapping[str, str]) -> dict[str, Module]:
    """Make modules of paths that begin with nova_qcache/, and their texts."""
    modules = {module.name: module for module in (Module(*item) for item in sources.items())}
    for module in modules.values():
        module.modules = frozenset(modules)
    return modules


def complaints(sources: Mapping[str, str]) -> list[str]:
    modules = house(sources)
    found = [text for module in modules.values() for rule in RULES for text in rule(module)]
    return found + list(check_reach(modules))


def read(folder: str, pattern: str) -> dict[str, str]:
    paths = sorted(path for path in (ROOT / folder).rglob(pattern) if path.is_file())
    return {str(path.relative_to(ROOT)): path.read_text() for path in paths}


REAL = read(PACKAGE, "*.py")


def test_there_is_something_to_check():
    assert f"{PACKAGE}/__init__.py" in REAL


@pytest.mark.parametrize("path", REAL)
def test_module_keeps_the_rules(path):
    module = house(REAL)[Module(path, "").name]
    found = [text for rule in RULES for text in rule(module)]
    assert not found, "\n".join(found)


def test_nova_compute_never_imports_asyncio():
    found = list(check_reach(house(REAL)))
    assert not found, "\n".join(found)


@pytest.mark.parametrize("folder", ["tests", "tools", "bench", ".ci", "releasenotes", "doc"])
def test_other_files_have_the_header(folder):
    texts: dict[str, str] = {}
    for pattern in ("*.py", "*.sh", "*.yaml", "run"):
        texts |= read(folder, pattern)
    found = [text for item in texts.items() for text in check_header(Module(*item))]
    assert not found, "\n".join(found)


# From here on: each rule goes red.

PLANTED = {
    "import of a higher floor": ("nova_qcache/key.py", "import nova_qcache.conf", "higher"),
    "from-import of a higher floor": ("nova_qcache/key.py", "from nova_qcache import store", "3"),
    "name from a higher floor": (
        "nova_qcache/store.py",
        "from nova_qcache.manager import Manager",
        "floor 3 imports 'manager' of the higher floor 4",
    ),
    "higher floor from a package": (
        "nova_qcache/recorder/main.py",
        "from nova_qcache.cmd.shell import main",
        "higher",
    ),
    "relative import": ("nova_qcache/key.py", "from . import manager", "higher"),
    "relative import in a package": (
        "nova_qcache/recorder/main.py",
        "from .. import manager",
        "higher",
    ),
    "relative import in an __init__": (
        "nova_qcache/recorder/__init__.py",
        "from ..manager import Manager",
        "higher",
    ),
    "import in a function": (
        "nova_qcache/conf.py",
        "def f():\n    from nova_qcache import store\n",
        "nova_qcache/conf.py:3: floor 1",
    ),
    "import by name": (
        "nova_qcache/conf.py",
        "import importlib\nimportlib.import_module('nova_qcache.store')",
        "higher",
    ),
    "import in the root": ("nova_qcache/__init__.py", "from nova_qcache import key", "higher"),
    "unknown module": ("nova_qcache/gizmo.py", "", "'gizmo' has no floor"),
    "unknown module imported": (
        "nova_qcache/cmd/shell.py",
        "from nova_qcache import gizmo",
        "'gizmo' has no floor",
    ),
    "nova": (
        "nova_qcache/manager.py",
        "from nova import conf",
        "nova may be imported only in virt",
    ),
    "nova, plainly": ("nova_qcache/cmd/shell.py", "import nova.conf as c", "only in virt"),
    "nova in the scheduler": ("nova_qcache/scheduler/f.py", "import nova", "only in virt"),
    "asyncio": ("nova_qcache/control.py", "import asyncio", "asyncio may be imported only"),
    "asyncio, a part": ("nova_qcache/generation.py", "from asyncio import events", "asyncio may"),
    "asyncio in another command": ("nova_qcache/cmd/shell.py", "import asyncio", "asyncio may"),
    "qemu.qmp": ("nova_qcache/storage_daemon.py", "import qemu.qmp", "qemu.qmp may"),
    "qemu.qmp, from": ("nova_qcache/usage.py", "from qemu import qmp", "qemu.qmp may"),
    "qemu.qmp, a class": (
        "nova_qcache/usage.py",
        "from qemu.qmp import QMPClient",
        "qemu.qmp may",
    ),
    "lockutils": (
        "nova_qcache/store.py",
        "from oslo_concurrency import lockutils",
        "lockutils may",
    ),
    "lockutils, a name": (
        "nova_qcache/virt/x.py",
        "from oslo_concurrency.lockutils import lock",
        "lockutils may",
    ),
    "module utils": ("nova_qcache/cmd/utils.py", "", "'utils' says nothing"),
    "package common": ("nova_qcache/recorder/common/x.py", "", "'common' says nothing"),
    "too long": ("nova_qcache/key.py", "\n" * MAX_LINES, "401 lines are more than 400"),
}


@pytest.mark.parametrize(("path", "text", "complaint"), PLANTED.values(), ids=PLANTED)
def test_planted_fault_is_found(path, text, complaint):
    found = complaints({path: f"# {HEADER}\n{text}"})
    assert len(found) == 1, found
    assert complaint in found[0]


@pytest.mark.parametrize("text", ["", "import os\n", f"\n\n# {HEADER}\n"])
def test_planted_file_without_header_is_found(text):
    (found,) = complaints({"nova_qcache/key.py": text})
    assert HEADER in found


def planted(**texts: str) -> dict[str, str]:
    """Sources from names such as ``cmd__recorder``."""
    return {
        f"nova_qcache/{name.replace('__', '/')}.py": f"# {HEADER}\n" + textwrap.dedent(text)
        for name, text in texts.items()
    }


def test_planted_asyncio_behind_the_manager_is_found():
    sources = planted(
        manager="from nova_qcache import store",
        store="from nova_qcache.recorder.wire import Wire",
        recorder__wire="",
    )
    sources["nova_qcache/recorder/__init__.py"] = f"# {HEADER}\nimport asyncio"
    (found,) = complaints(sources)
    assert "manager -> store -> recorder" in found


def test_planted_good_sources_pass():
    sources = planted(
        exception="import os",
        key="from nova_qcache import exception",
        locks="from oslo_concurrency import lockutils",
        qmp="import asyncio\nfrom qemu import qmp",
        store="from nova_qcache.key import CacheKey\nfrom nova_qcache import locks",
        recorder__main="import asyncio\nfrom nova_qcache import qmp\nfrom . import seal",
        recorder__seal="from qemu.qmp import QMPClient",
        manager="import nova_qcache\nfrom nova_qcache import store",
        cmd__recorder="import asyncio\nfrom nova_qcache.recorder import main",
        cmd__shell="from nova_qcache.manager import Manager",
        virt__driver="from nova.virt.libvirt import driver\nfrom nova_qcache import manager",
    )
    sources["nova_qcache/__init__.py"] = f"# {HEADER}\n"
    assert complaints(sources) == []


def test_a_name_that_only_begins_alike_is_something_else():
    text = "import nova_client, asyncioextras, qemu.qmpx\nimport oslo_concurrency.lockutils2\n"
    assert complaints(planted(store=text)) == []


def test_no_module_stands_on_two_floors():
    names = " ".join(FLOORS.values()).split()
    assert len(names) == len(set(names))
    assert all(re.fullmatch(r"[a-z_]+", name) for name in names)
