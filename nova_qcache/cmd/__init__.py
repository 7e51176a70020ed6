# SPDX-License-Identifier: Apache-2.0
"""The programs: ``nova-qcache`` for operators; the recorder and the keeper for ourselves."""
