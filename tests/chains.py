# SPDX-License-Identifier: Apache-2.0
"""The chains below an overlay as they stand in the XML of a domain.

Written down for tests that have no Nova; a unit test of the driver makes sure that it writes the
same.
"""

__all__ = ['play', 'record']


def play(cache: object, base: object) -> str:
    return f"""<backingStore type='file'>
                 <format type='qcow2'/>
                 <source file='{cache}'><seclabel model='dac' relabel='no'/></source>
                 <backingStore type='file'>
                   <format type='raw'/>
                   <source file='{base}'><seclabel model='dac' relabel='no'/></source>
                   <backingStore/>
                 </backingStore>
               </backingStore>"""


def record(socket: object) -> str:
    return f"""<backingStore type='network'>
                 <format type='raw'/>
                 <source protocol='nbd' name='top'>
                   <host transport='unix' socket='{socket}'/>
                 </source>
                 <backingStore/>
               </backingStore>"""
