"""One thin adaptor a peer: the same model, batches, optimizer and number of steps, driven by somebody's loop."""
