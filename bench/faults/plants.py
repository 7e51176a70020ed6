# SPDX-License-Identifier: Apache-2.0
"""Losses that are planted, to prove that the harness finds them, each exactly once."""

import subprocess
from typing import Any

from bench.faults.guest import CLUSTER
from bench.faults.scene import Scene
from tests.functional import users

__all__ = ['PLANTS', 'Plant']


class Plant:
    def prepare(self, scene: Scene) -> None:
        """Before the first boot."""

    def special(self, scene: Scene) -> dict[str, Any]:
        """What is special about the first guest; see :meth:`Scene.begin_boot`."""
        return {}

    def leak(self, scene: Scene) -> None:
        """Before everything is cleared up."""


class WrongCluster(Plant):
    """One cluster of the first guest's chain has other bytes than the base."""

    def special(self, scene: Scene) -> dict[str, Any]:
        begin, length = scene.chance.choice(scene.base.data)
        place = begin + scene.chance.randrange(length // CLUSTER) * CLUSTER
        return {'poisoned': place, 'first': (place,)}


class OneError(Plant):
    """One read of the first guest fails (EIO)."""

    def special(self, scene: Scene) -> dict[str, Any]:
        return {'fails_once': True}


class Leak(Plant):
    """A process and a file of the product's are left."""

    def leak(self, scene: Scene) -> None:
        scene.site.start(['sleep', '300'], stdout=subprocess.DEVNULL, **users.PRODUCT.arguments())
        (scene.site.cache_path / 'left.recording').write_bytes(bytes(4096))


PLANTS: dict[str, type[Plant]] = {
    'wrong-cluster': WrongCluster,
    'eio': OneError,
    'leak': Leak,
}
