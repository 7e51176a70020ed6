# SPDX-License-Identifier: Apache-2.0
"""Keys of caches: what becomes a file name, and what never does."""

import re
import uuid

from hypothesis import example
from hypothesis import given
from hypothesis import strategies as st
import pytest

from nova_qcache import exception
from nova_qcache.model.key import CacheKey
from nova_qcache.model.key import canonical_image_id
from nova_qcache.model.key import Generation
from tests.unit.builders import GENERATION
from tests.unit.builders import IMAGE
from tests.unit.builders import KEY
from tests.unit.builders import NOT_IMAGE_IDS

LARGEST = 10**18 - 1

generations = st.builds(
    Generation, st.from_regex(r'[0-9a-f]{12}', fullmatch=True), st.integers(1, LARGEST)
)
keys = st.builds(CacheKey, st.uuids().map(str), generations)


def nearly(text):
    """Strings that differ from ``text`` in one place."""
    place = st.integers(0, len(text))
    return st.builds(
        lambda at, cut, new: text[:at] + new + text[at + cut :], place, place, st.text()
    )


@given(st.uuids())
def test_every_uuid_is_an_image_id_in_one_spelling(value):
    assert canonical_image_id(str(value)) == str(value)
    assert canonical_image_id(str(value).upper()) == str(value)


@pytest.mark.parametrize('text', NOT_IMAGE_IDS.values(), ids=NOT_IMAGE_IDS)
def test_all_else_is_none(text):
    with pytest.raises(exception.InvalidImageId) as caught:
        canonical_image_id(text)
    assert repr(text)[:60] in str(caught.value)
    assert '`openstack image list`' in str(caught.value)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize('length', [80, 81, 10_000])
def test_a_long_one_is_named_by_its_beginning(length):
    with pytest.raises(exception.InvalidImageId) as caught:
        canonical_image_id('x' * length)
    named = 'x' * length if length == 80 else 'x' * 77 + '...'
    assert repr(named) in str(caught.value)


@given(st.text() | nearly(IMAGE) | nearly(IMAGE.upper()))
def test_what_is_accepted_is_a_uuid(text):
    try:
        image_id = canonical_image_id(text)
    except exception.InvalidImageId:
        return
    assert image_id == text.lower() == str(uuid.UUID(text))


@given(keys)
def test_stem_round_trip(key):
    assert CacheKey.from_stem(key.stem) == key


@given(keys)
def test_stem_is_a_plain_file_name(key):
    assert re.fullmatch(r'[0-9a-f][0-9a-f.-]*', key.stem)
    assert not re.search(r'_\d+$', key.stem), 'Nova takes that for a resized copy of a base'
    assert len(key.stem) + len('.recording') <= 255


@given(st.text() | nearly(KEY.stem))
@example(KEY.stem + '\n')
@example(KEY.stem.upper())
@example(f'{IMAGE}.{GENERATION.epoch}.0')
@example(f'{IMAGE}.{GENERATION.epoch}.03')
@example(f'{IMAGE}.{GENERATION.epoch}.\N{ARABIC-INDIC DIGIT THREE}')
@example(f'{IMAGE}.{GENERATION.epoch}.{LARGEST + 1}')
@example(f'../{KEY.stem}')
def test_a_stem_is_that_of_its_key_or_foreign(text):
    key = CacheKey.from_stem(text)
    assert key is None or key.stem == text


@pytest.mark.parametrize(
    'epoch', ['', '0123456789a', '0123456789abc', '0123456789AB', '0123456789a/', None, 12, b'12']
)
def test_no_epoch(epoch):
    with pytest.raises(ValueError, match='is not an epoch') as caught:
        Generation(epoch, 1)
    assert repr(epoch) in str(caught.value)


@pytest.mark.parametrize('n', [0, -1, LARGEST + 1, 1.0, True, '1', None])
def test_no_number(n):
    with pytest.raises(ValueError, match='is not a generation number') as caught:
        Generation('0123456789ab', n)
    assert repr(n) in str(caught.value)


def test_next_is_a_higher_one_of_the_same_epoch():
    assert GENERATION.next() == Generation(GENERATION.epoch, GENERATION.n + 1)
    assert GENERATION.next() > GENERATION


def test_after_the_last_number_comes_a_new_epoch():
    last = Generation(GENERATION.epoch, LARGEST)
    assert Generation(GENERATION.epoch, LARGEST - 1).next() == last
    assert last.next().n == 1
    assert last.next().epoch != GENERATION.epoch


def test_new_epochs_differ_and_start_at_one():
    made = [Generation.first_of_new_epoch() for _ in range(100)]
    assert {generation.n for generation in made} == {1}
    assert len({generation.epoch for generation in made}) == 100


def test_keys_of_an_image_sort_by_number():
    numbers = [10, 9, 1, 100]
    made = [CacheKey(IMAGE, Generation(GENERATION.epoch, n)) for n in numbers]
    assert [key.generation.n for key in sorted(made)] == sorted(numbers)
