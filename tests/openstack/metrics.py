# SPDX-License-Identifier: Apache-2.0
"""The metrics file of the host, as node_exporter reads it.

It is the last thing that a run of Nova's image cache manager writes, so it tells of runs as well.
"""

import functools
import pathlib

from prometheus_client import parser

from tests.openstack import waiting
from tests.openstack.compute import ComputeHost

__all__ = ['METRICS_FILE', 'Metrics', 'Samples', 'growth']

METRICS_FILE = {'metrics_file': '/var/lib/nova/metrics/nova_qcache.prom'}
"""The option that says where nova-compute is to write it."""
_PREFIX = 'nova_qcache_'

Samples = dict[tuple[str, ...], float]
"""Values by the name without its prefix, and the values of the labels."""


class Metrics:
    def __init__(self, host: ComputeHost) -> None:
        (path,) = METRICS_FILE.values()
        self.path = host.host.outside(path)
        self._stack = host.stack
        self._folder = str(pathlib.Path(path).parent)

    def prepare(self) -> None:
        self._stack.exec(['install', '-d', '-o', 'nova', self._folder])

    def clear(self) -> None:
        self._stack.exec(['rm', '-rf', self._folder])

    def wait_for_run(self) -> None:
        """Wait until a run that begins after now is over."""
        for _ in range(2):
            before = self._written_at()
            changed = functools.partial(self._was_written_since, before)
            waiting.until(changed, 'a run of the image cache manager')

    def read(self) -> Samples:
        """Return what a run that begins after now writes."""
        self.wait_for_run()
        return {
            (sample.name.removeprefix(_PREFIX), *sample.labels.values()): sample.value
            for family in parser.text_string_to_metric_families(self.path.read_text())
            for sample in family.samples
        }

    def _was_written_since(self, moment: int) -> bool:
        return self._written_at() != moment

    def _written_at(self) -> int:
        return self.path.stat().st_mtime_ns if self.path.exists() else 0


def growth(before: Samples, after: Samples, name: str) -> dict[str, float]:
    """Return by how much the samples of a metric have grown, by their one label."""
    return {key[1]: value - before[key] for key, value in after.items() if key[0] == name}
