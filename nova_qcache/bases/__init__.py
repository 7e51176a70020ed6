# SPDX-License-Identifier: Apache-2.0
"""Base images: how they are reached, what they must be, and when they were changed.

The contract of a source is :mod:`nova_qcache.model.source`.
"""
