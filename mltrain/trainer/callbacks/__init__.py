"""Ready callbacks, one a file."""
