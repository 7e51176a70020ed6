# SPDX-License-Identifier: Apache-2.0
"""What ``tools/test.sh`` runs, once what it needs is installed.

``parts`` says what there is to run, ``lanes`` runs it, ``report`` adds up how the tests went.
"""
