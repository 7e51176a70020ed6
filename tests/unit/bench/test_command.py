# SPDX-License-Identifier: Apache-2.0
"""What bench/run.sh is told."""

import pytest

from bench.compare import __main__ as command

FILES = ['--image=/i.raw', '--json=/f.json']


@pytest.mark.parametrize('name', ['kept', 'place', 'choice', 'boot'])
def test_a_short_run_says_what_it_does_not_measure(name, capsys):
    with pytest.raises(SystemExit) as caught:
        command.parse([*FILES, '--smoke', f'--only={name}'])
    assert caught.value.code == 2
    said = capsys.readouterr().err
    assert f'"{name}"' in said
    assert 'replay, thinned, scale' in said


@pytest.mark.parametrize('words', [['--only=choice'], ['--smoke', '--only=scale'], ['--smoke']])
def test_what_it_does_measure(words):
    asked = [word.removeprefix('--only=') for word in words if word.startswith('--only=')]
    assert command.parse([*FILES, *words]).only == asked


def test_a_short_run_has_fewer_rounds():
    assert command.parse([*FILES, '--smoke']).rounds < command.parse(FILES).rounds
