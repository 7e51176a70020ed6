# SPDX-License-Identifier: Apache-2.0
"""One guest as its NBD server sees it; run by the distribution's Python, which has libnbd.

Usage: guest_client.py URI

It says "connected SIZE" or "refused REASON". Then each line "OFFSET LENGTH" on standard input is
answered with the SHA-256 of those bytes or with "error REASON"; "OFFSET LENGTH tell" also with
"asked", as soon as the server has been asked. It leaves at the end of its input.
"""

import hashlib
import sys

import nbd


def main() -> int:
    handle = nbd.NBD()
    try:
        handle.connect_uri(sys.argv[1])
    except nbd.Error as e:
        print(f'refused {e}', flush=True)
        return 1
    print(f'connected {handle.get_size()}', flush=True)
    for line in sys.stdin:
        offset, length, *tell = line.split()
        data = nbd.Buffer(int(length))
        try:
            cookie = handle.aio_pread(data, int(offset))
            if tell:
                print('asked', flush=True)
            while not handle.aio_command_completed(cookie):
                handle.poll(-1)
            print(hashlib.sha256(data.to_bytearray()).hexdigest(), flush=True)
        except nbd.Error as e:
            print(f'error {e}', flush=True)
    return 0


if __name__ == '__main__':
    sys.exit(main())
