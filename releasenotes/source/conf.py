# SPDX-License-Identifier: Apache-2.0
"""Sphinx configuration of the release notes."""

project = "nova-qcache release notes"
author = "nova-qcache developers"
# The notes cover all versions, so the title names none.
version = ""
release = ""

extensions = ["openstackdocstheme", "reno.sphinxext"]
exclude_patterns: list[str] = []

html_theme = "openstackdocs"
pygments_style = "native"
openstackdocs_auto_name = False
openstackdocs_auto_version = False
