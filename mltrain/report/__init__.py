"""What a run was, for people. Free of torch."""
