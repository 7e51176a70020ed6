# SPDX-License-Identifier: Apache-2.0
"""Facts of a sealed file."""

import hashlib
import time
from unittest import mock

import pytest

from nova_qcache.cache import sealed_file
from nova_qcache.model.record import SealedFile
from nova_qcache.model.states import FinishReason
from tests.unit.builders import MIB


@pytest.mark.parametrize('size', [0, 1, MIB - 1, MIB, MIB + 1, 3 * MIB])
def test_digest_of_the_whole_file(tmp_path, size):
    content = bytes(range(251)) * (size // 251 + 1)
    path = tmp_path / 'file'
    path.write_bytes(content[:size])
    seen: list[float] = []
    expected = hashlib.sha256(content[:size]).hexdigest()
    assert sealed_file.digest(path, seen.append) == f'sha256:{expected}'
    assert sum(seen) == size
    assert sealed_file.digest(path) == f'sha256:{expected}'


def test_digest_of_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError):
        sealed_file.digest(tmp_path / 'file')


@pytest.mark.parametrize(('sealed_at', 'expected'), [(None, 12.5), (3.0, 3.0), (0.0, 0.0)])
def test_describe(tmp_path, sealed_at, expected):
    path = tmp_path / 'file'
    path.write_bytes(b'content')
    facts = path.stat()
    with mock.patch.object(time, 'time', autospec=True, return_value=12.5):
        described = sealed_file.describe(path, 'sha256:x', FinishReason.IDLE, sealed_at)
    assert described == SealedFile(
        size=7,
        inode=facts.st_ino,
        mtime_ns=facts.st_mtime_ns,
        digest='sha256:x',
        reason=FinishReason.IDLE,
        sealed_at=expected,
    )
