# SPDX-License-Identifier: Apache-2.0
"""Removing a cache that somebody uses or is about to: it is refused, and nothing is lost."""

import pathlib
from unittest import mock

import pytest

from nova_qcache import exception
from nova_qcache.cache import view
from nova_qcache.cache.usage import Domains
from nova_qcache.engine.manager import Manager
from nova_qcache.model.key import CacheKey
from nova_qcache.model.key import Generation
from nova_qcache.system import locks
from tests.unit import builders
from tests.unit.builders import GENERATION
from tests.unit.builders import IMAGE
from tests.unit.builders import KEY
from tests.unit.builders import OTHER_IMAGE

OTHER = CacheKey(OTHER_IMAGE, GENERATION)
NEWER = CacheKey(IMAGE, Generation('000000000000', 1))
INSTANCE = '11111111-1111-1111-1111-111111111111'


def naming(*named):
    """The XML of a domain with these files."""
    sources = ''.join(f"<source file='{path}'/>" for path in named)
    return f'<domain><devices><disk>{sources}</disk></devices></domain>'


class TestRemoveOfWhatIsUsed:
    @pytest.fixture
    def domains(self):
        """What tells of domains; there are none."""
        made = mock.create_autospec(Domains, instance=True)
        made.documents.side_effect = lambda: iter(())
        return made

    @pytest.fixture
    def manager(self, conf, source, launch_start, recorder, verifier, current, domains):
        return Manager(conf, domains)

    @pytest.fixture
    def at_work(self, recorder):
        """A recorder that answers."""
        recorder.status.side_effect = None
        recorder.status.return_value = builders.status()
        return recorder

    @pytest.fixture
    def kept(self, catalog):
        """Two caches of the image, and a way to see that nothing of them has changed."""
        before = [builders.ready(catalog), builders.ready(catalog, key=NEWER)]

        def check():
            assert [catalog.load(KEY), catalog.load(NEWER)] == before
            for record in before:
                assert catalog.require_unchanged(record).read_bytes() == b'cached'

        return check

    def test_a_domain(self, manager, kept, paths, domains):
        text = naming('/disk', paths.sealed(NEWER))
        domains.documents.side_effect = lambda: iter([('domain one', text)])
        with pytest.raises(exception.CacheInUse) as caught:
            manager.remove(IMAGE)
        assert f'{str(paths.sealed(NEWER))!r} is in use: domain one names it' in str(caught.value)
        kept()

    def test_a_lease(self, manager, kept, leases):
        leases.take(INSTANCE, KEY)
        with pytest.raises(exception.CacheInUse, match=INSTANCE):
            manager.remove(IMAGE)
        kept()

    def test_a_rescued_instance(self, manager, kept, conf, paths):
        folder = pathlib.Path(conf.qcache.instances_path) / INSTANCE
        folder.mkdir(parents=True)
        (folder / 'unrescue.xml').write_text(naming(paths.sealed(KEY)))
        with pytest.raises(exception.CacheInUse, match=f'rescued instance {INSTANCE}'):
            manager.remove(IMAGE)
        kept()

    def test_nobody_can_tell(self, manager, kept, domains):
        domains.documents.side_effect = exception.DomainsUnknown(uri='x:///', reason='y')
        with pytest.raises(exception.CacheInUse, match=r'domains at .* use: y\. .*add --force'):
            manager.remove(IMAGE)
        kept()

    def test_a_recording_of_a_domain_is_not_dropped(self, manager, catalog, at_work, leases):
        before = builders.warm(catalog)
        leases.take(INSTANCE, KEY)
        with pytest.raises(exception.CacheInUse):
            manager.remove(IMAGE)
        at_work.drop.assert_not_called()
        at_work.leave.assert_not_called()
        assert catalog.load(KEY) == before

    def test_force(self, manager, catalog, kept, leases, domains):
        leases.take(INSTANCE, KEY)
        domains.documents.side_effect = exception.DomainsUnknown(uri='x:///', reason='y')
        assert set(manager.remove(IMAGE, force=True)) == {KEY, NEWER}
        assert catalog.keys() == []
        domains.documents.assert_not_called()

    def test_those_of_other_images_do_not_count(self, manager, catalog, kept, leases, paths):
        builders.ready(catalog, key=OTHER)
        leases.take(INSTANCE, OTHER)
        manager.remove(IMAGE)
        assert catalog.keys() == [OTHER]

    def test_a_boot_that_comes_after_the_first_look(self, manager, kept, leases):
        """It is seen by the second one, under the lock."""
        closed = view.require_closed

        def and_then_one_boots(view):
            leases.take(INSTANCE, KEY)
            leases.take(INSTANCE + '2', NEWER)
            closed(view)

        with (
            mock.patch.object(
                view, 'require_closed', autospec=True, side_effect=and_then_one_boots
            ),
            pytest.raises(exception.CacheInUse, match=INSTANCE),
        ):
            manager.remove(IMAGE)
        kept()

    def test_the_last_look_is_under_the_lock(self, manager, catalog, kept, paths, domains):
        """Whoever takes a lease then waits, and finds no cache."""
        held = []

        def look():
            try:
                with locks.lease(paths.locks, IMAGE, 0):
                    held.append(False)
            except exception.LockTimeout:
                held.append(True)
            return iter(())

        domains.documents.side_effect = look
        manager.remove(IMAGE)
        assert held == [False, False, True, True]
        taken = mock.Mock()
        assert not catalog.lease(KEY, taken)
        taken.assert_not_called()
