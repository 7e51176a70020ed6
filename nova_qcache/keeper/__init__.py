# SPDX-License-Identifier: Apache-2.0
"""The keeper: a process for work that must not wait for nova-compute.

``service`` is its loop, ``launch`` starts it from elsewhere. ``respawner`` starts recorders again
that were killed, ``guests`` lets those guests go on that libvirt paused meanwhile, ``saved`` takes
chains out of what guests are saved with, as ``lifecycle`` tells it, and ``revalidation`` compares
caches with bases that look changed.
"""
