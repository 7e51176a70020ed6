# SPDX-License-Identifier: Apache-2.0
"""Values and their rules, without I/O: keys, plans, records, states, sources of bases."""
