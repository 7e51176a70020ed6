# SPDX-License-Identifier: Apache-2.0
"""How figures of bench/compare are said."""

import pytest

from bench.compare import wording
from tests.unit.bench.made import sample


def test_names_have_an_order():
    names = ['raw', 'zebra', '1M', '64K', '4 KiB', 'play', 'copy', '64K', 'plain', '2M, extended']
    assert wording.ordered(names) == [
        *('copy', 'plain', 'play', 'raw'),
        *('4 KiB', '64K', '1M', '2M, extended', 'zebra'),
    ]


@pytest.mark.parametrize(
    'value, text',
    [
        (0, '0'),
        (0.0004, '<0.001'),
        (0.4321, '0.432'),
        (9.876, '9.88'),
        (98.76, '98.8'),
        (4096.4, '4,096'),
    ],
)
def test_number(value, text):
    assert wording.number(value) == text


def test_settings_have_an_order():
    found = [
        ('100M', 0, 'kept'),
        ('100M', 20, 'none'),
        ('2G', 0, 'none'),
        ('unlimited', 0, 'none'),
        ('1G', 0, 'none'),
        ('1G', 0, 'none'),
    ]
    samples = [
        sample('replay', 'raw', rate=rate, delay_ms=delay, think=think)
        for rate, delay, think in found
    ]
    assert list(map(str, wording.settings(samples))) == [
        '1 Gbit/s, 0 ms',
        'unlimited, 0 ms',
        '2G, 0 ms',
        '100 Mbit/s, 20 ms',
        "100 Mbit/s, 0 ms, with the guest's pauses",
    ]
