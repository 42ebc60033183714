"""Checkpoints that cost a copy in memory, survive whatever dies, and fit any number of ranks. Usable alone in anybody's loop.

    checkpointer  the face: save, restore, list, verify, wait             planner   who writes which rows (no message between ranks)
    snapshot      two reused memory buffers, each the image of a shard    shard     the safetensors header, within limits
    writer        hashes, writes, commits; a process that outlives the trainer (launcher starts it)
    manifest      what a committed step consists of; its own digest       catalog   list, verify, digest: no torch
    restore       all ranks agree on a step and read it (reader)          retention what may be deleted
    storage       a folder or any fsspec URL
"""
