# SPDX-License-Identifier: Apache-2.0
"""Checks of a base before a guest may read it through a cache."""

from nova_qcache import exception
from nova_qcache.model.source import Source
from nova_qcache.qemu.img import QemuImg

__all__ = ['answers', 'inspect']

_HEADER_BYTES = 65536
_PROBE_BYTES = 4096
_PROBE_SECONDS = 10
_QCOW2_MAGIC = b'QFI\xfb'
_FEATURES_AT = 79
"""The lowest byte of a qcow2 image's incompatible features."""
_EXTENDED_L2 = 1 << 4


def inspect(source: Source, qemu_img: QemuImg) -> int:
    """Return the virtual size of a base in bytes, after the checks that stock Nova makes of an
    image.

    :raises InvalidBase: missing, unreadable, empty, not of its format, or naming other files
    """
    header = source.first_bytes(_HEADER_BYTES)
    if header is None:
        header = _first_bytes_by_qemu(source, qemu_img)
    _require_format(source, header)
    source.learn()
    try:
        info = qemu_img.info(source.image_node())
    except exception.ToolFailed as e:
        raise _unreadable(source, e) from e
    if info.get('encrypted'):
        raise exception.InvalidBase(
            base=source.reference, reason='it is encrypted', remedy='Boot it without a cache'
        )
    size = info.get('virtual-size')
    if not isinstance(size, int) or size <= 0:
        raise exception.InvalidBase(
            base=source.reference, reason='it is empty', remedy='Give an image with content'
        )
    return size


def answers(source: Source, qemu_img: QemuImg) -> bool:
    """Return whether the base can be read now; it is asked for some bytes and given a moment."""
    try:
        qemu_img.first_bytes(source.protocol_node(), _PROBE_BYTES, _PROBE_SECONDS)
    except (exception.QcacheError, OSError):  # too many files are open, for example
        return False
    return True


def _first_bytes_by_qemu(source: Source, qemu_img: QemuImg) -> bytes:
    try:
        return qemu_img.first_bytes(source.protocol_node(), _HEADER_BYTES)
    except exception.ToolFailed as e:
        raise _unreadable(source, e) from e


def _require_format(source: Source, header: bytes) -> None:
    """Look at the header without letting qemu interpret it: it may name files of this host."""
    is_qcow2 = header.startswith(_QCOW2_MAGIC)
    if is_qcow2 != (source.base_format == 'qcow2'):
        begins = 'begins like qcow2' if is_qcow2 else 'does not begin like qcow2'
        raise exception.InvalidBase(
            base=source.reference,
            reason=f'its format is given as {source.base_format}, but it {begins}',
            remedy='Give its real format',
        )
    if is_qcow2:
        _require_safe_qcow2(source, header)


def _require_safe_qcow2(source: Source, header: bytes) -> None:
    # Imported here: it takes longer than all else in a recorder's start, and raw bases do without.
    from oslo_utils.imageutils import format_inspector

    inspector = format_inspector.QcowInspector()
    try:
        inspector.eat_chunk(header)
        inspector.finish()
        inspector.safety_check()
    except format_inspector.SafetyCheckFailed as e:
        reason = '; '.join(str(failure) for failure in e.failures.values())
        remedy = 'Convert it to an image that stands alone'
        if 'unknown_features' in e.failures:
            remedy = 'Convert it with `qemu-img convert -O qcow2`'
            if header[_FEATURES_AT] & _EXTENDED_L2:
                # Sound, and yet nothing that oslo.utils knows, nor Nova, which asks it as well.
                reason = f'{reason} (extended_l2)'
                remedy = 'Convert it with `qemu-img convert -O qcow2 -o extended_l2=off`'
        raise exception.InvalidBase(base=source.reference, reason=reason, remedy=remedy) from e
    except format_inspector.ImageFormatError as e:
        raise exception.InvalidBase(
            base=source.reference,
            reason=f'its qcow2 header is broken ({e})',
            remedy='Download it again',
        ) from e


def _unreadable(source: Source, error: exception.ToolFailed) -> exception.InvalidBase:
    return exception.InvalidBase(
        base=source.reference,
        reason=error.attributes['reason'],
        remedy='Check whether it can be reached',
    )
