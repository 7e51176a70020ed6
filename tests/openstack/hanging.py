# SPDX-License-Identifier: Apache-2.0
"""A libvirt that hangs at a question, which no signal to its process brings about."""

from collections.abc import Iterator
import contextlib
import pathlib
import socket
import struct
import threading

__all__ = ['LibvirtProxy', 'serve']

_HEADER = struct.Struct('>IIIi')
"""The length with itself, the program, its version and the procedure; more follows."""
_DOMAIN_GET_XML_DESC = 14
_REMOTE_PROGRAM = 0x20008086


class LibvirtProxy:
    """Hands on what a libvirtd and its clients say to each other, over a socket of its own.

    While it hangs, no question for the XML of a domain gets through. All else does: a client that
    gets no answer to its keepalive would not wait.
    """

    def __init__(self, socket_path: pathlib.Path, libvirtd: pathlib.Path) -> None:
        self._libvirtd = libvirtd
        self._lock = threading.Lock()
        self._hangs = False
        self._held: list[tuple[socket.socket, bytes]] = []
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._door = socket.socket(socket.AF_UNIX)
        self._door.bind(str(socket_path))
        socket_path.chmod(0o666)
        self._door.listen()
        self._start(self._accept)

    def hang(self) -> None:
        with self._lock:
            self._hangs = True

    def go_on(self) -> None:
        with self._lock, contextlib.suppress(OSError):  # whoever asked may have gone
            self._hangs = False
            while self._held:
                server, question = self._held.pop()
                server.sendall(question)

    def close(self) -> None:
        self.go_on()
        for each in [self._door, *self._sockets]:
            with contextlib.suppress(OSError):  # the other side may have gone
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for each in [self._door, *self._sockets]:
            each.close()

    def _start(self, run, *arguments: socket.socket) -> None:
        thread = threading.Thread(target=run, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                client, _ = self._door.accept()
                server = socket.socket(socket.AF_UNIX)
                self._sockets += [client, server]
                server.connect(str(self._libvirtd))
                self._start(self._questions, client, server)
                self._start(self._answers, server, client)

    def _questions(self, client: socket.socket, server: socket.socket) -> None:
        with client.makefile('rb') as stream, _end_of(server):
            while header := stream.read(_HEADER.size):
                length, program, _, procedure = _HEADER.unpack(header)
                question = header + stream.read(length - _HEADER.size)
                with self._lock:
                    is_for_xml = (program, procedure) == (_REMOTE_PROGRAM, _DOMAIN_GET_XML_DESC)
                    if self._hangs and is_for_xml:
                        self._held.append((server, question))
                    else:
                        server.sendall(question)

    def _answers(self, server: socket.socket, client: socket.socket) -> None:
        with _end_of(client):
            while data := server.recv(65536):
                client.sendall(data)


@contextlib.contextmanager
def serve(socket_path: pathlib.Path, libvirtd: pathlib.Path) -> Iterator[LibvirtProxy]:
    proxy = LibvirtProxy(socket_path, libvirtd)
    try:
        yield proxy
    finally:
        proxy.close()
        socket_path.unlink()


@contextlib.contextmanager
def _end_of(other: socket.socket) -> Iterator[None]:
    """When one side has gone, the other one is told."""
    try:
        with contextlib.suppress(OSError):
            yield
    finally:
        with contextlib.suppress(OSError):
            other.shutdown(socket.SHUT_RDWR)
