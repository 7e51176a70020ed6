# SPDX-License-Identifier: Apache-2.0
"""What the demo has measured: as a table, as JSON, as a picture."""

from __future__ import annotations

import dataclasses
import importlib
import json
from pathlib import Path
from typing import Any

__all__ = ['Boot', 'as_json', 'picture', 'table']

MIB = 1 << 20


@dataclasses.dataclass
class Boot:
    """One measured boot, or several at the same time.

    :param seconds: from the start of qemu to the end of the (slowest) boot.
    :param base_bytes: read from the base until then.
    :param base_requests: the number of those reads.
    :param cache_bytes: size of the sealed cache, where there is one.
    :param quota_bytes: what it may grow to.
    """

    name: str
    guests: int
    seconds: float
    base_bytes: int
    base_requests: int
    cache_bytes: int | None = None
    quota_bytes: int | None = None

    def hit_ratio(self, plain: Boot) -> float | None:
        """Return the share of the reads that did not reach the base, from 0 to 1."""
        if self is plain:
            return None
        return max(0.0, 1 - self.base_bytes / (self.guests * plain.base_bytes))


def as_json(accelerator: str, rate: str, boots: list[Boot]) -> str:
    """Return the figures as a JSON document; sizes are in bytes."""
    document: dict[str, Any] = {'accelerator': accelerator, 'rate': rate}
    for boot in boots:
        figures = dataclasses.asdict(boot)
        del figures['name']
        figures['seconds'] = round(boot.seconds, 2)
        ratio = boot.hit_ratio(boots[0])
        figures['hit_ratio'] = None if ratio is None else round(ratio, 4)
        document[boot.name] = figures
    return json.dumps(document, indent=2) + '\n'


def table(accelerator: str, rate: str, image_bytes: int, boots: list[Boot]) -> str:
    """Return the figures as text for people."""
    plain = boots[0]
    lines = [
        f'Debian 12 on a {image_bytes / MIB:.0f} MiB base at {rate}bit/s, {accelerator}',
        '',
        f'{"boot":<8}{"guests":>7}{"seconds":>9}{"MiB from base":>15}{"requests":>10}'
        f'{"cache / quota MiB":>20}{"hit ratio":>11}',
    ]
    for boot in boots:
        cache = '-'
        if boot.cache_bytes is not None and boot.quota_bytes is not None:
            cache = f'{boot.cache_bytes / MIB:.1f} / {boot.quota_bytes / MIB:.0f}'
        ratio = boot.hit_ratio(plain)
        lines.append(
            f'{boot.name:<8}{boot.guests:>7}{boot.seconds:>9.1f}'
            f'{boot.base_bytes / MIB:>15.2f}{boot.base_requests:>10}{cache:>20}'
            f'{"-" if ratio is None else f"{ratio:.2%}":>11}'
        )
    lines += [
        '',
        'seconds: from the start of qemu to the end of the boot; of three guests, the slowest.',
        'hit ratio: 1 - base bytes / (guests * base bytes of the plain boot), not below 0.',
    ]
    if accelerator == 'tcg':
        lines.append(
            'No KVM here: qemu emulates each instruction, so the processor sets the seconds; '
            'the\nbytes and requests are those of any host.'
        )
    return '\n'.join(lines)


def picture(path: Path, title: str, boots: list[Boot]) -> None:
    """Draw the figures as bars into the PNG file `path`; this needs matplotlib."""
    matplotlib: Any = importlib.import_module('matplotlib')
    matplotlib.use('Agg')
    pyplot: Any = importlib.import_module('matplotlib.pyplot')
    figure, axes = pyplot.subplots(1, 4, figsize=(13, 4))
    names = [boot.name if boot.guests == 1 else f'{boot.name}\n(3 guests)' for boot in boots]
    colours = ['#7f7f7f', '#e69f00', '#0072b2', '#56b4e9']
    caches = [(boot.cache_bytes or 0) / MIB for boot in boots]
    ratios = [100 * (boot.hit_ratio(boots[0]) or 0) for boot in boots]
    panels: list[tuple[str, list[float], str]] = [
        ('seconds to the end of the boot', [boot.seconds for boot in boots], '%.1f'),
        ('MiB read from the base', [boot.base_bytes / MIB for boot in boots], '%.1f'),
        ('requests to the base', [float(boot.base_requests) for boot in boots], '%.0f'),
        ('hit ratio, per cent', ratios, '%.1f'),
    ]
    for axis, (label, values, form) in zip(axes, panels, strict=True):
        bars = axis.bar(names, values, color=colours[: len(boots)])
        axis.bar_label(bars, fmt=form, padding=2)
        axis.set_title(label, fontsize=10)
        axis.margins(y=0.15)
        axis.spines[['top', 'right']].set_visible(False)
    quota = max((boot.quota_bytes or 0) for boot in boots) / MIB
    figure.suptitle(f'{title}; cache {max(caches):.1f} MiB of {quota:.0f} MiB', fontsize=11)
    figure.tight_layout()
    part = path.with_name(f'.{path.name}.part')
    figure.savefig(part, format='png', dpi=110)
    part.replace(path)
    pyplot.close(figure)
