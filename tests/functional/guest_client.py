# SPDX-License-Identifier: Apache-2.0
"""One guest as its NBD server sees it; run by the distribution's Python, which has libnbd.

Usage: guest_client.py URI

It says "connected SIZE" or "refused REASON". Then each line "OFFSET LENGTH" on standard input is
answered with the SHA-256 of those bytes or with "error REASON". It leaves at the end of its input.
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
        offset, length = map(int, line.split())
        try:
            print(hashlib.sha256(handle.pread(length, offset)).hexdigest(), flush=True)
        except nbd.Error as e:
            print(f'error {e}', flush=True)
    return 0


if __name__ == '__main__':
    sys.exit(main())
