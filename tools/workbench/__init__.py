# SPDX-License-Identifier: GPL-2.0-only
"""The kernel patch workbench: from a kernel tag and a patch series to a verdict."""
