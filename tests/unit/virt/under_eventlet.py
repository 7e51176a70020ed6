# SPDX-License-Identifier: Apache-2.0
"""Run tests in greenthreads, as nova-compute has them with Nova 31 and 32 by default::

python -m tests.unit.virt.under_eventlet TEST...
"""

import sys

from nova import monkey_patch  # first of all: Nova 31 patches Python by this

if hasattr(monkey_patch, 'patch'):  # newer ones do so when told to
    monkey_patch.patch()

import pytest

if __name__ == '__main__':
    sys.exit(pytest.main(['-q', '-W', 'ignore', '-p', 'no:cacheprovider', *sys.argv[1:]]))
