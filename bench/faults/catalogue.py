# SPDX-License-Identifier: Apache-2.0
"""All faults there are."""

import random

from bench.faults import bases
from bench.faults import files
from bench.faults import processes
from bench.faults import storage
from bench.faults.fault import Fault
from bench.faults.fault import Phase

__all__ = ['FAULTS', 'choose']

FAULTS: dict[str, type[Fault]] = {
    fault.kind: fault
    for fault in (*processes.FAULTS, *storage.FAULTS, *bases.FAULTS, *files.FAULTS)
}


def choose(
    chance: random.Random, kinds: list[str], phase: Phase | None
) -> tuple[type[Fault], Phase]:
    """Return a random fault and a phase in which it can come.

    :param kinds: names of those to choose from; all if empty
    :param phase: if only one is wanted
    :raises LookupError: if there is no such fault
    """
    wanted = [FAULTS[kind] for kind in kinds] or list(FAULTS.values())
    if phase is not None:
        wanted = [fault for fault in wanted if phase in fault.phases]
    if not wanted:
        raise LookupError('no fault of these kinds can come in that phase')
    fault = chance.choice(wanted)
    return fault, phase or chance.choice(fault.phases)
