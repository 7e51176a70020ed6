# SPDX-License-Identifier: Apache-2.0
"""The reads of a boot that bench/compare replays: from a log of nbdkit, and back from a file."""

import pytest

from bench.compare.trace import of_log
from bench.compare.trace import Read
from bench.compare.trace import Trace

# What nbdkit's log filter writes in front of a server that takes 10 ms for each read. The guest
# sent the second and the third together, and the fourth when one of these was answered.
LOG = """\
2026-01-01 12:00:00.000000 Ready thread_model=3
2026-01-01 12:00:00.000100 connection=1 Connect export="image" tls=0 size=0x100000 write=0
2026-01-01 12:00:00.500000 connection=1 Read id=1 offset=0x0 count=0x200 ...
2026-01-01 12:00:00.510000 connection=1 ...Read id=1 return=0
2026-01-01 12:00:00.760000 connection=1 Read id=2 offset=0x1000 count=0x8000 ...
2026-01-01 12:00:00.760010 connection=1 Flush id=3 ...
2026-01-01 12:00:00.760020 connection=1 ...Flush id=3 return=0
2026-01-01 12:00:00.760100 connection=1 Read id=4 offset=0xaf000 count=0x1000 ...
2026-01-01 12:00:00.770000 connection=1 ...Read id=4 return=0
2026-01-01 12:00:00.770050 connection=1 Read id=5 offset=0x10000 count=0x400 ...
2026-01-01 12:00:00.771000 connection=1 ...Read id=2 return=0
2026-01-01 12:00:00.780050 connection=1 ...Read id=5 return=0
2026-01-01 12:01:00.780050 connection=1 Read id=6 offset=0x10400 count=0x400 ...
2026-01-01 12:01:00.790050 connection=1 ...Read id=6 return=0
2026-01-01 12:01:00.800000 connection=1 Disconnect transactions=6
"""
SIX = Trace([Read(4096 * at, 512, burst=at, think=0.5) for at in range(6)])


def test_reads_of_a_log():
    assert of_log(LOG).extents() == [
        (0, 0x200),
        (0x1000, 0x8000),
        (0xAF000, 0x1000),
        (0x10000, 0x400),
        (0x10400, 0x400),
    ]


def test_reads_before_the_first_answer_are_one_burst():
    trace = of_log(LOG)
    assert [read.burst for read in trace.reads] == [0, 1, 1, 2, 3]
    assert trace.bursts == 4


def test_a_guest_thinks_while_no_read_is_on_its_way():
    assert [read.think for read in of_log(LOG).reads] == pytest.approx([0, 0.25, 0, 0, 60])
    assert of_log(LOG).think == pytest.approx(60.25)


def test_a_log_whose_last_read_has_no_answer():
    text = ''.join(LOG.splitlines(keepends=True)[:5])
    assert [read.length for read in of_log(text).reads] == [0x200, 0x8000]


def test_a_clock_that_was_set_back():
    text = LOG.replace('12:01:00', '11:00:00')
    assert of_log(text).reads[-1].think == 0


def test_a_log_without_reads():
    assert of_log('').reads == ()
    assert (of_log('').bytes, of_log('').bursts, of_log('').think) == (0, 0, 0)


def test_figures():
    trace = Trace([Read(0, 100, 0), Read(50, 100, 1), Read(60, 20, 2), Read(120, 30, 2)])
    assert (trace.bytes, trace.bursts) == (250, 3)
    assert trace.blocks(40, 130) == [(0, 40), (40, 40), (80, 40), (120, 10)]


def test_paced():
    trace = Trace([Read(0, 512, 0), Read(512, 512, 1, 3.0), Read(1024, 512, 2, 1.0)]).paced(2)
    assert trace.reads == (
        Read(0, 512, 0),
        Read(512, 512, 1, 1.5),
        Read(1024, 512, 2, 0.5),
    )


def test_no_think_time_cannot_be_paced():
    trace = Trace([Read(0, 512, 0)])
    assert trace.paced(10).reads == trace.reads


def test_thinned():
    assert SIX.thinned(2, block=2).extents() == [(0, 512), (4096, 512), (16384, 512), (20480, 512)]
    assert SIX.thinned(3, block=1).extents() == [(0, 512), (12288, 512)]
    assert SIX.thinned(1).reads == SIX.reads


def test_thinned_takes_whole_bursts_wherever_their_numbers_begin():
    numbers = (7, 7, 7, 9, 9, 12)
    trace = Trace([Read(at, 1, burst) for at, burst in enumerate(numbers)])
    assert [read.burst for read in trace.thinned(2, block=1).reads] == [7, 7, 7, 12]


def test_script():
    assert of_log(LOG).script().splitlines() == [
        'read -q 0 512',
        'aio_read -q 4096 32768',
        'aio_read -q 716800 4096',
        'aio_flush',
        'read -q 65536 1024',
        'read -q 66560 1024',
    ]


def test_script_with_think_time():
    assert of_log(LOG).script(think=True).splitlines() == [
        'read -q 0 512',
        'sleep 250',
        'aio_read -q 4096 32768',
        'aio_read -q 716800 4096',
        'aio_flush',
        'read -q 65536 1024',
        'sleep 60000',
        'read -q 66560 1024',
    ]


def test_a_burst_begins_when_its_last_read_would():
    trace = Trace([Read(0, 512, 0, 0.001), Read(512, 512, 0, 0.002)])
    assert trace.script(think=True).splitlines()[0] == 'sleep 3'


def test_less_than_a_millisecond_is_slept_later():
    trace = Trace([Read(0, 512, burst, 0.0007) for burst in range(6)])
    script = trace.script(think=True).splitlines()
    assert [at for at, line in enumerate(script) if line == 'sleep 1'] == [1, 3, 6, 8]
    assert len(script) == 10


def test_written_and_read(tmp_path):
    file = tmp_path / 'boot.trace'
    trace = of_log(LOG)
    trace.write(file)
    again = Trace.read(file)
    assert again.reads == trace.reads
    assert again.script(think=True) == trace.script(think=True)


@pytest.mark.parametrize(
    'line', ['0 512 0', '0 512 0 0 0', '0 512 0 0.5', 'offset length burst think', '']
)
def test_a_malformed_file(tmp_path, line):
    file = tmp_path / 'boot.trace'
    file.write_text(f'# reads\n0 512 0 0\n{line}\n512 512 1 0\n')
    with pytest.raises(ValueError, match=rf'{file}:3: .*microseconds.*: {line!r}$'):
        Trace.read(file)
