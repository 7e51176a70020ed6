# SPDX-License-Identifier: Apache-2.0
"""Sphinx configuration of the documentation."""

project = "nova-qcache"
author = "nova-qcache developers"
version = ""
release = ""

# The references of options and commands are made of the code: nova_qcache has to be installed.
extensions = [
    "cliff.sphinxext",
    "openstackdocstheme",
    "oslo_config.sphinxext",
    "sphinx.ext.graphviz",
]
exclude_patterns: list[str] = ["admin/faults_table.rst", "benchmarks/results_*.rst"]

autoprogram_cliff_application = "nova-qcache"
autoprogram_cliff_app_dist_name = "nova-qcache"
# What cliff gives to each command that prints is described once.
autoprogram_cliff_ignored = [
    "--help",
    "--fit-width",
    "--max-width",
    "--noindent",
    "--prefix",
    "--print-empty",
    "--quote",
    "--sort-ascending",
    "--sort-column",
    "--sort-descending",
]

graphviz_output_format = "svg"

html_theme = "openstackdocs"
pygments_style = "native"
openstackdocs_auto_name = False
openstackdocs_auto_version = False
