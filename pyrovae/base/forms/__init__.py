"""What a record can be written as: tables of text, groups of named arrays."""
