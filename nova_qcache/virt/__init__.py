# SPDX-License-Identifier: Apache-2.0
"""The integration with Nova: a libvirt driver whose instances boot through caches.

entry          what nova-compute loads; looks first whether Nova still fits
driver         the libvirt driver: which XML is used when
imagebackend   the root disk: asks for a plan while Nova builds XML
imagecache     Nova's image cache manager: its periodic work, and what it reports
planner        from an instance to a plan
eligibility    what may be cached
chain          a plan as XML, and XML without our chains
compatibility  the interfaces of Nova that all this depends on
extra_specs    the flavor's qcache:policy, for Nova's API
"""
