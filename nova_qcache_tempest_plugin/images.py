# SPDX-License-Identifier: Apache-2.0
"""Copies of an image: a cache is one image's, so a copy has none at first."""

from typing import Any

__all__ = ['description', 'send']

_KEPT = ('disk_format', 'container_format', 'min_disk', 'min_ram', 'architecture')
_KEPT_PREFIXES = ('hw_', 'os_distro', 'os_type')
"""Of properties that say what hardware the image boots on."""


def description(source: dict[str, Any], name: str, properties: dict[str, str]) -> dict[str, Any]:
    """Return what Glance is asked for to make an image like another one.

    :param source: how Glance shows that one
    :param properties: further ones
    """
    kept = {
        key: value
        for key, value in source.items()
        if value is not None and (key in _KEPT or key.startswith(_KEPT_PREFIXES))
    }
    return {**kept, 'name': name, 'visibility': 'private', **properties}


def send(client: Any, source_id: str, image_id: str) -> None:
    """Copy the content of an image into a new one, through the memory of this process.

    :param client: tempest's for images
    """
    response = client.show_image_file(source_id, chunked=True)
    try:
        client.store_image_file(image_id, response)
    finally:
        response.release_conn()
