# SPDX-License-Identifier: Apache-2.0
"""The configuration files of a program, and their text of ``[qcache]``: oslo.config tells neither
unknown options nor values that could not be converted."""

from collections.abc import Callable, Sequence
import contextlib
import dataclasses
import glob
import os
import traceback
from typing import Any

from oslo_config import cfg

from nova_qcache import exception

__all__ = ['Written', 'arguments', 'names', 'read', 'written']


@dataclasses.dataclass(frozen=True)
class Written:
    """The last line that sets an option."""

    value: str
    file: str


def read(
    conf: Callable[..., object], arguments: Sequence[str] | None, prog: str, **more: Any
) -> None:
    """Read a command line, and the configuration files that it names or that are found.

    :param conf: a ConfigOpts; what is called
    :param prog: the name of the program
    :raises FileUnfit: if one of them cannot be read
    :raises oslo_config.cfg.Error: for all else that is wrong with them
    """
    try:
        conf(arguments, project='nova', prog=prog, **more)
    except UnicodeDecodeError as e:
        path = _parsed_in(e)
        if path is None:
            raise cfg.Error(str(e)) from e
        raise _not_text(path, e) from e
    except OSError as e:
        raise exception.FileUnfit(
            what='The configuration file',
            path=str(e.filename),
            reason=e.strerror or str(e),
            remedy='Name another one with --config-file',
        ) from e


def _parsed_in(error: UnicodeDecodeError) -> str | None:
    """Return the file that was parsed: the error does not name it. None if it is of no file."""
    frames = [frame.f_locals for frame, _ in traceback.walk_tb(error.__traceback__)]
    parsers = [each['self'] for each in frames if isinstance(each.get('self'), cfg.ConfigParser)]
    return parsers[-1].filename if parsers else None


def _not_text(path: str, error: UnicodeDecodeError) -> exception.FileUnfit:
    """Return an error with the place of the byte in the file: the decoding error has its place in
    one part of the file only."""
    place = 'it'
    with contextlib.suppress(OSError), open(path, 'rb') as file:  # it may have gone since
        for number, line in enumerate(file, 1):
            try:
                line.decode(error.encoding)
            except UnicodeDecodeError as e:
                place = f'byte {e.start + 1} of line {number} (0x{line[e.start]:02x})'
                break
    return exception.FileUnfit(
        what='The configuration file',
        path=path,
        reason=f'{place} is not {error.encoding.upper()}',
        remedy='Save it in that encoding',
    )


def arguments(given: Any) -> list[str]:
    """Return the arguments with which another program reads the same files.

    :param given: a ConfigOpts, or a parsed command line with the same options
    """
    named = [('--config-file', name) for name in given.config_file or []]
    named += [('--config-dir', name) for name in given.config_dir or []]
    return [f'{option}={os.path.abspath(os.path.expanduser(name))}' for option, name in named]


def names(conf: cfg.ConfigOpts) -> list[str]:
    """Return the files that were read, the one that counts most last."""
    found = [os.path.expanduser(name) for name in conf.config_file or []]
    for folder in conf.config_dir or []:
        found += sorted(glob.glob(os.path.join(os.path.expanduser(folder), '*.conf')))
    return found


def written(conf: cfg.ConfigOpts) -> dict[str, Written]:
    """Return what is written in our group, by the names that stand there."""
    found = {}
    for name in names(conf):
        sections: dict[str, dict[str, Any]] = {}
        with contextlib.suppress(OSError, ValueError, cfg.Error):  # it has changed since
            cfg.ConfigParser(name, sections).parse()
        for section, values in sections.items():
            if section.lower() == 'qcache':
                found.update({key: Written(said[-1], name) for key, said in values.items()})
    return found
