"""Numbers of a run: one queue, one thread, many sinks.

    loop ── put(record), 1 µs ──▶ queue ──▶ one thread ──▶ jsonl (the record of truth) · console · …

    meter    turns the result of a step into a record          writer   the queue, the thread, and what happens to a sink that fails
    sink     what a sink is (two methods)                       jsonl    strict JSON lines, a file an attempt
    console  a live line on a terminal, plain lines elsewhere   read     all attempts of a run as one curve
"""
