# SPDX-License-Identifier: Apache-2.0
"""The tools and formats of qemu: block graphs, images, daemons and monitors."""
