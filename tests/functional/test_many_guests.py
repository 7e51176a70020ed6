# SPDX-License-Identifier: Apache-2.0
"""120 servers of one cold image at once: one recorder serves them all."""

import contextlib
import json
import pathlib
import subprocess

from tests.functional import waiting
from tests.functional.guests import Load
from tests.functional.site import MANAGER
from tests.functional.site import MIB
from tests.functional.site import NEVER
from tests.functional.site import Site

_PROCESSES = 6
_PLANS = 20
_CONSUMERS = [f'instance-{i}' for i in range(_PROCESSES * _PLANS)]

_RELEASE = """
for consumer in json.loads(sys.argv[2]):
    manager.boots.release(consumer)
"""
_TAKE_ANEW = """
*boot, consumer = json.loads(sys.argv[2])
print(manager.boots.plan(Boot(*boot, consumer=consumer)).kind.value)
"""
_MANY_PLANS = """
boot, first, number = json.loads(sys.argv[2])
plans = []
def plan(consumer):
    plans.append(manager.boots.plan(Boot(*boot, consumer=consumer)))
threads = [threading.Thread(target=plan, args=(f'instance-{first + i}',)) for i in range(number)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(json.dumps([[plan.kind.value, plan.socket, plan.reason] for plan in plans]))
"""


def _plan_all(site: Site, base: pathlib.Path) -> list[list[str]]:
    boot = [site.image_id, str(base), 'raw']
    command = [site.product.python, '-c', MANAGER + _MANY_PLANS, str(site.config)]
    with contextlib.ExitStack() as stack:
        running = [
            stack.enter_context(
                site.start([*command, json.dumps([boot, first, _PLANS])], stderr=subprocess.STDOUT)
            )
            for first in range(0, _PROCESSES * _PLANS, _PLANS)
        ]
        said = [process.communicate(timeout=waiting.PATIENCE)[0] for process in running]
    plans: list[list[str]] = []
    for text in said:
        plans += json.loads(text.splitlines()[-1])
    return plans


def _leases(site: Site) -> list[str]:
    """Return whose leases are on disk."""
    return sorted(
        json.loads(path.read_bytes())['consumer'] for path in (site.run_path / 'leases').iterdir()
    )


def test_120_servers_of_one_image(site: Site, base: pathlib.Path) -> None:
    plans = _plan_all(site, base)
    assert len(plans) == len(_CONSUMERS) == 120
    ((kind, socket, _),) = {tuple(plan) for plan in plans}
    assert kind == 'RECORD'
    # And its daemon; others that were started at the same moment have found it and leave.
    waiting.until(lambda: len(site.recorders()) == 2, 'one recorder')
    assert _leases(site) == sorted(_CONSUMERS)

    plan = {'export': 'top', 'socket': socket}
    clients = (
        '--clients=120',
        '--depth=1',
        '--size=65536',
        f'--bytes={2 * MIB}',
        f'--hold={NEVER}',
    )
    with Load(site, plan, base, *clients) as load:
        load.wait_until_read()
        assert site.show()['guests'] == 120
        refused = site.qcache('remove', site.image_id)
        assert refused.returncode == 1
        assert 'is in use' in refused.stderr
        site.ask('seal', site.image_id, '--wait')
        load.process.terminate()
        assert load.require_faultless()['bytes'] == 240 * MIB
    waiting.until(lambda: not site.recorder().guests, 'the end of the connections')
    refused = site.qcache('remove', site.image_id)
    assert 'that is on its way names it' in refused.stderr
    assert _leases(site) == sorted(_CONSUMERS)

    # Their domains are defined; the last one's never is.
    assert site.manage(_RELEASE, json.dumps(_CONSUMERS[:-1])).stderr == ''
    assert _leases(site) == _CONSUMERS[-1:]
    refused = site.qcache('remove', site.image_id)
    assert f'the boot of {_CONSUMERS[-1]} that is on its way names it' in refused.stderr
    site.configure(plan_lease_seconds=1)
    boot = [site.image_id, str(base), 'raw', _CONSUMERS[-1]]
    again = site.manage(_TAKE_ANEW, json.dumps(boot))
    assert (again.stdout, again.stderr) == ('PLAY\n', '')
    assert _leases(site) == _CONSUMERS[-1:], 'the one before is gone'
    waiting.until(
        lambda: site.qcache('remove', site.image_id).returncode == 0, 'the end of a lease'
    )
    assert not site.files()
