# SPDX-License-Identifier: Apache-2.0
"""The record of a cache: what is written is read again, and nothing else ever is."""

import dataclasses
import json

from hypothesis import example
from hypothesis import given
from hypothesis import strategies as st
import pytest

from nova_qcache import exception
from nova_qcache.model.record import CacheRecord
from nova_qcache.model.record import dumps
from nova_qcache.model.record import loads
from nova_qcache.model.record import SealedFile
from nova_qcache.model.record import VERSION
from nova_qcache.model.source import BaseIdentity
from nova_qcache.model.states import FinishReason
from nova_qcache.model.states import State
from tests.unit import builders
from tests.unit.builders import IMAGE
from tests.unit.builders import KEY

PATH = '/cache/a-record.json'

numbers = st.integers(0, 2**63 - 1)
times = st.floats(0, 2**62)
seals = st.builds(
    SealedFile,
    numbers,
    numbers,
    numbers,
    st.text(),
    st.sampled_from(FinishReason),
    times,
)
maybe = st.none() | numbers


@st.composite
def records(draw):
    state = draw(st.sampled_from([State.RECORDING, State.READY, State.STALE]))
    return builders.record(
        state,
        key=dataclasses.replace(KEY, revision=draw(st.integers(1, 10**9 - 1))),
        base=draw(st.text()),
        base_format=draw(st.text()),
        base_identity=draw(st.builds(BaseIdentity, maybe, maybe, maybe)),
        virtual_size=draw(numbers),
        quota=draw(numbers),
        cluster_size=draw(numbers),
        extended_l2=draw(st.booleans()),
        created_at=draw(times),
        stale_reason=draw(st.text()),
        is_audit=draw(st.booleans()),
        sealed=None if state is State.RECORDING else draw(seals),
    )


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from([10**400, -(2**63), 2**63, 'READY', 'WARMING', 'STALE', 'COLD']),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@st.composite
def mutated(draw):
    """The JSON of a valid record in which one to three fields are changed, added or missing."""
    data = json.loads(dumps(draw(records())))
    for _ in range(draw(st.integers(1, 3))):
        inner = [data, *(value for value in data.values() if isinstance(value, dict))]
        place = draw(st.sampled_from(inner))
        name = draw(st.sampled_from([*place, 'sealed', 'unheard of']))
        if name in place and draw(st.booleans()):
            del place[name]
        else:
            place[name] = draw(json_values)
    return json.dumps(data).encode()


def read(text, key=KEY):
    """Read; all that may happen is a record or one of the two errors."""
    try:
        record = loads(text, PATH, key)
    except exception.RecordBroken as e:
        assert PATH in str(e)
        assert f'`nova-qcache remove {key.image_id}`' in str(e)
        return None
    assert isinstance(record, CacheRecord)
    assert record.key == key
    assert (record.sealed is not None) == (record.state in (State.READY, State.STALE))
    assert loads(dumps(record), PATH, key) == record
    return record


def changed(**changes):
    """The text of a READY record with other values; None takes a field away."""
    data = json.loads(dumps(builders.record(State.READY)))
    for name, value in changes.items():
        if value is None:
            del data[name]
        else:
            data[name] = value
    return json.dumps(data).encode()


@given(records())
def test_round_trip(record):
    assert loads(dumps(record), PATH, record.key) == record


@given(
    st.binary()
    | st.text().map(str.encode)
    | json_values.map(lambda value: json.dumps(value).encode())
)
@example(b'')
@example(b'null')
@example(b'\xff\xfe')
@example(b'[' * 100_000)
@example(b'{"a":' * 100_000)
@example(b'1' * 5000)
def test_any_bytes(text):
    assert read(text) is None


@given(mutated())
def test_any_mutation(text):
    read(text)


@given(records(), st.data())
def test_any_truncation(record, data):
    text = dumps(record).rstrip()
    assert read(text[: data.draw(st.integers(0, len(text) - 1))]) is None


def test_people_find_a_field_in_its_line_and_in_the_order_of_names():
    text = dumps(builders.record(State.READY)).decode()
    assert text == json.dumps(json.loads(text), indent=1, sort_keys=True) + '\n'


def test_a_recording_has_its_former_name_in_the_file():
    """Older versions read it; either name is understood."""
    text = dumps(builders.record(State.RECORDING))
    assert json.loads(text)['state'] == 'WARMING'
    for name in (b'WARMING', b'RECORDING'):
        assert read(text.replace(b'WARMING', name)).state is State.RECORDING


def test_a_record_that_is_begun_has_no_seal_and_no_reason():
    needed = [
        field.name
        for field in dataclasses.fields(CacheRecord)
        if field.default is dataclasses.MISSING
    ]
    begun = CacheRecord(**{name: getattr(builders.record(), name) for name in needed})
    assert (begun.image_hashes, begun.sealed, begun.stale_reason) == ((), None, '')
    assert not begun.is_audit


