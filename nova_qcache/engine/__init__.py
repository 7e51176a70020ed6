# SPDX-License-Identifier: Apache-2.0
"""What one boot is to use, what operators ask for, and what runs now and then."""
