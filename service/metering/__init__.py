"""What an answer uses, as it goes by: pure, without I/O."""
