# SPDX-License-Identifier: GPL-2.0-only
"""One verb of the command line per file; found by the directory listing."""
