# SPDX-License-Identifier: Apache-2.0
"""nova-qcache verify."""

import json

import pytest

from nova_qcache.cache.verify import Verification
from nova_qcache.cmd import shell
from tests.unit.builders import GENERATION
from tests.unit.builders import IMAGE
from tests.unit.builders import KEY

EQUAL = Verification(KEY, '', 12288)
DIFFERENT = Verification(KEY, 'the base differs at offset 4096', 12288)


@pytest.mark.parametrize(
    ('results', 'words', 'code'),
    [
        ([EQUAL], ['equal'], 0),
        ([DIFFERENT], ['the base differs at offset 4096'], 1),
        ([EQUAL, DIFFERENT], ['equal', 'the base differs at offset 4096'], 1),
        ([DIFFERENT, EQUAL], ['the base differs at offset 4096', 'equal'], 1),
    ],
)
def test_verify(run, manager, results, words, code):
    manager.verify.return_value = results
    ended = run('verify', IMAGE, '-f', 'json')
    assert (ended.code, ended.err) == (code, '')
    assert json.loads(ended.out) == [
        {
            'image_id': IMAGE,
            'generation': str(GENERATION),
            'compared_bytes': 12288,
            'result': word,
        }
        for word in words
    ]
    manager.verify.assert_called_once_with(IMAGE, shell.progress)
