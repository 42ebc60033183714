"""Public: contract suites to inherit, faults to inject, functions run on N ranks."""
