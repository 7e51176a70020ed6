# SPDX-License-Identifier: Apache-2.0
"""The recorder: a process of its own that fills the cache of an image and serves its guests.

``service`` is the process, ``daemon`` its qemu-storage-daemon. ``opener`` makes the file of a
recording, ``finish`` decides when it ends, ``sealer`` makes it READY. ``control_server`` takes
commands; ``launch`` starts such a process from elsewhere, and ``respawn`` keeps the arguments to
start it again.
"""
