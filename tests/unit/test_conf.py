# SPDX-License-Identifier: Apache-2.0
"""The [qcache] options: what makes no sense is refused with the value and the remedy."""

import logging

from oslo_config import cfg
import pytest

from nova_qcache import conf as qcache_conf
from nova_qcache import exception
from tests.unit import builders
from tests.unit.builders import MIB

RANGES = [
    *[(f'recording_{part}_seconds', 1, None) for part in ('idle', 'settle', 'max')],
    ('guest_grace_seconds', 0, None),
    ('plan_lease_seconds', 1, None),
    ('base_reconnect_seconds', 0, None),
    ('start_timeout_seconds', 1, None),
    ('lock_timeout_seconds', 1, None),
    ('revalidate_hours', 0, None),
    ('revalidate_mib_per_second', 1, None),
    ('record_from_boot', 1, None),
    ('max_recorders', 1, None),
    ('audit_every', 0, None),
    ('rerecord_miss_percent', 0, 100),
]

QUOTAS = [
    (0, 'A quota of 0 bytes leaves no room', 'Set [qcache] quota (MiB) to 1 or more'),
    (
        2**43,
        f'A quota of {2**63} bytes is more than a file can have',
        'Set [qcache] quota (MiB) to a smaller number',
    ),
    (
        1,
        f'A quota of {MIB} bytes is less than one cluster of {2 * MIB} bytes',
        'Set [qcache] quota (MiB) to more, or [qcache] cluster_size to less',
    ),
]


def refusal(folder, **options):
    with pytest.raises(exception.BadInput) as caught:
        qcache_conf.validate(builders.config(folder, **options))
    return str(caught.value)


def test_defaults_make_sense(tmp_path):
    defaults = {option.name: option.default for option in qcache_conf.OPTS}
    qcache_conf.validate(builders.config(tmp_path, **defaults))


@pytest.mark.parametrize('name', ['cache_path', 'run_path', 'instances_path'])
@pytest.mark.parametrize('path', ['', 'relative', './here', '~/cache', '/with\0NUL'])
def test_a_folder_has_an_absolute_path(tmp_path, name, path):
    if (name, path) == ('instances_path', ''):
        path = 'also relative'  # empty means Nova's own
    said = refusal(tmp_path, **{name: path})
    assert f'[qcache] {name} = {path!r}' in said
    assert 'Give a path from the root' in said


@pytest.mark.parametrize(('name', 'least', 'most'), RANGES)
def test_ranges(tmp_path, name, least, most):
    to = '' if most is None else f' to {most}'
    for value in (least, 10**9 if most is None else most):
        fitting = {
            'recording_settle_seconds': 1,
            'recording_idle_seconds': value or 1,
            name: value,
        }
        qcache_conf.validate(builders.config(tmp_path, **fitting))
    for value in (least - 1, *([] if most is None else [most + 1])):
        assert refusal(tmp_path, **{name: value}) == (
            f"[qcache] {name} = '{value}': it is not a whole number from {least}{to}. "
            f'Give a whole number from {least}{to}.'
        )


def test_settling_takes_no_longer_than_idling(tmp_path):
    both = {'recording_idle_seconds': 5, 'recording_settle_seconds': 5}
    qcache_conf.validate(builders.config(tmp_path, **both))
    said = refusal(tmp_path, **(both | {'recording_settle_seconds': 6}))
    assert '[qcache] recording_settle_seconds = 6' in said
    assert 'Give a number up to 5' in said


@pytest.mark.parametrize('size', [4096, 65536, 2 * MIB, '4KiB', '2MiB'])
def test_cluster_sizes(tmp_path, size):
    qcache_conf.validate(builders.config(tmp_path, cluster_size=size))


@pytest.mark.parametrize(
    'size', [0, 1, 512, 2048, 4095, 4097, 12288, 4 * MIB, '1kB', '4kB', '1GiB']
)
def test_no_cluster_size(tmp_path, size):
    said = refusal(tmp_path, cluster_size=size)
    assert f'[qcache] cluster_size = {size}:' in said
    assert 'Give a power of two from 4KiB to 2MiB' in said


def test_subclusters_need_large_clusters(tmp_path):
    qcache_conf.validate(builders.config(tmp_path, extended_l2=True, cluster_size=16384))
    said = refusal(tmp_path, extended_l2=True, cluster_size=8192)
    assert '[qcache] extended_l2 = True: clusters of 8192 bytes are too small' in said
    assert 'Set cluster_size to 16KiB or more' in said


@pytest.mark.parametrize(('mib', 'reason', 'remedy'), QUOTAS)
def test_no_quota(tmp_path, mib, reason, remedy):
    said = refusal(tmp_path, quota=mib, cluster_size=2 * MIB)
    assert reason in said
    assert remedy in said


