# SPDX-License-Identifier: Apache-2.0
"""Waiting for something to become true, with a deadline and a name."""

from tests.functional.waiting import until

__all__ = ['until']
