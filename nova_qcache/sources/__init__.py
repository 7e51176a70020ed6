# SPDX-License-Identifier: Apache-2.0
"""The sources that come with the project; the contract is :mod:`nova_qcache.source`."""
