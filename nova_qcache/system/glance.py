# SPDX-License-Identifier: Apache-2.0
"""Glance, asked with credentials of this host's own which images are deleted.

A deleted image is a 404 to anybody, but so is one that the user may not see, and a 404 may come
from a proxy, too. So it first takes proof that Glance answers and shows this user everything;
whatever else happens means that nobody knows.
"""

from collections.abc import Iterable, Iterator
import contextlib
import random
import re
import time
from typing import Any

from keystoneauth1 import exceptions as ks_exceptions
from keystoneauth1 import loading
from keystoneauth1 import session as ks_session
from keystoneauth1.identity import base as identity
from oslo_config import cfg

from nova_qcache import exception

__all__ = ['Glance']

_TIMEOUT_SECONDS = 30.0
_LIST_IMAGES = 50
"""Asked about in one request; Glance's own default is to list 25."""
_MOST_GETS = 200
"""Limit of single questions about images in a run: neither hidden nor community images are
listed."""
_MOST_SECONDS = 60.0
"""No request begins after so long; what was not asked about has its turn another time."""
_GONE = ('deleted', 'pending_delete')
_ROLE = 'admin'

_VERSION = re.compile(r'/v[0-9]+(\.[0-9]+)?$')
_OBJECT = re.compile(r'<[^<>]* at 0x[0-9a-f]+>:? ?')
_WHERE = ('region_name', 'valid_interfaces', 'endpoint_override')
_INTERFACES = ['internal', 'public']
"""Interfaces, in Nova's order."""


class Glance:
    """Nothing is asked before a question is, and no connection stays open between two."""

    def __init__(self, conf: cfg.ConfigOpts, section: str) -> None:
        """:param section: of the configuration; has options of keystoneauth"""
        self._conf = conf
        self._section = section

    def check(self) -> str:
        """Return where Glance is, after the proof that what it says of an image is true.

        :raises GlanceUnknown: if there is none
        """
        with self._asking() as images:
            return images.url

    def deleted(self, image_ids: Iterable[str]) -> set[str]:
        """Return those of the images that are proved to be deleted. In a very large number some
        are not asked about; which ones is random.

        :raises GlanceUnknown: if Glance does not answer as it should, even to the last question
        """
        left = list(image_ids)
        if not left:
            return set()
        random.shuffle(left)
        found = set()
        gets = 0
        until = time.monotonic() + _MOST_SECONDS
        with self._asking() as images:
            while left and time.monotonic() < until:
                some, left = left[:_LIST_IMAGES], left[_LIST_IMAGES:]
                states = images.listed(some)
                for image_id in some:
                    if image_id not in states:
                        if gets == _MOST_GETS or time.monotonic() >= until:
                            continue
                        gets += 1
                        states[image_id] = images.state(image_id)
                    if states[image_id] is None or states[image_id] in _GONE:
                        found.add(image_id)
        return found

    @contextlib.contextmanager
    def _asking(self) -> Iterator['_Images']:
        try:
            session = self._session()
            with contextlib.closing(session.session):
                images = _Images(session, self._section, self._url(session))
                images.prove()
                yield images
        except exception.GlanceUnknown:
            raise
        except Exception as e:  # plugins of keystoneauth, and what answers for Keystone, are many
            # Without addresses of objects: it is the same trouble each time.
            reason = f'{type(e).__name__}: {_OBJECT.sub("", str(e)).rstrip(".")}'
            raise self._unknown(reason, 'Check whether Keystone and Glance answer') from e

    def _session(self) -> ks_session.Session:
        conf, section = self._conf, self._section
        loading.register_auth_conf_options(conf, section)
        _register(conf, section, loading.get_session_conf_options())
        auth = loading.load_auth_from_conf_options(conf, section)
        if not isinstance(auth, identity.BaseIdentityPlugin):  # it has neither roles nor a catalog
            raise self._unknown(
                f'auth_type = {conf[section].auth_type!r} does not authenticate with Keystone',
                f'Set auth_type in [{section}], to "password" for example, and what goes with it',
            )
        session: ks_session.Session = loading.load_session_from_conf_options(
            conf, section, auth=auth, timeout=conf[section].timeout or _TIMEOUT_SECONDS
        )
        roles = [role.lower() for role in auth.get_access(session).role_names or ()]
        if _ROLE not in roles:
            raise self._unknown(
                f'its user lacks the role {_ROLE}, so it cannot see private images of others',
                f'Give its user the role {_ROLE}',
            )
        return session

    def _url(self, session: ks_session.Session) -> str:
        """Return the address that is Glance's to Nova, so that no Glance of another region is
        asked; what the section says of its place goes first."""
        options = [opt for opt in loading.get_adapter_conf_options() if opt.dest in _WHERE]
        for group in (self._section, 'glance'):
            _register(self._conf, group, options)
        own, novas = self._conf[self._section], self._conf['glance']
        region = own.region_name or novas.region_name
        # Not of the section: it may be that of another service.
        url = novas.endpoint_override
        if not url:
            with contextlib.suppress(ks_exceptions.CatalogException):
                interfaces = own.valid_interfaces or novas.valid_interfaces or _INTERFACES
                url = session.get_endpoint(
                    service_type='image', interface=interfaces, region_name=region
                )
        if not url:
            where = f' in region {region!r}' if region else ''
            raise self._unknown(
                f'the catalog has no image service{where}',
                'Set region_name and valid_interfaces there',
            )
        return _VERSION.sub('', url.rstrip('/'))

    def _unknown(self, reason: str, remedy: str) -> exception.GlanceUnknown:
        return exception.GlanceUnknown(section=self._section, reason=reason, remedy=remedy)


