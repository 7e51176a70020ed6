# SPDX-License-Identifier: Apache-2.0
"""What lies in the folder of the caches, however it got there."""

import os
import time

from hypothesis import settings
from hypothesis import stateful
from hypothesis import strategies as st
import pytest

from nova_qcache.cache.directory import CacheDirectory
from nova_qcache.model.key import CacheKey
from tests.unit import sites
from tests.unit.builders import GENERATION
from tests.unit.builders import IMAGE
from tests.unit.builders import KEY
from tests.unit.builders import OTHER_IMAGE

OTHER = CacheKey(OTHER_IMAGE, GENERATION)
MIB = 1024 * 1024


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / 'cache'
    made.mkdir()
    return made


@pytest.fixture
def directory(folder):
    return CacheDirectory(folder)


def settle(folder):
    """Let the folder look as if it had not changed for a while."""
    os.utime(folder, ns=(10**18, 10**18))


def test_an_empty_folder(directory):
    assert directory.keys() == directory.recordings() == list(directory.foreign()) == []
    assert directory.allocated() == 0


def test_a_folder_that_is_not_there(tmp_path):
    directory = CacheDirectory(tmp_path / 'missing')
    assert directory.keys() == []
    assert directory.allocated() == 0


def test_what_is_there(folder, directory):
    revision = KEY.next_revision()
    (folder / f'{KEY.stem}.json').write_text('')
    (folder / f'{KEY.stem}.qcow2').write_bytes(b'x' * MIB)
    (folder / f'{revision.stem}.recording').write_bytes(b'x' * 2 * MIB)
    (folder / f'{OTHER.stem}.json').write_text('')
    assert directory.keys() == sorted([KEY, revision, OTHER])
    assert directory.keys(IMAGE) == [KEY, revision]
    assert directory.keys(OTHER_IMAGE) == [OTHER]
    assert directory.recordings() == [revision]
    assert {key: [file.length for file in files] for key, files in directory.files().items()} == {
        KEY: [MIB],
        revision: [2 * MIB],
    }


@pytest.mark.parametrize('ask', [CacheDirectory.files, CacheDirectory.recordings])
def test_each_question_looks_for_itself(folder, ask):
    (folder / f'{KEY.stem}.recording').write_bytes(b'x')
    assert list(ask(CacheDirectory(folder))) == [KEY]


def test_space_is_what_is_allocated(folder, directory):
    sparse, reserved = folder / f'{KEY.stem}.qcow2', folder / f'{OTHER.stem}.recording'
    with open(sparse, 'wb') as file:
        file.write(b'x' * MIB)
        file.truncate(64 * MIB)
    with open(reserved, 'wb') as file:
        os.posix_fallocate(file.fileno(), 0, 8 * MIB)
        file.truncate(4096)
        os.posix_fallocate(file.fileno(), 0, 8 * MIB)
    assert directory.allocated() == pytest.approx(9 * MIB, abs=65536)
    assert directory.allocated() < os.stat(sparse).st_size


def test_a_file_with_two_names_takes_its_space_once(folder, directory):
    retagged = CacheKey(IMAGE, GENERATION.next())
    (folder / f'{KEY.stem}.qcow2').write_bytes(b'x' * MIB)
    once = directory.allocated()
    os.link(folder / f'{KEY.stem}.qcow2', folder / f'{retagged.stem}.qcow2')
    assert directory.allocated() == once
    (folder / f'{KEY.stem}.qcow2').unlink()
    assert directory.allocated() == once


def test_a_recording_grows(folder, directory):
    path = folder / f'{KEY.stem}.recording'
    path.write_bytes(b'')
    settle(folder)
    assert directory.allocated() == 0
    path.write_bytes(b'x' * MIB)
    settle(folder)  # nothing in the folder itself says so
    assert directory.allocated() >= MIB


def test_what_is_not_ours_is_named(folder, directory):
    for name in ('locks', 'generations', 'statistics', 'pins', f'{KEY.stem}.json', '.hidden'):
        (folder / name).write_text('')
    (folder / 'lost+found').mkdir()
    (folder / 'notes.txt').write_text('')
    (folder / 'x.qcow2').write_text('')
    assert list(directory.foreign()) == ['lost+found', 'notes.txt', 'x.qcow2']


