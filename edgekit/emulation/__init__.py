"""Boards imitated on this machine: a container of their architecture, run by QEMU behind binfmt_misc."""
