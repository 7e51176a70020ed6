# SPDX-License-Identifier: Apache-2.0
"""Registry of checks: what a check is, and how a list of them is run."""

from collections.abc import Callable, Iterator, Sequence
import dataclasses
import enum

from oslo_config import cfg

from nova_qcache import exception

__all__ = ['Check', 'Finding', 'Grade', 'run']


class Grade(enum.Enum):
    """How bad it is, as oslo.upgradecheck counts."""

    OK = 0
    WARNING = 1
    """Some of it does not work, or not for all guests; worth an operator's attention."""
    ERROR = 2
    """Boots are plain until this is mended."""


@dataclasses.dataclass(frozen=True)
class Finding:
    grade: Grade
    found: str
    remedy: str = ''


@dataclasses.dataclass(frozen=True)
class Check:
    subject: str
    look: Callable[[cfg.ConfigOpts], str | Finding | None]
    """Changes nothing. Returns what is OK as a text, and None where there is nothing to look at;
    raises OSError, or QcacheError, whose own words name the remedy."""
    needs: str = ''
    """Subject of a check before this one, which is left out unless that is OK."""
    raised: Grade = Grade.ERROR
    """Grade of an error that it raises."""


def run(checks: Sequence[Check], conf: cfg.ConfigOpts) -> Iterator[tuple[str, Finding]]:
    """Run the checks in their order; yield their subjects with what is found."""
    fine = {''}
    for check in checks:
        finding = _finding(check, conf) if check.needs in fine else None
        if finding is not None:
            yield check.subject, finding
            if finding.grade is Grade.OK:
                fine.add(check.subject)


def _finding(check: Check, conf: cfg.ConfigOpts) -> Finding | None:
    try:
        found = check.look(conf)
    except exception.QcacheError as e:
        return Finding(check.raised, *e.problem_and_remedy())
    except OSError as e:
        return Finding(check.raised, exception.sentence(e), 'Check whether its storage is sound.')
    except (cfg.Error, RecursionError) as e:  # of an option that names another one, or itself
        return Finding(check.raised, str(e), 'Write $$ for a $ in the value of the option.')
    return Finding(Grade.OK, found) if isinstance(found, str) else found
