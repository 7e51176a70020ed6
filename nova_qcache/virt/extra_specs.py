# SPDX-License-Identifier: Apache-2.0
"""The flavor extra spec of caches, for Nova's API, which refuses values that make no sense."""

from nova.api.validation.extra_specs import base

from nova_qcache.virt import eligibility

__all__ = ['register']


def register() -> list[base.ExtraSpecValidator]:
    """Entry point in ``nova.api.extra_spec_validators``."""
    return [
        base.ExtraSpecValidator(
            name=eligibility.POLICY,
            description=(
                'Whether servers of this flavor boot from a cache of their image on the compute '
                'host. ``auto`` and ``always`` allow it, ``never`` forbids it, and so does '
                '``never`` in the image property of the same name.'
            ),
            value={
                'type': str,
                'description': 'The policy',
                'enum': list(eligibility.POLICIES),
            },
        ),
    ]
