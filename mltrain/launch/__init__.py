"""Where a run is started. Free of torch."""
