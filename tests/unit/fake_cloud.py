# SPDX-License-Identifier: Apache-2.0
"""A Keystone and a Glance of a few lines behind one real HTTP port, for what they may answer."""

from http import server
import json
import threading
from urllib import parse

REGION = 'RegionOne'


class FakeCloud:
    """What is in the attributes is what it answers; a context manager."""

    def __init__(self) -> None:
        self.images: dict[str, str] = {}
        """States, by ID."""
        self.unlisted: set[str] = set()
        """Those of them that are hidden, or of a community."""
        self.roles = ['member', 'admin']
        self.regions = {REGION: '/image'}
        """Paths of Glance's endpoints, or whole addresses."""
        self.service_type = 'image'
        self.odd: dict[str, tuple[int, dict[str, str], bytes]] = {}
        """Other answers, by the end of the path with its query."""
        self.requests: list[str] = []
        self.connections = 0

    def __enter__(self) -> 'FakeCloud':
        cloud = self

        class Handler(server.BaseHTTPRequestHandler):
            protocol_version = 'HTTP/1.1'
            wbufsize = -1  # headers and body in one packet: two would wait for each other

            def setup(self):
                super().setup()
                cloud.connections += 1

            def finish(self):
                super().finish()
                cloud.connections -= 1

            def do_GET(self):
                self.answer()

            def do_POST(self):
                self.rfile.read(int(self.headers['Content-Length']))
                self.answer()

            def answer(self):
                code, headers, body = cloud.answer(self.path)
                self.send_response(code)
                for name, value in {'Content-Length': str(len(body)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args):
                pass

        self._server = server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
        self._server.block_on_close = False
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        return self

    def __exit__(self, *args: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f'http://127.0.0.1:{self._server.server_port}'

    @property
    def asked(self) -> list[str]:
        """What Glance was asked, in order."""
        return [each.partition('/v2/images')[2] for each in self.requests if '/v2/images' in each]

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        self.requests.append(path)
        for end, odd in self.odd.items():
            if path.endswith(end):
                return odd
        where = parse.urlsplit(path)
        if where.path == '/identity/v3':
            link = [{'rel': 'self', 'href': f'{self.url}/identity/v3'}]
            version = {'id': 'v3.14', 'status': 'stable', 'links': link}
            return _json(200, {'version': version})
        if where.path == '/identity/v3/auth/tokens':
            return _json(201, {'token': self._token()}, {'X-Subject-Token': 'token'})
        if where.path == '/image/v2/images':
            return _json(200, {'images': self._list(parse.parse_qs(where.query))})
        image_id = where.path.removeprefix('/image/v2/images/')
        if image_id in self.images:
            return _json(200, self._image(image_id))
        return 404, {'Content-Type': 'text/html'}, b'<html>No image found</html>'

    def _image(self, image_id: str) -> dict[str, str]:
        return {'id': image_id, 'status': self.images[image_id]}

    def _list(self, query: dict[str, list[str]]) -> list[dict[str, str]]:
        wanted = query.get('id', [''])[0].removeprefix('in:').split(',')
        found = [
            image_id
            for image_id in self.images
            if image_id not in self.unlisted and ('id' not in query or image_id in wanted)
        ]
        return [self._image(image_id) for image_id in found[: int(query.get('limit', ['25'])[0])]]

    def _token(self) -> dict[str, object]:
        endpoints = [
            {'id': region, 'interface': 'internal', 'region_id': region, 'region': region}
            | {'url': parse.urljoin(self.url, path)}
            for region, path in self.regions.items()
        ]
        catalog = [
            {'type': self.service_type, 'id': 'g', 'name': 'glance', 'endpoints': endpoints}
        ]
        return {
            'methods': ['password'],
            'roles': [{'id': role, 'name': role} for role in self.roles],
            'expires_at': '2999-01-01T00:00:00.000000Z',
            'issued_at': '2020-01-01T00:00:00.000000Z',
            'user': {'id': 'u', 'name': 'u', 'domain': {'id': 'd', 'name': 'd'}},
            'project': {'id': 'p', 'name': 'p', 'domain': {'id': 'd', 'name': 'd'}},
            'catalog': catalog if endpoints else [],
        }


def _json(
    code: int, data: object, headers: dict[str, str] | None = None
) -> tuple[int, dict[str, str], bytes]:
    return code, {'Content-Type': 'application/json', **(headers or {})}, json.dumps(data).encode()