class _Images:
    """The part of the API that is needed."""

    def __init__(self, session: ks_session.Session, section: str, url: str) -> None:
        self.url = url
        self._session = session
        self._section = section

    def prove(self) -> None:
        """:raises GlanceUnknown: if this is not Glance, or it does not show what there is"""
        # Glance answers 404 to whom its policy lets list images and not look at them.
        for image_id in self._list('limit=1'):
            if self.state(image_id) is None:
                raise self._unknown(f'{self.url} lists image {image_id} but does not find it')

    def listed(self, image_ids: list[str]) -> dict[str, str | None]:
        """Return the states of those of the images that are listed; others may be there, too."""
        return self._list(f'limit={len(image_ids)}&id=in:{",".join(image_ids)}')

    def state(self, image_id: str) -> str | None:
        """Return the state of an image, None if there is none."""
        code, body = self._get(f'/{image_id}')
        if code == 404:
            return None
        return self._state(body, image_id)

    def _list(self, query: str) -> dict[str, str | None]:
        _, body = self._get(f'?{query}')
        if not isinstance(body, dict) or not isinstance(body.get('images'), list):
            raise self._unknown(f'{self.url} does not list images')
        return {str(image['id']): self._state(image) for image in body['images']}

    def _state(self, image: Any, image_id: str | None = None) -> str:
        if not isinstance(image, dict) or image_id not in (None, image.get('id')):
            raise self._unknown(f'{self.url} answers with another image than the one asked for')
        return str(image['status'])

    def _get(self, what: str) -> tuple[int, Any]:
        """Return 200 and what the answer says, or 404 and None.

        :raises GlanceUnknown: for any other answer
        """
        answer = self._session.get(
            f'{self.url}/v2/images{what}',
            headers={'Accept': 'application/json'},
            raise_exc=False,
            redirect=False,
        )
        code = answer.status_code
        if code in (401, 403):
            raise self._unknown(
                f'{self.url} answers {code} to its user', f'Give its user the role {_ROLE}'
            )
        if code not in (200, 404):
            raise self._unknown(f'{self.url} answers {code}')
        try:
            return code, answer.json() if code == 200 else None
        except ValueError as e:
            raise self._unknown(f'{self.url} answers with something other than JSON') from e

    def _unknown(
        self, reason: str, remedy: str = 'Check whether Glance answers there'
    ) -> exception.GlanceUnknown:
        return exception.GlanceUnknown(section=self._section, reason=reason, remedy=remedy)


def _register(conf: cfg.ConfigOpts, group: str, options: list[cfg.Opt]) -> None:
    for option in options:
        # Nova has some of them with defaults of its own.
        with contextlib.suppress(cfg.DuplicateOptError):
            conf.register_opt(option, group=group)
