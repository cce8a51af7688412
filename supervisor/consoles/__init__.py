"""Consoles and logs: what VMMs, their guests and page servers write, in files that are bounded.

The supervisor's side: `outputs` makes the pipes that a process writes to, and takes them again of one that runs;
`handle` has `ConsoleHolder`, the holder as the supervisor knows it, and `program` starts it.

The holder's side, standard library only: `holder` is the process, one for each data directory; a `stream` is one pipe
of it, copied to a `bounded_file`.

Both sides: `rotation` says which file a position is in, and `reading` follows a log through its rotations.
"""
