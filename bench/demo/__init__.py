# SPDX-License-Identifier: Apache-2.0
"""The demonstration; tools/demo.sh calls it."""
