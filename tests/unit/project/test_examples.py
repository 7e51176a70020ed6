# SPDX-License-Identifier: Apache-2.0
"""The example files in etc are true: their options exist and make sense, and their names agree
with the code and with each other. tests/functional has the programs read them."""

import configparser
import pathlib
import re
import stat
import tomllib
from typing import Any

from oslo_config import cfg
import pytest
import yaml

from nova_qcache import conf as qcache_conf
from nova_qcache.system import process_survival
from nova_qcache.system.paths import Paths

ROOT = pathlib.Path(__file__).parents[3]
ETC = ROOT / 'etc'
PROJECT = tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']

UNIT = ETC / 'systemd/system/nova-compute.service.d/nova-qcache.conf'
TMPFILES = ETC / 'tmpfiles.d/nova-qcache.conf'
LOGROTATE = ETC / 'logrotate.d/nova-qcache'
CONTAINERFILE = ETC / 'container/Containerfile'
KOLLA = ETC / 'kolla/config/nova/nova-compute.conf'
KOLLA_GLOBALS = ETC / 'kolla/globals.d/nova-qcache.yml'
OPENSTACK_ANSIBLE = ETC / 'openstack_deploy/group_vars/nova_compute.yml'
ANSIBLE = ETC / 'ansible/nova-qcache.yml'

WHEEL = f'{PROJECT["name"].replace("-", "_")}-{{}}.whl'

Sections = dict[str, dict[str, str]]


def ini(path: pathlib.Path) -> Sections:
    parser = configparser.ConfigParser(interpolation=None, default_section='', strict=True)
    parser.optionxform = str  # type: ignore[assignment]
    parser.read_string(path.read_text())
    return {name: dict(section) for name, section in parser.items() if name}


def load_yaml(path: pathlib.Path) -> Any:
    return yaml.safe_load(path.read_text())


def play() -> dict[str, Any]:
    (only,) = load_yaml(ANSIBLE)
    assert isinstance(only, dict)
    return only


def filled_in(text: Any, variables: dict[str, Any]) -> str:
    """Put variables of the play into ``{{ name }}`` and ``{{ name.part }}``."""

    def value(match: re.Match[str]) -> str:
        found: Any = variables
        for part in match[1].split('.'):
            found = found[part]
        return filled_in(found, variables)

    return re.sub(r'\{\{ ([\w.]+) \}\}', value, str(text))


def of_ansible() -> Sections:
    """What the play writes into configuration files."""
    variables = play()['vars']
    found: Sections = {}
    for task in play()['tasks']:
        settings = task.get('community.general.ini_file')
        if settings is None:
            continue
        items: list[Any] = [None]
        if 'loop' in task:
            assert task['loop'] == '{{ nova_qcache | dict2items }}'
            items = [{'key': key, 'value': it} for key, it in variables['nova_qcache'].items()]
        for item in items:
            known = {**variables, 'item': item}
            section = found.setdefault(settings['section'], {})
            section[filled_in(settings['option'], known)] = filled_in(settings['value'], known)
    return found


def of_openstack_ansible() -> Sections:
    overrides = load_yaml(OPENSTACK_ANSIBLE)['nova_nova_conf_overrides']
    return {name: {k: str(v) for k, v in section.items()} for name, section in overrides.items()}


SETTINGS = {
    'plain Ansible': of_ansible(),
    'Kolla Ansible': ini(KOLLA),
    'OpenStack-Ansible': of_openstack_ansible(),
}


# -- nova.conf


@pytest.mark.parametrize('sections', SETTINGS.values(), ids=SETTINGS)
def test_the_two_settings(sections):
    assert set(sections) == {'DEFAULT', 'qcache'}
    assert sections['DEFAULT'] == {'compute_driver': 'qcache.QcacheDriver'}


@pytest.mark.parametrize('sections', SETTINGS.values(), ids=SETTINGS)
def test_all_options_exist_and_make_sense(sections, tmp_path):
    file = tmp_path / 'nova.conf'
    lines = [f'{name} = {value}\n' for name, value in sections['qcache'].items()]
    file.write_text(''.join(['[qcache]\n', *lines]))
    conf = cfg.ConfigOpts()
    qcache_conf.register_opts(conf)
    conf([f'--config-file={file}'], project='nova')
    qcache_conf.validate(conf)
    for name, value in sections['qcache'].items():
        assert str(getattr(conf.qcache, name)) == value


@pytest.mark.parametrize('sections', SETTINGS.values(), ids=SETTINGS)
def test_the_folders_are_the_defaults(sections):
    """So the other examples, of tmpfiles.d for one, go with them."""
    for name in ('cache_path', 'run_path'):
        assert sections['qcache'][name] == default(name)


def default(name: str) -> str:
    (option,) = (each for _, opts in qcache_conf.list_opts() for each in opts if each.dest == name)
    return str(option.default)


# -- systemd


def test_the_unit_lets_recorders_live():
    service = ini(UNIT)
    assert service == {'Service': {'KillMode': 'process', 'OOMPolicy': 'continue'}}
    assert service['Service']['KillMode'] in process_survival._SURVIVES


def test_openstack_ansible_makes_the_same_unit():
    assert load_yaml(OPENSTACK_ANSIBLE)['nova_compute_init_overrides'] == ini(UNIT)


