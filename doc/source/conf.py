# SPDX-License-Identifier: Apache-2.0
"""Sphinx configuration of the documentation."""

project = "nova-qcache"
author = "nova-qcache developers"
version = ""
release = ""

extensions = ["openstackdocstheme"]
exclude_patterns: list[str] = ["admin/faults_table.rst", "benchmarks/results_*.rst"]

html_theme = "openstackdocs"
pygments_style = "native"
openstackdocs_auto_name = False
openstackdocs_auto_version = False