@pytest.mark.parametrize(('mib', 'reason', 'remedy'), QUOTAS)
def test_no_quota_of_one_recording(tmp_path, mib, reason, remedy):
    conf = builders.config(tmp_path, quota=16, cluster_size=2 * MIB)
    with pytest.raises(exception.InvalidQuota) as caught:
        qcache_conf.quota_bytes(conf, str(mib))
    assert reason in str(caught.value)
    assert remedy in str(caught.value)


@pytest.mark.parametrize(
    ('option', 'given', 'quota'),
    [
        (1, None, MIB),
        (16, None, 16 * MIB),
        ('16MiB', None, 16 * MIB),
        ('0.5GiB', None, 512 * MIB),
        ('500MB', None, 500_000_000),
        ('16M', None, 16 * MIB),
        ('0.5G', None, 512 * MIB),
        (16, '3', 3 * MIB),
        (0, '3MB', 3_000_000),
    ],
)
def test_quota_in_bytes(tmp_path, option, given, quota):
    assert qcache_conf.quota_bytes(builders.config(tmp_path, quota=option), given) == quota


def test_a_quota_of_one_cluster(tmp_path):
    conf = builders.config(tmp_path, quota=2, cluster_size=2 * MIB)
    assert qcache_conf.quota_bytes(conf) == 2 * MIB


def test_options_are_not_global(tmp_path):
    one, other = builders.config(tmp_path), builders.config(tmp_path)
    one.set_override('quota', 77, group='qcache')
    try:
        assert other.qcache.quota == '16'
    finally:
        one.clear_override('quota', group='qcache')


@pytest.mark.parametrize('path', ['', '/var/lib/node_exporter/nova-qcache.prom'])
def test_metrics_file(tmp_path, path):
    qcache_conf.validate(builders.config(tmp_path, metrics_file=path))


@pytest.mark.parametrize('path', ['nova-qcache.prom', '/var/lib/node_exporter/', '/x.txt', ' '])
def test_no_metrics_file(tmp_path, path):
    said = refusal(tmp_path, metrics_file=f'"{path}"')
    assert (
        f'[qcache] metrics_file = {path!r}: it is not an absolute path that ends in .prom' in said
    )
    assert 'node_exporter' in said


def test_a_folder_that_nova_claims(tmp_path):
    with pytest.raises(exception.InvalidOption, match="Nova's image cache manager"):
        qcache_conf.validate(builders.config(tmp_path, cache_path='/nova/instances/_base/'))


@pytest.mark.parametrize(
    ('lines', 'path'),
    [
        ('', '/var/lib/nova/instances'),
        ('[DEFAULT]\nstate_path = /x\n', '/x/instances'),
        ('[DEFAULT]\ninstances_path = /y\n', '/y'),
        ('[DEFAULT]\ninstances_path = /y\n[qcache]\ninstances_path = /z\n', '/z'),
    ],
)
def test_the_folder_of_instances_is_novas(tmp_path, lines, path):
    file = tmp_path / 'nova.conf'
    file.write_text(lines)
    conf = cfg.ConfigOpts()
    qcache_conf.register_opts(conf)
    qcache_conf.register_nova_opts(conf)
    conf([f'--config-file={file}'], project='nova')
    qcache_conf.validate(conf)
    assert str(qcache_conf.instances_path(conf)) == path


# -- shares of a file system


@pytest.mark.parametrize('option', ['cache_budget', 'min_free'])
@pytest.mark.parametrize(
    ('text', 'amount'),
    [
        ('17000000', 17_000_000),
        ('40GiB', 40 * 1024**3),
        ('0.5GiB', 512 * MIB),
        ('500MB', 500_000_000),
        ('20000kB', 20_000_000),
        ('20000KB', 20_000_000),
        ('16384KiB', 16 * MIB),
        ('2TB', 2 * 10**12),
        ('1PiB', 1024**5),
        ('20%', 200 * MIB),
        ('2.5%', 25 * MIB),
        ('99%', 990 * MIB),
    ],
)
def test_amounts(tmp_path, option, text, amount):
    conf = builders.config(tmp_path, **{option: text})
    qcache_conf.validate(conf)
    of = {'cache_budget': qcache_conf.budget_bytes, 'min_free': qcache_conf.min_free_bytes}
    assert of[option](conf, 1000 * MIB) == amount


@pytest.mark.parametrize(
    ('option', 'text', 'amount'),
    [('cache_budget', '100%', 64 * MIB), ('min_free', '0%', 0), ('min_free', '0', 0)],
)
def test_amounts_at_the_end_of_their_range(tmp_path, option, text, amount):
    conf = builders.config(tmp_path, **{option: text})
    qcache_conf.validate(conf)
    of = {'cache_budget': qcache_conf.budget_bytes, 'min_free': qcache_conf.min_free_bytes}
    assert of[option](conf, 64 * MIB) == amount