@pytest.mark.parametrize('revision', [1, 2])
def test_of_old_records_those_of_a_second_revision_are_audits(revision):
    key = dataclasses.replace(KEY, revision=revision)
    text = changed(is_audit=None, revision=revision)
    assert loads(text, PATH, key).is_audit == (revision > 1)


FIELDS = json.loads(dumps(builders.record(State.READY))).keys() - {'is_audit'}


@pytest.mark.parametrize('field', sorted(FIELDS))
def test_each_field_is_needed(field):
    said = f"field '{field}' is missing" if field != 'sealed' else 'says about a seal'
    with pytest.raises(exception.RecordBroken, match=said):
        loads(changed(**{field: None}), PATH, KEY)


@pytest.mark.parametrize(
    ('changes', 'reason'),
    [
        ({'quota': '16'}, "quota is '16' and not of type int"),
        ({'quota': True}, 'quota is True and not of type int'),
        ({'quota': 1.5}, 'quota is 1.5 and not of type int'),
        ({'quota': -1}, 'quota is out of range'),
        ({'quota': 2**63}, 'quota is out of range'),
        ({'created_at': float('nan')}, 'created_at is out of range'),
        ({'created_at': float('inf')}, 'created_at is out of range'),
        ({'created_at': 10**400}, 'created_at is out of range'),
        ({'created_at': -1}, 'created_at is out of range'),
        ({'extended_l2': 0}, 'extended_l2 is 0 and not of type bool'),
        ({'state': 'WARM'}, "'WARM' is not a valid State"),
        ({'state': 'WARMING'}, 'state WARMING contradicts what'),
        ({'state': 'COLD'}, 'state COLD contradicts what'),
        ({'image_id': builders.OTHER_IMAGE}, f'it is about {builders.OTHER_IMAGE}'),
        ({'generation': {'epoch': '0123456789ab', 'n': 4}}, f'it is about {IMAGE}.0123456789ab.4'),
        ({'generation': {'epoch': '../../../../', 'n': 3}}, 'is not an epoch'),
        ({'generation': 3}, 'generation is 3 and not of type dict'),
        ({'generation': {'epoch': 5, 'n': 3}}, ''),
        ({'base_identity': {'size': 'much'}}, "size is 'much'"),
        ({'base_identity': {'size': 2**63}}, 'size is out of range'),
        ({'base_identity': {'inode': 2**64}}, 'inode is out of range'),
        ({'base_identity': {'inode': -1}}, 'inode is out of range'),
        ({'base_identity': {'mtime_ns': 2**63}}, 'mtime_ns is out of range'),
        ({'base_identity': {'mtime_ns': -(2**63) - 1}}, 'mtime_ns is out of range'),
        ({'state': '\ud800'}, 'is not a valid State'),
        ({'image_id': '\ud800'}, 'it is about \\ud800.'),
        ({'image_hashes': 'md5:1'}, "image_hashes is 'md5:1' and not a list of strings"),
        ({'image_hashes': ['md5:1', 3]}, 'and not a list of strings'),
    ],
)
def test_the_reason_names_what_is_wrong(changes, reason):
    with pytest.raises(exception.RecordBroken) as caught:
        loads(changed(**changes), PATH, KEY)
    said = str(caught.value)
    assert reason in said
    assert 'is missing' not in said
    assert said.encode(), 'it can be written to a log'


def test_a_time_of_whole_seconds_is_a_time():
    created_at = loads(changed(created_at=17), PATH, KEY).created_at
    assert (created_at, type(created_at)) == (17.0, float)


def test_a_newer_version_is_not_guessed_at():
    with pytest.raises(exception.RecordTooNew) as caught:
        loads(b'{"version": 2, "all": "else"}', PATH, KEY)
    said = str(caught.value)
    assert f'has version 2, but this nova-qcache reads up to {VERSION}' in said
    assert PATH in said
    assert 'upgrade nova-qcache' in said
    assert f'`nova-qcache remove {IMAGE}`' in said


def test_more_fields_of_the_same_version_are_ignored():
    assert loads(changed(colour='blue'), PATH, KEY) == builders.record(State.READY)


@pytest.mark.parametrize(
    'identity',
    [
        BaseIdentity(size=1, inode=2**64 - 1, mtime_ns=0),
        BaseIdentity(size=1, inode=1, mtime_ns=-1),
        BaseIdentity(size=2**63 - 1, inode=0, mtime_ns=-(2**63)),
        BaseIdentity(size=0, inode=0, mtime_ns=2**63 - 1),
    ],
    ids=['inode of 64 bits', 'modified before 1970', 'first of all times', 'last of all times'],
)
def test_whatever_a_file_system_says_of_a_base_is_read_again(identity):
    record = dataclasses.replace(builders.record(), base_identity=identity)
    assert loads(dumps(record), PATH, record.key) == record
