# SPDX-License-Identifier: Apache-2.0
"""The programs: ``nova-qcache`` for operators, ``nova-qcache-recorder`` for the project itself."""
