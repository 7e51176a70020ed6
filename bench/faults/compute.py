# SPDX-License-Identifier: Apache-2.0
"""What stands for nova-compute: it holds the product's manager, as the product's user, and does
with it what the driver does.

Usage: compute.py CONFIG LOG, by the Python that has the product. Each line on standard input is
a JSON list, a verb and its arguments; the answer is one JSON object, with ``value`` or ``error``.
"""

from collections.abc import Callable
import dataclasses
import json
import logging
import sys
from typing import Any

from oslo_config import cfg

from nova_qcache import conf as qcache_conf
from nova_qcache import exception
from nova_qcache.engine.manager import Manager
from nova_qcache.model.plan import Boot


def _plan(manager: Manager, *arguments: str) -> dict[str, Any]:
    plan = manager.boots.plan(Boot(*arguments))
    manager.boots.count(plan)
    said = {**dataclasses.asdict(plan), 'kind': plan.kind.value}
    return {**said, 'cause': plan.cause and plan.cause.value}


LOG = logging.getLogger('compute')

VERBS: dict[str, Callable[..., Any]] = {
    'plan': _plan,
    'release': lambda manager, consumer: manager.boots.release(consumer),
    'remove': lambda manager, image_id: len(manager.remove(image_id)),
    'sweep': lambda manager: len(manager.clean_up()),
}


def _begin(conf: cfg.ConfigOpts) -> Manager:
    manager = Manager(conf)
    try:
        manager.clean_up()
    except (exception.QcacheError, OSError) as e:
        LOG.warning('sweep: %s', e)
    manager.boots.keep()
    return manager


def main() -> int:
    config, log = sys.argv[1:]
    logging.basicConfig(
        filename=log, level=logging.INFO, format='%(asctime)s %(levelname)s %(name)s %(message)s'
    )
    conf = cfg.ConfigOpts()
    qcache_conf.register_opts(conf)
    conf([f'--config-file={config}'], project='nova', default_config_dirs=[])
    manager: Manager | None = None
    for line in sys.stdin:
        verb, *arguments = json.loads(line)
        answer: dict[str, Any] = {'value': None}
        try:
            if manager is None:
                manager = _begin(conf)
            answer['value'] = VERBS[verb](manager, *arguments)
        except Exception as e:
            LOG.exception('%s', verb)
            answer = {'error': str(e), 'type': type(e).__name__}
            if verb == 'plan' and manager is None:  # the driver is off then
                answer = {'value': {'kind': 'PLAIN', 'reason': str(e)}}
        print(json.dumps(answer), flush=True)
    return 0


if __name__ == '__main__':
    sys.exit(main())
