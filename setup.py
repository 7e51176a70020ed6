# SPDX-License-Identifier: Apache-2.0

import setuptools

# pbr takes the version from git's tags. Up to its 6.x it wants to be called from here; everything
# else about the package is in pyproject.toml.
setuptools.setup(setup_requires=["pbr>=6.1.1"], pbr=True)
