"""Methods that misbehave, for tests."""
