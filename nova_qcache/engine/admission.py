# SPDX-License-Identifier: Apache-2.0
"""Admission: images worth a cache on this host. The pool knows whether there is room
(:mod:`nova_qcache.cache.pool`)."""

from nova_qcache.model.plan import Boot
from nova_qcache.model.plan import Policy
from nova_qcache.stats.counter_store import CounterStore

__all__ = ['Admission']


class Admission:
    def __init__(self, counter_store: CounterStore, record_from_boot: int) -> None:
        """:param record_from_boot: the boot of an image on this host that records, from 1"""
        self._counter_store = counter_store
        self._record_from_boot = record_from_boot

    def refusal(self, boot: Boot) -> str | None:
        """Return why this boot is not to record a new cache, None if it is.

        :param boot: with its image ID in canonical spelling
        """
        if boot.boots_once:
            return 'Nova made this image for this boot alone'
        if boot.policy is Policy.AUTO and self._record_from_boot > 1:
            number = self._counter_store.of(boot.image_id).boots + 1
            if number < self._record_from_boot:
                return (
                    f'it is boot {number} of the image on this host, and '
                    f'record_from_boot is {self._record_from_boot}'
                )
        return None
