# SPDX-License-Identifier: Apache-2.0
"""The engine: plans of boots, requests of operators, and maintenance."""
