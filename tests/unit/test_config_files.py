# SPDX-License-Identifier: Apache-2.0
"""The files that configure a program, and what stands in them."""

from unittest import mock

from oslo_config import cfg
import pytest

from nova_qcache import conf as qcache_conf
from nova_qcache import config_files
from nova_qcache import exception
from nova_qcache.config_files import Written


def read(*arguments):
    conf = cfg.ConfigOpts()
    qcache_conf.register_opts(conf)
    config_files.read(conf, arguments, 'nova-qcache')
    return conf


@pytest.fixture
def file(tmp_path):
    path = tmp_path / 'one.conf'
    path.write_text('[qcache]\nquota = 5\nqouta = 6\n[qcache]\nquota = 7\n[x]\ny = 1\n')
    return path


def test_what_is_written(file, tmp_path):
    other = tmp_path / 'other.conf'
    other.write_text('[QCACHE]\nmax_recorders = many\nqouta = 9\n')
    conf = read(f'--config-file={file}', f'--config-file={other}')
    assert config_files.names(conf) == [str(file), str(other)]
    assert config_files.written(conf) == {
        'quota': Written('7', str(file)),
        'qouta': Written('9', str(other)),
        'max_recorders': Written('many', str(other)),
    }


def test_another_program_reads_the_same_configuration(tmp_path, monkeypatch):
    file, folder = tmp_path / 'nova.conf', tmp_path / 'conf.d'
    file.write_text('[qcache]\nquota = 7\n')
    folder.mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('HOME', str(tmp_path))
    for name in ('nova.conf', '~/nova.conf'):
        conf = read(f'--config-file={name}', f'--config-dir={folder}')
        arguments = config_files.arguments(conf)
        assert arguments == [f'--config-file={file}', f'--config-dir={folder}']
        assert config_files.written(conf)['quota'].value == '7'


def test_no_configuration_at_all():
    conf = cfg.ConfigOpts()
    config_files.read(conf, [], 'x', default_config_files=[], default_config_dirs=[])
    assert config_files.arguments(conf) == []


def test_a_file_that_has_gone_since(file):
    conf = read(f'--config-file={file}')
    file.unlink()
    assert config_files.written(conf) == {}


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(exception.FileUnfit) as caught:
        read(f'--config-file={tmp_path}')
    assert str(caught.value) == (
        f'The configuration file {str(tmp_path)!r} cannot be used: Is a directory. '
        'Name another one with --config-file.'
    )


def test_a_file_that_is_no_text_and_gone_since(file):
    file.write_bytes(b'[qcache]\n# gr\xfcn')
    with (
        open(file, encoding='utf-8') as given,
        mock.patch('builtins.open', autospec=True) as opened,
        pytest.raises(exception.FileUnfit) as caught,
    ):
        opened.side_effect = [given, FileNotFoundError]
        read(f'--config-file={file}')
    assert ': it is not UTF-8.' in str(caught.value)


def test_what_is_no_text_and_no_file():
    error = UnicodeDecodeError('utf-8', b'\xfc', 0, 1, 'invalid start byte')
    with pytest.raises(cfg.Error, match='invalid start byte'):
        config_files.read(mock.Mock(side_effect=error), [], 'nova-qcache')


@pytest.mark.parametrize('where', ['--config-file', '--config-dir'])
def test_a_file_that_is_no_text(file, tmp_path, where):
    comment = '# gr\u00fcn, and far behind the first part that is read\n' * 1000
    text = f'[qcache]\n{comment}# gr\u00fcn'
    file.write_bytes(text.encode() + b', gr\xfcn\nquota = 5\n')
    (tmp_path / 'two.conf').write_text('[qcache]\n')
    with pytest.raises(exception.FileUnfit) as caught:
        read(f'{where}={file if where == "--config-file" else tmp_path}')
    assert str(caught.value) == (
        f'The configuration file {str(file)!r} cannot be used: '
        'byte 12 of line 1002 (0xfc) is not UTF-8. Save it in that encoding.'
    )
