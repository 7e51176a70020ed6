# SPDX-License-Identifier: Apache-2.0
"""nova-qcache beside everything else that a user could choose, measured in one run."""
