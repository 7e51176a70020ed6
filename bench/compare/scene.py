# SPDX-License-Identifier: Apache-2.0
"""What all measurements of one run share: folders, the network, the image and the reads of its
boot."""

from collections.abc import Callable, Iterator
import contextlib
import pathlib
import random
import sys
import time

from bench import rig
from bench.compare.host import Host
from bench.compare.network import BaseServer
from bench.compare.network import Network
from bench.compare.sample import Sample
from bench.compare.trace import Trace

__all__ = ['Scene']


class Scene:
    """:param image: its folder is what the base's server serves
    :param collect: what is told of each sample
    """

    def __init__(
        self,
        where: rig.Folders,
        network: Network,
        image: pathlib.Path,
        collect: Callable[[Sample], None],
        seed: int,
    ) -> None:
        self.where = where
        self.network = network
        self.image = image
        self.collect = collect
        self.chance = random.Random(seed)
        self.trace = Trace([])
        """Of a boot; empty until it is known."""
        self.other = self.third = Trace([])
        """Of two more boots of the same image."""
        self._began = time.monotonic()

    @property
    def export(self) -> str:
        return self.image.name

    @contextlib.contextmanager
    def base(
        self, rate: str, delay_ms: int = 0, folder: pathlib.Path | None = None
    ) -> Iterator[BaseServer]:
        """Serve the image, or all images of a folder, at the speed of a network."""
        self.network.limit(rate)
        log = self.where.data / 'base.log'
        with BaseServer(self.network, folder or self.image.parent, log, delay_ms) as server:
            yield server

    def host(self, base: BaseServer, **more: bool) -> Host:
        return Host(self.where, base, self.export, self.image, **more)

    def say(self, text: str) -> None:
        print(f'{time.monotonic() - self._began:7.1f} s  {text}', file=sys.stderr, flush=True)
