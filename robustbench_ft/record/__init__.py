"""Files of a record: written atomically, read back and checked without torch."""
