# SPDX-License-Identifier: Apache-2.0
"""Check whether AppArmor or SELinux lets a guest connect to a recorder.

AppArmor and SELinux confine each qemu to what libvirt allows it. libvirt allows the files of an
explicit chain by itself, so a guest always gets to play; the socket of a recorder it does not
allow, and a guest that was told to record would not start.

This only reads, without any rights: what cannot be told of a confinement that is on counts as a
denial, since a plain boot costs less than one that fails.
"""

from collections.abc import Iterator
import os
import pathlib
import re

__all__ = ['SELINUX_TYPE', 'problem']

SELINUX_TYPE = 'nova_qcache_guests_t'
"""SELinux type of the folder of the sockets in our policy module; see etc/selinux."""

_APPARMOR_ENABLED = 'sys/module/apparmor/parameters/enabled'
_APPARMOR_FOLDER = 'etc/apparmor.d'
_ABSTRACTION = 'abstractions/libvirt-qemu'
_LOCAL = 'local/abstractions/libvirt-qemu'
_SELINUX_ENFORCE = 'sys/fs/selinux/enforce'
_LIBVIRT_CONF = 'etc/libvirt/qemu.conf'

_SOCKET = '00000000-0000-0000-0000-000000000000.000000000000.1.nbd'
"""A name such as the sockets have."""

_INCLUDE = re.compile(
    r'\s*#?include\s+(?:if\s+exists\s+)?(?:<(?P<inside>[^>]+)>|"(?P<absolute>/[^"]+)")'
)
# No "owner" among the qualifiers: the sockets are another user's than qemu's.
_RULE = re.compile(
    r'\s*(?:audit\s+)?(?:(?:allow|(?P<deny>deny))\s+)?(?:file\s+)?'
    r'(?:"(?P<quoted>[/@][^"]*)"|(?P<bare>[/@]\S*))\s+(?P<rights>[A-Za-z]+)\s*,'
)
_LEFT_BEHIND = ('~', '.dpkg-new', '.dpkg-old', '.dpkg-dist', '.dpkg-bak', '.rpmnew', '.rpmsave')
"""Endings of files that AppArmor passes over in a folder."""
_GLOBS = {'**': '.*', '*': '[^/]*', '?': '[^/]', '{': '(?:', '}': ')'}
_SETTING = re.compile(r'^\s*(security_\w+)\s*=\s*(\[[^]]*\]|[^#\n]*)', re.MULTILINE)


def problem(guests: pathlib.Path, root: pathlib.Path = pathlib.Path('/')) -> str | None:
    """Return why qemu may not connect to sockets in that folder, a semicolon, and the remedy; None
    if it may, as far as can be told.

    :param root: of the host's configuration
    """
    return _of_apparmor(guests, root) or _of_selinux(guests, root)


def _of_apparmor(guests: pathlib.Path, root: pathlib.Path) -> str | None:
    if _read(root / _APPARMOR_ENABLED) != 'Y' or not _libvirt_uses('apparmor', root):
        return None
    # AppArmor sees paths without symbolic links, such as that from /var/run to /run.
    folder = os.path.realpath(guests)
    rights: set[str] = set()
    denied: set[str] = set()
    place = root / _APPARMOR_FOLDER / _ABSTRACTION
    try:
        for path, text in _files(place, root):
            if path == root / _APPARMOR_FOLDER / _LOCAL:
                place = path
            for line in text.splitlines():
                rule = _RULE.match(line)
                if rule and _matches(rule['quoted'] or rule['bare'], f'{folder}/{_SOCKET}'):
                    (denied if rule['deny'] else rights).update(rule['rights'])
    except FileNotFoundError:
        return None  # libvirt is built without AppArmor, or not there
    except (OSError, ValueError) as e:
        return (
            f'AppArmor confines qemu, and its rules cannot be read ({e}); '
            'let the user of nova-compute read them'
        )
    if {'r', 'w'} <= rights - denied:
        return None
    if denied & {'r', 'w'}:
        return (
            f'a rule of AppArmor denies guests the sockets in {folder}; '
            f'take it out of what {root / _APPARMOR_FOLDER / _ABSTRACTION} includes'
        )
    return (
        f'no rule of AppArmor lets guests connect to the sockets in {folder}; '
        f'append the line `{_rule(folder)}` to {place}, make that and its folder if they are '
        'missing, and restart nova-compute'
    )


