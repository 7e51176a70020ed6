# SPDX-License-Identifier: Apache-2.0

import sys

from qcache_stack import cli

sys.exit(cli.main())
