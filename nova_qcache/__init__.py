# SPDX-License-Identifier: Apache-2.0
"""Nova servers boot from a small cache of their image instead of over the network."""
