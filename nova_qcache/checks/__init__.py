# SPDX-License-Identifier: Apache-2.0
"""Checks of a host: before caches are used, and before an upgrade."""
