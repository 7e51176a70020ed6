# SPDX-License-Identifier: Apache-2.0
"""Eligibility: the root disk of an instance may be cached, if nothing speaks against it.

Checks of Nova's that a cache could weaken are kept by not caching: certificate validation of
signed images, encryption. A rescued instance boots plain, so that it depends on as little as
possible.
"""

from collections.abc import Mapping
import os
import pathlib
from typing import Any, NamedTuple

from nova.compute import task_states
from nova.compute import vm_states
import nova.conf
from nova.virt.libvirt import imagecache

from nova_qcache import exception
from nova_qcache.model.plan import Boot
from nova_qcache.model.plan import Cause
from nova_qcache.model.plan import Policy
from nova_qcache.qemu import overlay

__all__ = [
    'POLICIES',
    'POLICY',
    'ROOT_DISK',
    'Refusal',
    'boot',
    'boots_once',
    'image_hash',
    'image_id',
    'refusal_of',
    'requested_policy',
]

CONF = nova.conf.CONF

POLICY = 'qcache:policy'
"""Image property and flavor extra spec."""
POLICIES = ('auto', 'always', 'never')

ROOT_DISK = 'disk'
"""Nova's name of the root disk."""


class Refusal(NamedTuple):
    """Why a disk is not cached: as a clause for the log, and as what is counted."""

    reason: str
    cause: Cause = Cause.INELIGIBLE


def boot(
    instance: Any,
    disk_name: str,
    path: str,
    mapping: Mapping[str, Any],
    extra_specs: Mapping[str, str],
    *,
    image_meta: Any,
    no_recording: str | None,
) -> Boot | Refusal:
    """Return what a plan is asked for with, or why the disk is not cached.

    :param path: of the overlay, whose header says what its base is
    :param mapping, extra_specs: as :func:`refusal_of` takes them
    :param image_meta: as :func:`image_hash` takes it
    :param no_recording: why nothing can be recorded on this host, None if it can
    """
    refusal = refusal_of(instance, disk_name, mapping, extra_specs)
    if refusal is not None:
        return refusal
    try:
        base = overlay.backing(pathlib.Path(path))
    except exception.InvalidBase as e:
        return Refusal(str(e))
    if base is None:
        return Refusal('its disk has no base image')
    image = image_id(instance, os.path.basename(base.path))
    if image is None:
        return Refusal(f"{base.path} is not the base of the instance's image")
    return Boot(
        image,
        base.path,
        base.format,
        consumer=instance.uuid,
        image_hash=image_hash(image_meta, image),
        policy=requested_policy(instance, extra_specs),
        boots_once=boots_once(instance, image),
        no_recording=no_recording,
    )


def refusal_of(
    instance: Any, disk_name: str, mapping: Mapping[str, Any], extra_specs: Mapping[str, str]
) -> Refusal | None:
    """Return why a disk is not cached, None if nothing speaks against it.

    :param mapping: of the disk, as Nova's blockinfo makes it
    :param extra_specs: of the flavor
    """
    if disk_name != ROOT_DISK:
        return Refusal(f'{disk_name} is not a root disk')
    if instance.task_state == task_states.RESCUING or instance.vm_state == vm_states.RESCUED:
        return Refusal('a rescued instance boots without a cache')
    if mapping.get('encrypted') or instance.get('ephemeral_key_uuid'):
        return Refusal('its disk is encrypted')
    refusal = _refusal('image property', _image_policy(instance)) or _refusal(
        'flavor extra spec', extra_specs.get(POLICY)
    )
    if refusal is not None:
        return Refusal(refusal, Cause.POLICY)
    if _is_validated(instance):
        return Refusal('its image is subject to certificate validation')
    return None


def requested_policy(instance: Any, extra_specs: Mapping[str, str]) -> Policy:
    """Return what the image or the flavor asks for: each may ask for ``always``."""
    said = (_image_policy(instance), extra_specs.get(POLICY))
    return Policy.ALWAYS if Policy.ALWAYS.value in said else Policy.AUTO


def boots_once(instance: Any, image_id: str) -> bool:
    """Return whether an image is the snapshot that Nova made to move a server, in an unshelve or
    to another cell: it is deleted after this boot.

    Nova rebases such a disk on the image of before, if that still exists.
    """
    if image_id != instance.image_ref:
        return False
    moves = (
        instance.vm_state == vm_states.SHELVED_OFFLOADED
        or instance.task_state == task_states.RESIZE_FINISH
    )
    return bool(moves) and image_id != instance.system_metadata.get('image_base_image_ref')


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