def test_the_folder_of_the_sockets(tmp_path):
    (line,) = (
        line for line in TMPFILES.read_text().splitlines() if line and not line.startswith('#')
    )
    paths = Paths(tmp_path / 'cache', tmp_path / 'run')
    paths.prepare()
    mode = stat.S_IMODE(paths.run_path.stat().st_mode)
    assert line == f'd {default("run_path")} {mode:04o} nova nova -'
    guests = f'd {default("run_path")}/guests {stat.S_IMODE(paths.guests.stat().st_mode):04o} nova'
    assert f'#     {guests} qemu -\n' in TMPFILES.read_text()


# -- logrotate


def test_the_logs_are_those_of_programs_without_a_terminal():
    names = re.findall(r'/var/log/nova/(\S+)\.log', LOGROTATE.read_text().partition('\n\n')[2])
    assert names == ['nova-qcache-keeper', 'nova-qcache-recorder']
    assert set(names) <= set(PROJECT['scripts'])


# -- containers


def instructions() -> list[tuple[str, str]]:
    text = re.sub(r'^#.*\n', '', CONTAINERFILE.read_text(), flags=re.M).replace('\\\n', ' ')
    return [
        (line.partition(' ')[0], ' '.join(line.partition(' ')[2].split()))
        for line in text.splitlines()
        if line.strip()
    ]


def test_the_image_has_what_bindep_names():
    needed = re.findall(r'^(\S+) \[platform:dpkg\]$', (ROOT / 'bindep.txt').read_text(), re.M)
    (packages,) = re.findall(r'--no-install-recommends ([\w -]+?) &&', runs())
    assert sorted(packages.split()) == sorted(needed)


def runs() -> str:
    return ' && '.join(text for word, text in instructions() if word == 'RUN')


def test_the_image_is_made_of_one_of_nova_and_ends_as_its_user():
    words = [word for word, _ in instructions()]
    assert words == ['ARG', 'FROM', 'USER', 'RUN', 'COPY', 'RUN', 'USER']
    said = dict(instructions())
    assert said['FROM'] == '${BASE}'
    assert said['USER'] == 'nova'
    assert said['COPY'] == f'{WHEEL.format("*")} /tmp/nova-qcache/'
    assert re.search(rf'/pip install .* /tmp/nova-qcache/{re.escape(WHEEL.format("*"))} ', runs())
    assert (ROOT / 'nova/virt/qcache/__init__.py').exists()
    assert "-c 'import nova.virt.qcache'" in runs()


def test_kolla_ansible_takes_another_image():
    (name,) = load_yaml(KOLLA_GLOBALS)
    assert name == 'nova_compute_image_full'


# -- Ansible


def shipped() -> set[str]:
    """The files that are installed beside the package."""
    text = ini(ROOT / 'setup.cfg')['files']['data_files']
    found = set()
    folder = ''
    for line in text.splitlines():
        left, equals, right = line.rpartition('=')
        folder = left.strip() if equals else folder
        found |= {f'{folder}/{pathlib.PurePath(name).name}' for name in right.split()}
    return found


def test_the_play_copies_files_that_are_installed():
    sources = [
        task['ansible.builtin.copy']['src'].removeprefix('{{ nova_prefix }}/')
        for task in play()['tasks']
        if task.get('ansible.builtin.copy', {}).get('remote_src')
    ]
    assert len(sources) == 2
    assert set(sources) <= shipped()


def test_the_play_runs_commands_that_there_are():
    commands = [
        task['ansible.builtin.command']['cmd']
        for task in play()['tasks']
        if 'ansible.builtin.command' in task
    ]
    assert commands == [
        'systemd-tmpfiles --create /etc/tmpfiles.d/nova-qcache.conf',
        '{{ nova_prefix }}/bin/nova-qcache check',
    ]
    assert 'nova-qcache' in PROJECT['scripts']
    assert 'check' in PROJECT['entry-points']['nova_qcache.cli']


def test_the_play_installs_this_project():
    """From its wheel: no package index has it."""
    variables = play()['vars']
    bring, install = play()['tasks'][:2]
    wheel = variables['nova_qcache_wheel']
    assert re.fullmatch(WHEEL.format(r'[\d.]+-py3-none-any'), wheel)
    copied = bring['ansible.builtin.copy']
    assert filled_in(copied['src'], variables) == wheel
    url = filled_in(install['ansible.builtin.pip']['name'], variables)
    assert url == f'file://{filled_in(copied["dest"], variables)}'
    (package,) = load_yaml(OPENSTACK_ANSIBLE)['nova_user_pip_packages']
    name, _, url = package.partition(' @ ')
    assert name == PROJECT['name']
    assert url.startswith('https://')
    assert url.endswith(f'/{wheel}')


def test_the_play_knows_its_names():
    """Variables and handlers; Ansible itself would only find out on the way."""
    only = play()
    used = set(re.findall(r'\{\{ (\w+)', ANSIBLE.read_text()))
    assert used - {'item'} == set(only['vars'])
    handlers = {each['name'] for each in only['handlers']}
    assert {task['notify'] for task in only['tasks'] if 'notify' in task} == handlers


def test_the_driver_is_loaded_after_the_host_was_found_fit():
    names = [task['name'] for task in play()['tasks']]
    assert names[-2:] == ['See whether the host is fit', 'Load the driver']
