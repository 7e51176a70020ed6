# SPDX-License-Identifier: Apache-2.0
"""What the engine cannot be made with."""

import pytest

from nova_qcache import exception
from nova_qcache.engine.host import Host
from tests.unit import builders


@pytest.mark.parametrize('options', [{'quota': 0}, {'cluster_size': 1}, {'cache_path': 'here'}])
def test_a_configuration_that_makes_no_sense(short_folder, options):
    with pytest.raises(exception.BadInput):
        Host(builders.config(short_folder, **options))
    assert not (short_folder / 'cache').exists()


def test_a_cache_folder_that_is_a_file(short_folder):
    (short_folder / 'cache').write_text('')
    with pytest.raises(exception.FolderUnfit, match='it is not a folder'):
        Host(builders.config(short_folder))
