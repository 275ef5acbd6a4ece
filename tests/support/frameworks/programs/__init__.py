"""Programs and test suites that run in the frameworks' environments."""
