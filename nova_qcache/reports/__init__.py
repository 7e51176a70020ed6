# SPDX-License-Identifier: Apache-2.0
"""Reports for operators: snapshots, metrics, time series and pictures."""
