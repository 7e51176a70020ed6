# SPDX-License-Identifier: Apache-2.0
"""The caches of this host: their records and files, who uses them, and which go."""