def test_a_link_to_elsewhere_is_no_cache_file(folder, directory, tmp_path):
    (tmp_path / 'large').write_bytes(b'x' * MIB)
    (folder / f'{KEY.stem}.qcow2').symlink_to(tmp_path / 'large')
    assert directory.allocated() == 0


def test_an_unchanged_folder_is_listed_once(folder, directory, monkeypatch):
    (folder / f'{KEY.stem}.json').write_text('')
    settle(folder)
    listed = []
    real = os.listdir

    def listdir(path):
        listed.append(path)
        return real(path)

    monkeypatch.setattr(os, 'listdir', listdir)
    for _ in range(5):
        assert directory.keys(IMAGE) == [KEY]
    assert len(listed) == 1
    (folder / f'{OTHER.stem}.json').write_text('')
    assert directory.keys() == [KEY, OTHER] or directory.keys() == [OTHER, KEY]
    assert len(listed) > 1


@pytest.mark.parametrize(
    ('ago', 'is_whole_second'), [(0, False), (1_900_000_000, True), (900_000_000, True)]
)
def test_a_change_within_the_tick_of_the_last_look_is_seen(
    folder, directory, ago, is_whole_second, monkeypatch
):
    """Some file systems count in whole seconds."""
    changed_at = 1_700_000_000_000_000_000 if is_whole_second else 1_700_000_000_000_000_001
    monkeypatch.setattr(time, 'time_ns', lambda: changed_at + ago)
    os.utime(folder, ns=(changed_at, changed_at))
    assert directory.keys() == []
    (folder / f'{KEY.stem}.json').write_text('')
    os.utime(folder, ns=(changed_at, changed_at))
    assert directory.keys() == [KEY]


@pytest.mark.parametrize(('fraction', 'ago'), [(1, 60_000_000), (0, 2_100_000_000)])
def test_a_folder_that_has_settled_is_relied_upon(folder, directory, fraction, ago, monkeypatch):
    changed_at = 1_700_000_000_000_000_000 + fraction
    os.utime(folder, ns=(changed_at, changed_at))
    monkeypatch.setattr(time, 'time_ns', lambda: changed_at + ago)
    assert directory.keys() == []
    monkeypatch.setattr(os, 'listdir', None)
    assert directory.keys() == []


class Walk(stateful.RuleBasedStateMachine):
    """One object beside a folder that others change, compared with one that sees it for the
    first time."""

    KEYS = (KEY, KEY.next_revision(), OTHER)

    @stateful.initialize()
    def begin(self):
        self.place = sites.memory_folder()
        self.folder = self.place.__enter__()
        self.directory = CacheDirectory(self.folder)

    def teardown(self):
        if hasattr(self, 'place'):
            self.place.__exit__(None, None, None)

    @stateful.rule(
        key=st.sampled_from(KEYS), suffix=st.sampled_from(['.json', '.recording', '.qcow2', '.x'])
    )
    def add(self, key, suffix):
        path = self.folder / f'{key.stem}{suffix}'
        if not path.exists():
            path.write_bytes(b'x' * 4096)

    @stateful.rule(data=st.data())
    def remove(self, data):
        names = sorted(os.listdir(self.folder))
        if names:
            (self.folder / data.draw(st.sampled_from(names))).unlink()

    @stateful.rule(key=st.sampled_from(KEYS))
    def seal(self, key):
        recording = self.folder / f'{key.stem}.recording'
        if recording.exists():
            recording.rename(self.folder / f'{key.stem}.qcow2')

    @stateful.invariant()
    def it_sees_what_a_new_one_sees(self):
        if not hasattr(self, 'folder'):
            return
        new = CacheDirectory(self.folder)
        assert self.directory.keys() == new.keys()
        for key in self.KEYS:
            assert self.directory.keys(key.image_id) == new.keys(key.image_id)
        assert sorted(self.directory.recordings()) == sorted(new.recordings())
        assert list(self.directory.foreign()) == list(new.foreign())
        assert set(self.directory.files()) == set(new.files())


TestWalk = pytest.mark.random(Walk.TestCase)
TestWalk.settings = settings(stateful_step_count=30)
