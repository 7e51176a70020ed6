# SPDX-License-Identifier: Apache-2.0
"""What the distribution promises from outside: entry points, commands and options."""

import importlib.metadata
import importlib.resources
import inspect
import io
import pathlib
import tomllib

from cliff.command import Command
from oslo_config import cfg
from oslo_config import generator
import pytest

from nova_qcache import conf
from nova_qcache.model import source

ROOT = pathlib.Path(__file__).parents[3]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
GENERATOR_CONF = ROOT / "etc" / "nova-qcache" / "config-generator.conf"

ENTRY_POINTS = list(importlib.metadata.distribution("nova-qcache").entry_points)
OURS = [point for point in ENTRY_POINTS if not point.group.startswith(("nova.", "tempest."))]
"""Those that need neither Nova nor tempest; the others are looked at in tests/unit/virt and in
tests/openstack."""

COMMANDS = {
    "check",
    "invalidate",
    "list",
    "pin",
    "plan",
    "record",
    "remove",
    "seal",
    "show",
    "stats",
    "unpin",
    "verify",
}


def load(group):
    return {point.name: point.load() for point in ENTRY_POINTS if point.group == group}


def options():
    return [option for _, group in conf.list_opts() for option in group]


def test_installed_entry_points_are_the_declared_ones():
    declared = {("console_scripts", *item) for item in PROJECT["scripts"].items()}
    for group, points in PROJECT["entry-points"].items():
        declared |= {(group, *item) for item in points.items()}
    assert {(point.group, point.name, point.value) for point in ENTRY_POINTS} == declared, (
        "the environment is older than pyproject.toml: install the project again"
    )


@pytest.mark.parametrize("point", OURS, ids=lambda point: f"{point.group}:{point.name}")
def test_entry_point_resolves(point):
    assert callable(point.load())


def test_only_the_entry_points_for_nova_and_tempest_are_left_out():
    assert {point.group for point in ENTRY_POINTS if point not in OURS} == {
        "nova.api.extra_spec_validators",
        "tempest.test_plugins",
    }


def test_console_scripts():
    assert set(load("console_scripts")) == {
        "nova-qcache",
        "nova-qcache-keeper",
        "nova-qcache-recorder",
        "nova-qcache-status",
    }


def test_commands():
    commands = load("nova_qcache.cli")
    assert set(commands) == COMMANDS
    for name, command in commands.items():
        assert issubclass(command, Command), name
        assert inspect.getdoc(command), f"{name} has no help"


def test_sources_are_concrete_and_know_their_scheme():
    sources = load("nova_qcache.sources")
    assert set(sources) == {"file", "nbd", "nbd+unix"}
    for name, loaded in sources.items():
        assert issubclass(loaded, source.Source), name
        assert not inspect.isabstract(loaded), name
        assert name in loaded.schemes, name


def test_options_entry_point_is_named_like_its_namespace():
    assert load("oslo.config.opts") == {"nova_qcache": conf.list_opts}
    assert "namespace = nova_qcache\n" in GENERATOR_CONF.read_text()


def test_all_options_are_in_one_group():
    assert options()
    assert {str(group) for group, _ in conf.list_opts()} == {"qcache"}


@pytest.mark.parametrize("option", options(), ids=lambda option: option.dest)
def test_option_help_is_complete(option):
    assert option.help, "no help"
    assert "Possible values" in option.help
    assert "Related options" in option.help


def test_list_opts_returns_copies():
    first, second = options(), options()
    assert first == second
    shared = {id(option) for option in first} & {id(option) for option in second}
    assert not shared, "a caller that changes an option changes it for all"
    for _, group in conf.list_opts():
        if isinstance(group, list):
            group.clear()
    assert options() == second, "a caller that changes the list changes it for all"


def test_options_can_be_registered_on_any_config():
    given = cfg.ConfigOpts()
    conf.register_opts(given)
    conf.register_opts(given)
    given([], project="nova-qcache", default_config_files=[])
    for option in options():
        getattr(given.qcache, option.dest)


def test_sample_configuration_is_generated():
    generated = cfg.ConfigOpts()
    generator.register_cli_opts(generated)
    generated(["--config-file", str(GENERATOR_CONF)], default_config_files=[])
    sample = io.StringIO()
    generator.generate(generated, output_file=sample)
    assert "[qcache]" in sample.getvalue()
    for option in options():
        assert f"#{option.dest} =" in sample.getvalue() or option.sample_default, option.dest


def test_package_tells_that_it_is_typed():
    assert importlib.resources.files("nova_qcache").joinpath("py.typed").is_file()
