"""The run directory: layout, ledger, pulse, outcome, provenance. Free of torch."""
