# SPDX-License-Identifier: Apache-2.0
"""The host: files, locks, processes, sockets, libvirt and Glance."""
