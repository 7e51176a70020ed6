# SPDX-License-Identifier: Apache-2.0
"""Random faults at random moments against the real product, and what was lost by them.

``rounds`` is one fault from its host's birth to its end; ``catalogue`` names the faults, which are
in ``processes``, ``storage``, ``bases``, ``files`` and ``power``; ``scene`` is what a fault can
reach. ``__main__`` is the command; ``reader`` and ``compute`` run as programs of their own.
"""
