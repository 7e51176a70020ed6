# SPDX-License-Identifier: Apache-2.0
"""Configuration files: written so that no other user reads a password, and whole or not at all."""

from collections.abc import Mapping
import os
import pathlib

__all__ = ['Sections', 'merge', 'render', 'write']

Sections = Mapping[str, Mapping[str, object]]


def render(sections: Sections) -> str:
    """Return the text; True and False as oslo.config reads them, ``$`` as it stands."""
    lines = []
    for section, options in sections.items():
        lines.append(f'[{section}]')
        lines += [f'{name} = {_text(value)}' for name, value in options.items()]
        lines.append('')
    return '\n'.join(lines)


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def merge(*parts: Sections) -> dict[str, dict[str, object]]:
    merged: dict[str, dict[str, object]] = {}
    for part in parts:
        for section, options in part.items():
            merged.setdefault(section, {}).update(options)
    return merged


def write(
    path: pathlib.Path, text: str, *, uid: int = 0, gid: int = 0, mode: int = 0o640
) -> pathlib.Path:
    """Replace a file; its folder is made if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f'.{path.name}.new')
    draft.unlink(missing_ok=True)
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, 'w') as file:
        file.write(text)
        os.fchown(handle, uid, gid)
        os.fchmod(handle, mode)
    draft.rename(path)
    return path
