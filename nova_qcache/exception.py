# SPDX-License-Identifier: Apache-2.0
"""Errors of this project, as data.

An error is a sentence with holes and the values that fill them, which stay readable as attributes.
Each sentence names the offending value and what to do about it::

    QcacheError
     +-- BadInput              an argument or a part of the configuration is not valid
     |    +-- InvalidImageId, InvalidQuota, InvalidOption, InvalidBase, SocketPathTooLong
     +-- FileUnfit             a configuration file or log file cannot be used
     +-- FolderUnfit           the cache folder or the run folder cannot be used
     |    +-- NoReservation    its file system does not keep space for a recording
     |    +-- NoRoom           neither the budget nor eviction gives room for one
     |    +-- OverBudget       its caches take more than they may, and none can go
     +-- RecordBroken          a record file that cannot be read as one
     |    +-- RecordTooNew     ... since a newer version of the project wrote it
     +-- StatisticsBroken      a file of counters, or a time series, that cannot be read
     |    +-- StatisticsTooNew ... since a newer version of the project wrote it
     +-- CacheBroken           a cache file that is not what its record says
     +-- PinBroken             a pin's file that cannot be read; it counts as a pin
     +-- CacheNotFound, CacheNotReady, CacheInUse, NotPinned, NotSealed, WrongState
     +-- DomainsUnknown        libvirt does not tell what its domains use
     +-- GlanceUnknown         Glance does not tell which images are deleted
     +-- ToolError             a tool of qemu's
     |    +-- ToolMissing, ToolTooOld, ToolFailed, DriverMissing
     +-- OutputUnwritable      a file with metrics or a picture cannot be written
     |    +-- MetricsUnwritable, PictureUnwritable, PlottingMissing
     +-- DeadlinePassed        something took longer than it may
     |    +-- LockTimeout
     +-- RecorderError         the recorder of an image
          +-- RecorderBusy, RecorderFailed, RecorderUnreachable, TooManyRecorders
"""

from typing import Any, ClassVar


class QcacheError(Exception):
    """Root of all errors of this project; the values of the sentence are in ``attributes``."""

    template: ClassVar[str] = '{reason}'

    def __init__(self, **attributes: Any) -> None:
        self.attributes = attributes
        super().__init__(self.template.format(**attributes))

    def problem_and_remedy(self) -> tuple[str, str]:
        """Return the first sentence, and the others."""
        # Of the template: a value may have a full stop in it.
        problem, _, remedy = self.template.partition('. ')
        return problem.format(**self.attributes), remedy.format(**self.attributes)


def sentence(error: BaseException) -> str:
    """Return what is said of an error: to what the operating system says Python adds a number."""
    if not isinstance(error, OSError) or not error.strerror:
        return str(error) or repr(error)
    where = f' at {error.filename!r}' if error.filename else ''
    return f'nova-qcache failed{where}: {error.strerror}.'


class BadInput(QcacheError):
    """An argument or a part of the configuration is not valid."""


class InvalidImageId(BadInput):
    template = (
        '{image_id!r} is not an image ID. Give its UUID as `openstack image list` prints it.'
    )


class InvalidQuota(BadInput):
    template = 'A quota of {quota} bytes {reason}. Set [qcache] quota (MiB) {remedy}.'


class InvalidOption(BadInput):
    template = '[qcache] {option} = {value}: {reason}. {remedy}.'


class InvalidBase(BadInput):
    template = 'The base {base!r} cannot be cached: {reason}. {remedy}.'


class SocketPathTooLong(BadInput):
    template = (
        'The socket path {path!r} has {length} bytes, but the kernel allows 107. '
        'Set [qcache] run_path to a folder with a shorter name.'
    )


class FileUnfit(QcacheError):
    template = '{what} {path!r} cannot be used: {reason}. {remedy}.'


class FolderUnfit(QcacheError):
    template = 'The folder {path!r} cannot be used: {reason}. {remedy}.'


class NoReservation(FolderUnfit):
    template = 'Cannot reserve space for a recording in {path!r}: {reason}. {remedy}.'


class NoRoom(FolderUnfit):
    template = 'No room for another cache in {path!r}: {reason}. {remedy}.'


class OverBudget(FolderUnfit):
    template = 'The caches in {path!r} exceed their limits by {excess} bytes: {reason}. {remedy}.'


class RecordBroken(QcacheError):
    template = (
        'The record {path!r} cannot be read: {reason}. Its cache is not used; '
        '`nova-qcache remove {image_id}` removes it.'
    )


