# SPDX-License-Identifier: Apache-2.0
"""Where recorders and the keeper write their log."""

import os
import subprocess
import sys
from unittest import mock

from oslo_config import cfg
from oslo_log import log
import pytest

from nova_qcache import exception
from nova_qcache.cmd import background
from tests.unit import builders


@pytest.mark.parametrize(
    ('options', 'file'),
    [
        ({}, None),
        ({'log_dir': '/var/log/nova'}, 'program.log'),
        ({'log_dir': '/var/log/nova', 'log_file': 'all.log'}, 'all.log'),
        ({'log_file': '/var/log/all.log'}, '/var/log/all.log'),
    ],
)
def test_the_name_of_the_file(tmp_path, options, file):
    lines = [f'{name} = {value}\n' for name, value in options.items()]
    (tmp_path / 'x.conf').write_text(''.join(['[DEFAULT]\n', *lines]))
    conf = cfg.ConfigOpts()
    log.register_options(conf)
    conf([f'--config-file={tmp_path / "x.conf"}'], project='nova')
    with mock.patch.object(log, 'setup', autospec=True) as setup:
        background.set_up(conf, 'program')
    setup.assert_called_once_with(conf, 'program')
    assert conf.log_file == file


@pytest.mark.parametrize(
    ('program', 'arguments'),
    [('recorder', ['--base=/no/such/base', builders.IMAGE]), ('keeper', ['--config-file=/none'])],
)
def test_a_program_that_is_started_by_the_name_of_its_module(short_folder, program, arguments):
    builders.config(short_folder)
    file = short_folder / 'nova.conf'
    file.write_text(f'[DEFAULT]\nlog_dir = {short_folder}\n{file.read_text()}')
    if program == 'keeper':
        (short_folder / 'run').write_text('')  # so that it ends at once
        arguments = []
    configuration = [f'--config-file={file}', f'--config-dir={short_folder}']  # and none in /etc
    subprocess.run(
        [sys.executable, '-m', f'nova_qcache.cmd.{program}', *configuration, *arguments],
        capture_output=True,
    )
    assert f'nova-qcache-{program}.log' in os.listdir(short_folder)


def test_a_log_that_cannot_be_written(tmp_path, root_logger):
    path = tmp_path / 'none' / 'x.log'
    conf = cfg.ConfigOpts()
    log.register_options(conf)
    conf([], project='nova', default_config_files=[], default_config_dirs=[])
    conf.set_override('log_file', str(path))
    with pytest.raises(exception.FileUnfit) as caught:
        background.set_up(conf, 'program')
    assert str(caught.value) == (
        f'The log file {str(path)!r} cannot be used: No such file or directory. Give it to the '
        'user that nova-compute runs as, or name another one with [DEFAULT] log_file.'
    )
