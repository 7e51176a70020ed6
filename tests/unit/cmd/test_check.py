# SPDX-License-Identifier: Apache-2.0
"""nova-qcache check."""

import json
from unittest import mock

import pytest

from nova_qcache.checks import preflight
from nova_qcache.checks.preflight import Finding
from nova_qcache.checks.preflight import Grade

FINE = Finding('one', Grade.OK, 'found')
WARNING = Finding('two', Grade.WARNING, 'odd', 'Look.')
ERROR = Finding('three', Grade.ERROR, 'bad', 'Mend.')


@pytest.mark.parametrize(
    ('findings', 'code'),
    [([FINE], 0), ([FINE, WARNING], 0), ([ERROR, FINE], 1), ([FINE, WARNING, ERROR], 1)],
)
def test_check(run, manager_class, findings, code):
    with mock.patch.object(preflight, 'run_checks', autospec=True) as run_checks:
        run_checks.return_value = iter(findings)
        ended = run('check', '-f', 'json')
    assert (ended.code, ended.err) == (code, '')
    assert json.loads(ended.out) == [
        {
            'subject': finding.subject,
            'grade': finding.grade.value,
            'found': finding.found,
            'remedy': finding.remedy or None,
        }
        for finding in findings
    ]
    assert run_checks.call_args.args[0].qcache.quota == '16'
    manager_class.assert_not_called()  # it would refuse what is to be found
