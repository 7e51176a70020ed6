# SPDX-License-Identifier: Apache-2.0
"""Tests by which a cloud finds out whether its servers boot from caches: a plugin of tempest.

Of tempest it uses what is declared stable for plugins, and of nova-qcache nothing: it looks at
servers through the APIs, and at compute hosts through commands.
"""
