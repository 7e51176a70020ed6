# SPDX-License-Identifier: Apache-2.0
"""Documents that are damaged as a disk, a newer version or an enemy may damage them.

Most of them are still JSON, with another type, a number that no machine has or a field that is
missing at some place: what cannot even be parsed is refused early and tests little.
"""

from collections.abc import Sequence
import copy
import json
import random
from typing import Any

__all__ = ['Damage']

RAW = (
    *(b'NaN', b'Infinity', b'-Infinity', b'1e400', b'-1e400', b'-0', b'01', b'1.', b'0x1f'),
    *(b'9' * 400, b'9' * 5000, b'-' + b'9' * 400, b'1.' + b'0' * 500),
    *(b'"\\ud800"', b'"\\udcff\\u0000"', b'"\xff\xfe"', b'"\x00"', b'"\\x"', b"'x'", b'undefined'),
    *(b'[' * 3000, b'{"a":' * 3000, b'[' * 200 + b']' * 200, b'', b',', b'}', b'"'),
)
"""Values that json.dumps() would not write."""
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2**31, 2**63 - 1, 2**63, 2**64, -(2**63), 10**18, 10**400),
    *(
        0.5,
        -0.5,
        1e308,
        '',
        'READY',
        'WARMING',
        'STALE',
        'COLD',
        'idle',
        '../../x',
        '0',
        'x' * 300,
    ),
    *('\ud800', '\0', '\N{ARABIC-INDIC DIGIT ZERO}', '{reason}', '{0.__class__}', '%s'),
    *([], {}, [[]], {'': {}}, [None] * 50, {'version': 2}, {'error': 'x'}),
)
BYTES = (b'\0', b'\xff', b'\xc0\x80', b'\xed\xa0\x80', b'\xef\xbb\xbf', b'"', b'{', b'\\', b'\n')


class Damage:
    """Makes damaged documents of valid ones."""

    def __init__(self, seed: object) -> None:
        self._random = random.Random(str(seed))

    def document(self, valid: Any) -> bytes:
        """Damage a JSON document here and there, and now and then its text as well."""
        chance = self._random
        value, raw = json.loads(json.dumps(valid)), []
        for _ in range(chance.choice((0, 1, 1, 1, 2, 3))):
            value = self._change(value, raw)
        text = json.dumps(value).encode()
        for number, token in enumerate(raw):
            text = text.replace(b'"@%d@"' % number, token)
        if chance.random() < 0.1 and text.startswith(b'{'):
            name = json.dumps(chance.choice([*valid, 'x'])).encode()
            token = chance.choice((*RAW, b'1', b'null', b'{}'))
            text = b'{%s: %s, %s' % (name, token, text[1:])  # the key may be there twice
        if chance.random() < 0.25:
            text = self.text(text)
        return text

    def text(self, text: bytes) -> bytes:
        """Damage bytes, whatever they mean."""
        chance = self._random
        for _ in range(chance.randint(1, 3)):
            here, there = sorted((chance.randint(0, len(text)), chance.randint(0, len(text))))
            match chance.randrange(8):
                case 0:
                    text = text[:there]
                case 1:
                    text = text[:here] + text[there:]
                case 2:
                    text = text[:there] + text[here:]
                case 3:
                    text = text[:here] + chance.choice(BYTES) + text[here:]
                case 4:
                    text = text[:here] + chance.randbytes(chance.randint(1, 8)) + text[here:]
                case 5 if text:
                    at = chance.randrange(len(text))
                    text = (
                        text[:at] + bytes([text[at] ^ 1 << chance.randrange(8)]) + text[at + 1 :]
                    )
                case 6:
                    encoding = chance.choice(('utf-16', 'utf-16-be', 'utf-32', 'utf-8-sig'))
                    text = text.decode('latin-1').encode(encoding)
                case _:
                    text = chance.choice(BYTES) + text
        return text

    def choice(self, things: Sequence[Any]) -> Any:
        return self._random.choice(things)

    def _change(self, value: Any, raw: list[bytes]) -> Any:
        chance = self._random
        if isinstance(value, dict) and value and chance.random() < 0.9:
            name = chance.choice(list(value))
            match chance.randrange(8):
                case 0:
                    del value[name]
                case 1:
                    value[chance.choice(('', 'x', name.upper()))] = value.pop(name)
                case 2:
                    value[name] = value[chance.choice(list(value))]
                case _:
                    value[name] = self._change(value[name], raw)
            return value
        if isinstance(value, list) and value and chance.random() < 0.5:
            at = chance.randrange(len(value))
            value[at] = self._change(value[at], raw)
            return value
        if isinstance(value, int) and chance.random() < 0.3:
            return value + chance.choice((-1, 1, 1 << 63, -(1 << 64)))
        if chance.random() < 0.3:
            raw.append(chance.choice(RAW))
            return f'@{len(raw) - 1}@'
        return copy.deepcopy(chance.choice(VALUES))