def _files(path: pathlib.Path, root: pathlib.Path) -> Iterator[tuple[pathlib.Path, str]]:
    """Yield the path and text of libvirt's abstraction and of what it includes, each once; an
    included file that is not there has no text.

    :raises OSError: if the abstraction is not there, or any of the files cannot be read
    """
    todo = [(path, path.read_text())]
    seen = {path}
    while todo:
        path, text = todo.pop()
        yield path, text
        for line in text.splitlines():
            include = _INCLUDE.match(line)
            # The abstractions that everybody includes say nothing of our folder.
            if include is None or _is_general(include['inside'] or ''):
                continue
            if include['inside']:
                found = root / _APPARMOR_FOLDER / include['inside']
            else:
                found = root / include['absolute'].lstrip('/')
            for each in _inside(found):
                if each not in seen:
                    seen.add(each)
                    todo.append((each, _text(each)))


def _is_general(name: str) -> bool:
    return name.startswith('abstractions/') and not name.startswith(_ABSTRACTION)


def _inside(path: pathlib.Path) -> list[pathlib.Path]:
    """Return the files that are included with this path, which may be a folder."""
    if not path.is_dir():
        return [path]
    return [each for each in sorted(path.iterdir()) if not each.name.endswith(_LEFT_BEHIND)]


def _text(path: pathlib.Path) -> str:
    try:
        return path.read_text()
    except (FileNotFoundError, IsADirectoryError):  # AppArmor includes no folders of a folder
        return ''


def _matches(pattern: str, path: str) -> bool:
    """Return whether a pattern of AppArmor matches a path; an unknown pattern does not."""
    pattern = re.sub('/+', '/', pattern.replace('@{run}', '/{,var/}run/'))
    try:
        return re.fullmatch(_regex(pattern), path) is not None
    except re.error:
        return False


def _regex(pattern: str) -> str:
    made, depth = '', 0
    for part in re.findall(r'\\.|\*\*|\[[^]]*\]|.', pattern):
        depth += (part == '{') - (part == '}')
        if part in _GLOBS:
            made += _GLOBS[part]
        elif part == ',' and depth:
            made += '|'
        elif len(part) > 2:
            made += '[' + part[1:].replace('[', r'\[')
        else:
            made += re.escape(part[-1])
    return made


def _rule(folder: str) -> str:
    path = re.sub(r'([][{}*?^\\"])', r'\\\1', folder) + '/*.nbd'
    return f'"{path}" rw,' if re.search(r'\s', path) else f'{path} rw,'


def _of_selinux(guests: pathlib.Path, root: pathlib.Path) -> str | None:
    if _read(root / _SELINUX_ENFORCE) != '1' or not _libvirt_uses('selinux', root):
        return None
    found = _selinux_type(guests)
    # The type exists only where our module is loaded. Of any other nobody but the policy knows
    # whether guests may connect, and its rules are not for this user to ask.
    if found == SELINUX_TYPE:
        return None
    return (
        f'SELinux lets no guest connect to the sockets in {guests}, which has the type {found}; '
        f'install the policy module in share/nova-qcache/selinux, which makes it {SELINUX_TYPE}, '
        'and restart nova-compute'
    )


def _selinux_type(path: pathlib.Path) -> str:
    try:
        context = os.getxattr(path, 'security.selinux').rstrip(b'\0').decode()
    except (OSError, ValueError) as e:
        return f'that cannot be read ({e})'
    # user:role:type:level
    return [*context.split(':'), '', '', ''][2]


def _libvirt_uses(driver: str, root: pathlib.Path) -> bool:
    """Return whether libvirt confines guests by this driver; it does unless its configuration says
    otherwise. Often only root can read that configuration."""
    settings = dict(_SETTING.findall(_read(root / _LIBVIRT_CONF)))
    if settings.get('security_default_confined', '').strip() == '0':
        return False  # Nova asks for no confinement of its own
    drivers = re.findall(r'"([^"]*)"', settings.get('security_driver', ''))
    return not drivers or driver in drivers


def _read(path: pathlib.Path) -> str:
    """Return what a file says, and nothing if it cannot be read."""
    try:
        return path.read_text().strip()
    except (OSError, ValueError):
        return ''
