"""Marks for tests on an event loop other than asyncio's own. The daemon runs on uvloop's."""

import pytest

on_uvloop = pytest.mark.asyncio(loop_factories=["uvloop"])
on_both_loops = pytest.mark.asyncio(loop_factories=["asyncio", "uvloop"])
