# SPDX-License-Identifier: Apache-2.0
"""Every way in which this Nova writes a base in its image cache is one that we announce.

The places are found in Nova's own source; a Nova with another one makes this test fail, and
somebody has to look.
"""

import ast
from collections.abc import Iterator
import inspect
import pathlib

from nova.virt.libvirt import driver

WRITERS = {'fetch_image', 'fetch_to_raw', 'fetch_raw_image', 'fetch_func', 'copy_image'}
"""What makes the content of a base, as Nova names it."""

FOLDER = pathlib.Path(inspect.getfile(driver)).parent

OVERRIDDEN = {('driver.py', 'cache_image', 'fetch_to_raw')}
"""QcacheDriver.cache_image() announces before it calls Nova's."""

THROUGH_CACHE = {
    ('driver.py', '_create_and_inject_local_root', 'fetch_func'),
    ('driver.py', '_create_and_inject_local_root', 'fetch_image'),
    ('driver.py', '_create_image', 'fetch_raw_image'),
    ('driver.py', '_create_images_and_backing', 'fetch_image'),
    ('driver.py', '_rebase_original_qcow2_image', 'fetch_image'),
    ('driver.py', '_try_fetch_image_cache', 'fetch_func'),
    ('driver.py', 'clone_fallback_to_fetch', 'fetch_image'),
    ('driver.py', 'copy_from_host', 'copy_image'),
    ('imagebackend.py', 'fetch_func_sync', 'fetch_func'),
}
"""Handed to Image.cache() as its fetch_func, which Qcow2.cache() of ours announces."""

NO_BASES = {
    ('driver.py', '_try_fetch_image', 'fetch_image'),  # kernel and ramdisk of an instance
    ('driver.py', '_try_fetch_image', 'copy_image'),
    ('driver.py', 'migrate_disk_and_power_off', 'copy_image'),
    ('imagebackend.py', '_copy_ploop_image', 'copy_image'),
    ('imagebackend.py', 'create_image', 'copy_image'),
    ('imagebackend.py', 'copy_raw_image', 'copy_image'),
    ('imagebackend.py', 'copy_qcow2_image', 'copy_image'),
    ('utils.py', 'save_and_migrate_vtpm_dir', 'copy_image'),
    ('utils.py', 'fetch_image', 'fetch_to_raw'),  # what the others call
}
"""Disks of instances, and resized copies of a base of a very old Nova, on which nothing of ours
stands."""


def _calls(path: pathlib.Path) -> Iterator[tuple[str, str, str]]:
    """Yield file, enclosing function and what is named there, for each mention of a writer."""

    def walk(node: ast.AST, function: str) -> Iterator[tuple[str, str, str]]:
        for child in ast.iter_child_nodes(node):
            inside = child.name if isinstance(child, ast.FunctionDef) else function
            name = getattr(child, 'attr', None) or getattr(child, 'id', None)
            if name in WRITERS and isinstance(child, ast.Attribute | ast.Name):
                yield path.name, inside, name
            yield from walk(child, inside)

    yield from walk(ast.parse(path.read_text()), '')


def _found() -> set[tuple[str, str, str]]:
    return {call for path in sorted(FOLDER.glob('*.py')) for call in _calls(path)}


def test_no_writer_is_unknown():
    assert _found() <= OVERRIDDEN | THROUGH_CACHE | NO_BASES


def test_those_that_matter_are_still_there():
    """Or this test looks for names that Nova has given up."""
    assert _found() >= OVERRIDDEN | {('driver.py', '_try_fetch_image_cache', 'fetch_func')}


def test_a_new_writer_would_be_found(tmp_path):
    path = tmp_path / 'driver.py'
    path.write_text('def surprise(self):\n    if x:\n        images.fetch_to_raw(1)\n')
    assert set(_calls(path)) == {('driver.py', 'surprise', 'fetch_to_raw')}
