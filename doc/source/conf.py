# SPDX-License-Identifier: Apache-2.0
"""Sphinx configuration of the documentation."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))  # bench/ is not installed
from bench.compare import bars
from bench.compare import report
from bench.compare.sample import Results

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
exclude_patterns: list[str] = ["admin/faults_table.rst"]

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

# The tables of the published results, which their page includes.
_source = pathlib.Path(__file__).parent
_results = Results.read([_source / "benchmarks" / f"{name}.json" for name in ("results", "boots")])
report.write_tables(_results, bars.judge(_results), _source.parent / "build" / "benchmarks")
