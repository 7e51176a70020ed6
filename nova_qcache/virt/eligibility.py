# SPDX-License-Identifier: Apache-2.0
"""What may be cached: the root disk of an instance whose image nothing speaks against.

Checks of Nova's that a cache could weaken are kept by not caching: certificate validation of
signed images, encryption. A rescued instance boots plain, so that it depends on as little as
possible.
"""

from collections.abc import Mapping
from typing import Any

from nova.compute import task_states
from nova.compute import vm_states
import nova.conf
from nova.virt.libvirt import imagecache

__all__ = ['POLICIES', 'POLICY', 'ROOT_DISK', 'image_hash', 'image_id', 'obstacle']

CONF = nova.conf.CONF

POLICY = 'qcache:policy'
"""Image property and flavor extra spec."""
POLICIES = ('auto', 'always', 'never')

ROOT_DISK = 'disk'
"""What Nova calls the root disk."""


def obstacle(
    instance: Any, disk_name: str, mapping: Mapping[str, Any], extra_specs: Mapping[str, str]
) -> str | None:
    """Return why a disk is not cached, as a clause for the log; None if nothing speaks against it.

    :param mapping: of the disk, as Nova's blockinfo makes it
    :param extra_specs: of the flavor
    """
    if disk_name != ROOT_DISK:
        return f'{disk_name} is no root disk'
    if instance.task_state == task_states.RESCUING or instance.vm_state == vm_states.RESCUED:
        return 'a rescued instance boots without a cache'
    if mapping.get('encrypted') or instance.get('ephemeral_key_uuid'):
        return 'its disk is encrypted'
    refusal = _refusal('image property', _image_policy(instance)) or _refusal(
        'flavor extra spec', extra_specs.get(POLICY)
    )
    if refusal is None and _is_validated(instance):
        return 'its image is subject to certificate validation'
    return refusal


def image_id(instance: Any, base_name: str) -> str | None:
    """Return the image whose base has that file name in Nova's image cache, None if it is not the
    instance's own image.

    It is another one on the disk of a rescue, in the middle of an unshelve, and where a resized
    copy of a base is left from a very old Nova.
    """
    own = (instance.image_ref, instance.system_metadata.get('image_base_image_ref'))
    for candidate in own:
        if candidate and imagecache.get_cache_fname(candidate) == base_name:
            return str(candidate)
    return None


def image_hash(image_meta: Any, image_id: str) -> str:
    """Return what Glance says of an image's content, empty if that is not known.

    That is its MD5. Nova gives the driver no better one (``os_hash_value`` gets lost on the way),
    and this one only for new instances, not for a reboot; it decides nothing.

    :param image_meta: what Nova starts an instance with, None if it does not start one now. It is
        of another image in an unshelve: the one of the shelved disk
    """
    known = image_meta is not None and all(
        image_meta.obj_attr_is_set(name) for name in ('id', 'checksum')
    )
    if not known or image_meta.id != image_id or not image_meta.checksum:
        return ''
    return f'md5:{image_meta.checksum}'


def _is_validated(instance: Any) -> bool:
    if CONF.glance.verify_glance_signatures and instance.system_metadata.get(
        'image_img_signature'
    ):
        return True
    # Asks the conductor, unless Nova has before: a reboot does not bring them along.
    certificates = instance.trusted_certs
    return bool(certificates and certificates.ids)


def _image_policy(instance: Any) -> str | None:
    # Nova's image metadata objects drop properties that they do not know.
    policy = instance.system_metadata.get(f'image_{POLICY}')
    return None if policy is None else str(policy)


def _refusal(where: str, policy: str | None) -> str | None:
    if policy == 'never':
        return f'the {where} {POLICY} says never'
    if policy is not None and policy not in POLICIES:
        return f'the {where} {POLICY} is {policy!r}; set it to one of {", ".join(POLICIES)}'
    return None
