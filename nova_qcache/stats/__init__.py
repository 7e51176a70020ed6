# SPDX-License-Identifier: Apache-2.0
"""Counts of boots and bytes, and the files that keep them."""
