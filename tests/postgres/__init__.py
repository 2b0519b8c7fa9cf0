"""A throw-away PostgreSQL server for the tests, and the databases that the registry's tests run on."""
