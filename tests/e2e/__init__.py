"""End-to-end tests: real nodes of the lab, over SSH."""

import pytest

# What these check is shown in full when it fails, as in a test itself.
pytest.register_assert_rewrite("tests.e2e.contract", "tests.e2e.wg_node", "tests.e2e.ansible_run")
