# SPDX-License-Identifier: Apache-2.0
"""What operators see: figures, metrics, their history and pictures of it."""
