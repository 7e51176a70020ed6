# SPDX-License-Identifier: Apache-2.0
"""The configuration files of a program, and what they say of ``[qcache]`` in their own words:
oslo.config tells neither which options nobody knows, nor what could not be converted."""

from collections.abc import Callable, Sequence
import contextlib
import dataclasses
import glob
import os
from typing import Any

from oslo_config import cfg

from nova_qcache import exception
from nova_qcache import options

__all__ = ['Written', 'names', 'read', 'written']


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
        raise cfg.Error(f'A configuration file is not UTF-8: {e}.') from e
    except OSError as e:
        raise exception.FileUnfit(
            what='The configuration file',
            path=str(e.filename),
            reason=e.strerror or str(e),
            remedy='Name another one with --config-file',
        ) from e


def names(conf: cfg.ConfigOpts) -> list[str]:
    """Return the files that were read, the one that counts most last."""
    found = list(conf.config_file or [])
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
            if section.lower() == options.GROUP.name:
                found.update({key: Written(said[-1], name) for key, said in values.items()})
    return found
