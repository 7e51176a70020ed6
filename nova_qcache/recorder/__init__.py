# SPDX-License-Identifier: Apache-2.0
"""The recorder: a process of its own that fills the cache of one image and serves its guests
meanwhile.

``service`` is the process, ``daemon`` its qemu-storage-daemon, ``finish`` knows when to end,
``sealer`` how, ``door`` listens to others; ``launch`` starts such a process from elsewhere.
"""
