# SPDX-License-Identifier: Apache-2.0
"""nova-qcache check."""

import json
from unittest import mock

import pytest

from nova_qcache.checks import preflight
from nova_qcache.checks import registry
from nova_qcache.checks.registry import Finding
from nova_qcache.checks.registry import Grade

FINE = ('one', Finding(Grade.OK, 'found'))
WARNING = ('two', Finding(Grade.WARNING, 'odd', 'Look.'))
ERROR = ('three', Finding(Grade.ERROR, 'bad', 'Mend.'))


@pytest.mark.parametrize(
    ('findings', 'code'),
    [([FINE], 0), ([FINE, WARNING], 0), ([ERROR, FINE], 1), ([FINE, WARNING, ERROR], 1)],
)
def test_check(run, manager_class, findings, code):
    with mock.patch.object(registry, 'run', autospec=True) as run_checks:
        run_checks.return_value = iter(findings)
        ended = run('check', '-f', 'json')
    assert (ended.code, ended.err) == (code, '')
    assert json.loads(ended.out) == [
        {
            'subject': subject,
            'grade': finding.grade.name.lower(),
            'found': finding.found,
            'remedy': finding.remedy or None,
        }
        for subject, finding in findings
    ]
    checks, conf = run_checks.call_args.args
    assert (checks, conf.qcache.quota) == (preflight.CHECKS, '16')
    manager_class.assert_not_called()  # it would refuse what is to be found
