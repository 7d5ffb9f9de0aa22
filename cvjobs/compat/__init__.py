"""Private parts of other libraries, a module each; ``VERSIONS`` are those for which tests/test_compat.py has passed."""