class RecordTooNew(RecordBroken):
    template = (
        'The record {path!r} has version {version}, but this nova-qcache reads up to {known}. '
        'Its cache is not used; upgrade nova-qcache, or remove the cache with '
        '`nova-qcache remove {image_id}`.'
    )


class StatisticsBroken(QcacheError):
    template = (
        'The statistics {path!r} cannot be read: {reason}. The next boot or run of the image '
        'cache manager starts new ones.'
    )


class StatisticsTooNew(StatisticsBroken):
    template = (
        'The statistics {path!r} have version {version}, but this nova-qcache reads up to '
        '{known}. They are kept, and nothing is added to them; upgrade nova-qcache.'
    )


class CacheBroken(QcacheError):
    template = (
        'The cache file {path!r} cannot be used: {reason}. '
        'If a revalidation finds it damaged, the next boot records it again; '
        '`nova-qcache remove {image_id}` removes it now.'
    )


class PinBroken(QcacheError):
    template = (
        'The pin {path!r} cannot be read: {reason}. Its image counts as pinned; '
        '`nova-qcache unpin {image_id}` ends that.'
    )


class CacheNotFound(QcacheError):
    template = 'This host has no cache of image {image_id}. `nova-qcache list` shows its caches.'


class CacheNotReady(QcacheError):
    template = 'The cache of image {image_id} is {state}: {reason}. {remedy}.'


class NotSealed(QcacheError):
    template = 'The cache of image {image_id} was not sealed: {reason}'


class CacheInUse(QcacheError):
    template = 'The cache {path!r} is in use: {reason}. {remedy}.'


class NotPinned(QcacheError):
    template = (
        'Image {image_id} is not pinned on this host. `nova-qcache stats` shows pinned images.'
    )


class DomainsUnknown(QcacheError):
    template = (
        'Cannot determine which files the domains at {uri} use: {reason}. '
        'Check libvirt, set [qcache] libvirt_uri, or add --force.'
    )


class GlanceUnknown(QcacheError):
    template = (
        'Cannot determine which images are deleted, with the credentials in [{section}]: '
        '{reason}. {remedy}.'
    )


class WrongState(QcacheError):
    template = 'The cache of image {image_id} is {state} and cannot become {wanted}. {remedy}.'


class ToolError(QcacheError):
    """A tool of qemu's is missing, unfit or failed."""


class ToolMissing(ToolError):
    template = (
        '{tool!r} cannot be run: {reason}. Install {package} or set [qcache] {option} to its path.'
    )


class ToolTooOld(ToolError):
    template = '{tool!r} is version {version}, but {needed} or newer is needed. Upgrade {package}.'


class ToolFailed(ToolError):
    template = '{command!r} failed with code {code}: {reason}'


class DriverMissing(ToolError):
    template = (
        '{tool!r} was built without the block driver {driver!r}, which {purpose} needs. '
        'Install a qemu that has it; until then boots are plain.'
    )


class OutputUnwritable(QcacheError):
    """A file with metrics or a picture cannot be written."""


class MetricsUnwritable(OutputUnwritable):
    template = (
        'The metrics file {path!r} cannot be written: {reason}. Make its folder and give it to '
        'the user that nova-compute runs as, or name another file ([qcache] metrics_file).'
    )


class PictureUnwritable(OutputUnwritable):
    template = 'The picture {path!r} cannot be written: {reason}. {remedy}.'


class PlottingMissing(OutputUnwritable):
    template = (
        'matplotlib, which draws pictures, cannot be used: {reason}. '
        'Install it with `pip install matplotlib` where nova-qcache is installed.'
    )


class DeadlinePassed(QcacheError):
    template = '{what} took longer than {seconds} s. {remedy}.'


class LockTimeout(DeadlinePassed):
    template = (
        'The lock {name!r} in {path!r} was not free within {seconds} s. '
        '`lslocks` shows which process holds it.'
    )


class RecorderError(QcacheError):
    """The recorder of an image cannot do what was asked."""


class RecorderBusy(RecorderError):
    template = (
        'Another recorder of image {image_id} is at work (lock {name!r}). '
        'Nothing to do: it serves its guests.'
    )


class RecorderFailed(RecorderError):
    template = 'The recorder of image {image_id} did not start: {reason}'


class TooManyRecorders(RecorderError):
    template = (
        '{count} caches are being recorded on this host, and [qcache] max_recorders is {most}. '
        'Boot again once one of them is sealed, or raise max_recorders.'
    )


class RecorderUnreachable(RecorderError):
    template = 'No recorder answers at {path!r}: {reason}. `nova-qcache record` starts one.'
