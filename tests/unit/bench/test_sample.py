# SPDX-License-Identifier: Apache-2.0
"""The benchmark of samples counts as the product does."""

import random

import pytest

from bench import sample
from nova_qcache.verifier import SAMPLE_BYTES
from nova_qcache.verifier import SAMPLE_UNIT
from tests import seeds


@pytest.mark.parametrize('changed', [1, 10])
def test_a_cache_of_subclusters_smaller_than_a_sample_is_compared_as_a_whole(changed):
    extents = [(SAMPLE_UNIT * at + 512, 512) for at in range(SAMPLE_BYTES // 512)]
    found = sample.measure(extents, changed, 20, random.Random(seeds.seed()))
    assert (found['measured'], found['formula']) == (0, 0)


def test_what_is_measured_is_what_the_formula_says():
    chance = random.Random(seeds.seed())
    extents = sample.made_up_extents(2 * SAMPLE_BYTES, chance)
    found = sample.measure(extents, 1, 400, chance)
    assert found['formula'] == 0.5
    assert abs(found['measured'] - 0.5) < 6 * 0.025  # six standard deviations


def test_partial_clusters_are_clusters():
    assert sample.clusters_of([(512, 512), (2048, 4096), (8192, 4096)]) == {0, 1, 2}
