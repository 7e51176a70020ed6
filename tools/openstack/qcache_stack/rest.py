# SPDX-License-Identifier: Apache-2.0
"""A client for the few requests that set up a stack: the command line takes seconds for each."""

import json
from typing import Any
import urllib.error
import urllib.request

from qcache_stack.process import PATIENCE_SECONDS
from qcache_stack.process import StackError

__all__ = ['Client']


class Client:
    def __init__(self, auth: dict[str, str]) -> None:
        """:param auth: ``os_auth_url`` and the other values of the state's ``auth``"""
        self._auth = auth
        self._token: str | None = None
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def get(self, url: str) -> Any:
        return self._request('GET', url)

    def post(self, url: str, body: object) -> Any:
        return self._request('POST', url, body)

    def put(self, url: str) -> Any:
        return self._request('PUT', url)

    def _request(self, method: str, url: str, body: object = None) -> Any:
        if self._token is None:
            self._token = self._authenticate()
        text, _ = self._send(method, url, body, {'X-Auth-Token': self._token})
        return json.loads(text) if text else None

    def _authenticate(self) -> str:
        auth = self._auth
        user = {
            'name': auth['os_username'],
            'password': auth['os_password'],
            'domain': {'name': auth['os_user_domain_name']},
        }
        project = {
            'name': auth['os_project_name'],
            'domain': {'name': auth['os_project_domain_name']},
        }
        body = {
            'auth': {
                'identity': {'methods': ['password'], 'password': {'user': user}},
                'scope': {'project': project},
            }
        }
        _, headers = self._send('POST', f'{auth["os_auth_url"]}/auth/tokens', body, {})
        return str(headers['X-Subject-Token'])

    def _send(self, method: str, url: str, body: object, headers: dict[str, str]) -> Any:
        request = urllib.request.Request(
            url,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={'Content-Type': 'application/json', **headers},
        )
        try:
            with self._opener.open(request, timeout=PATIENCE_SECONDS) as answer:
                return answer.read(), answer.headers
        except urllib.error.HTTPError as e:
            raise StackError(f'{method} {url}: {e} {e.read()[:500]!r}') from e
        except OSError as e:
            raise StackError(f'{method} {url}: {e}') from e