@pytest.mark.parametrize(
    ('option', 'text', 'allowed'),
    [
        *[('cache_budget', text, '1% to 100%') for text in ('0%', '0.9%', '100.1%', '101%')],
        *[('min_free', text, '0% to 99%') for text in ('99.5%', '100%', '1000%')],
    ],
)
def test_shares_out_of_range(tmp_path, option, text, allowed):
    said = refusal(tmp_path, **{option: text})
    assert f'[qcache] {option} = {text}: it is out of range' in said
    assert f'Give a percentage from {allowed}' in said


@pytest.mark.parametrize(
    'option', ['cache_budget', 'min_free', 'quota', 'cluster_size', 'scrub_mib']
)
@pytest.mark.parametrize(
    'text',
    [
        '', 'much', '-1', '-5%', '+5GiB', '40 GiB', '512m', '512Mi', '40Gib', '10Gb', '5 %', '%',
        '.5%', '5%%', '1e9', '1,5GiB', '40gib', '5B', '9' * 20,
        '9' * 20 + 'GiB', 'nan%', '\u0663GiB',
    ],
)  # fmt: skip
def test_no_amounts(tmp_path, option, text):
    said = refusal(tmp_path, **{option: text})
    assert f'[qcache] {option} = {text!r}: it is not an amount' in said
    assert 'such as 512MiB or 40GB' in said


@pytest.mark.parametrize(
    ('text', 'said_as'),
    [('16777215', ''), ('0', ''), ('15MiB', f'it is {15 * MIB} bytes, and ')],
)
def test_a_budget_without_room_for_one_quota(tmp_path, text, said_as):
    said = refusal(tmp_path, cache_budget=text)
    assert f'[qcache] cache_budget = {text}: {said_as}a quota is {16 * MIB} bytes' in said
    assert 'or set [qcache] quota (MiB) to less' in said


def test_a_budget_with_room_for_one_quota(tmp_path):
    qcache_conf.validate(builders.config(tmp_path, cache_budget='16MiB'))


@pytest.mark.parametrize('option', ['quota', 'scrub_mib'])
def test_what_a_number_without_a_unit_is_said(tmp_path, option):
    assert 'Give a number of MiB, or one with a unit' in refusal(tmp_path, **{option: '512Mb'})
    of = {'quota': qcache_conf.quota_bytes, 'scrub_mib': qcache_conf.scrub_bytes}
    assert of[option](builders.config(tmp_path, **{option: '8'})) == 8 * MIB
    assert of[option](builders.config(tmp_path, **{option: '8MiB'})) == 8 * MIB


# -- values of another type


@pytest.mark.parametrize(
    ('option', 'kind'),
    [('max_recorders', 'a whole number from 1'), ('start_keeper', 'True or False')],
)
@pytest.mark.parametrize('value', ['much', '1.5', ''])
def test_a_value_of_another_type(tmp_path, option, kind, value):
    conf = builders.config(tmp_path, **{option: value})
    conf.log_opt_values(logging.getLogger(), logging.DEBUG)  # as nova-compute does at its start
    with pytest.raises(exception.InvalidOption) as caught:
        qcache_conf.validate(conf)
    assert str(caught.value) == f'[qcache] {option} = {value!r}: it is not {kind}. Give {kind}.'


def test_a_value_of_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv('OS_QCACHE__MAX_RECORDERS', 'many')
    assert "[qcache] max_recorders = 'many': it is not a whole number" in refusal(tmp_path)


def test_a_path_with_an_option_that_nobody_knows(tmp_path):
    said = refusal(tmp_path, cache_path='/srv/$nowhere')
    assert said.startswith("[qcache] cache_path = '/srv/$nowhere': ")
    assert 'nowhere' in said
    assert said.endswith('Write $$ for a $.')


# -- folders


@pytest.mark.parametrize('end', ['', '/', '/.', '/../cache'])
def test_a_folder_for_both(tmp_path, end):
    said = refusal(tmp_path, run_path=f'{tmp_path}/cache{end}')
    assert (
        f'[qcache] run_path = {tmp_path}/cache{end}: it is the same folder as cache_path. Give'
        in said
    )


@pytest.mark.parametrize('option', ['cache_path', 'run_path', 'instances_path'])
def test_a_folder_whose_name_is_no_text(tmp_path, option, monkeypatch):
    conf = builders.config(tmp_path)
    conf.set_override(option, '/no\udcffutf-8', group='qcache')
    with pytest.raises(exception.InvalidOption, match=f'{option} = .* its name is not UTF-8'):
        qcache_conf.validate(conf)
