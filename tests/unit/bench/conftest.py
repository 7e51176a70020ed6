# SPDX-License-Identifier: Apache-2.0
"""Modules that bench/run.sh puts on the path."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[3] / 'tools' / 'guest'))
