# SPDX-License-Identifier: Apache-2.0
"""The keeper: a process for work that must not wait for nova-compute.

``service`` is its loop, ``launch`` starts it from elsewhere. ``respawner`` restarts killed
recorders, ``guests`` resumes the guests that libvirt paused meanwhile, ``saved`` removes chains
from the saved state of guests at the events of ``lifecycle``, and ``revalidation`` compares caches
with bases that look changed.
"""
