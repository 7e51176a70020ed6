# SPDX-License-Identifier: Apache-2.0
"""The options of tempest.conf."""

import pathlib
import re

from oslo_config import cfg
import pytest

from nova_qcache_tempest_plugin import config

PAGE = pathlib.Path(__file__).parents[3] / "doc" / "source" / "contributor" / "tempest.rst"


@pytest.fixture
def conf() -> cfg.ConfigOpts:
    made = cfg.ConfigOpts()
    made.register_opt(config.SERVICE_OPTION, group=config.SERVICE_GROUP)
    made.register_opts(config.OPTS, group=config.GROUP)
    made([])
    return made


def test_without_a_word_nothing_is_run(conf):
    assert not conf.service_available.qcache
    assert conf.qcache.host_command == ""


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("host_timeout", 0),
        ("record_from_boot", 0),
        ("servers_at_once", 1),
        ("server_networks", "public"),
        ("deleted_image_timeout", -1),
    ],
)
def test_what_makes_no_sense_is_refused(conf, name, value):
    with pytest.raises(ValueError, match=r"Should be|Valid values"):
        conf.set_override(name, value, group="qcache")


def test_each_option_says_what_it_is():
    for option in [config.SERVICE_OPTION, *config.OPTS]:
        assert (option.help or "").strip(), option.name


def test_the_page_has_each_option_with_its_default():
    rows = re.findall(r"^``(\w+)`` +(\S*)  ", PAGE.read_text(), re.MULTILINE)
    assert dict(rows) == {option.name: str(option.default) for option in config.OPTS}
