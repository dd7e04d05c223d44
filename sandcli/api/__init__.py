"""The library: one function for each command, callable from Python, from a notebook, and awaitable.

`sample(run, n=5)` blocks; `await sample.aio(run, n=5)` runs in the caller's event loop. The command line takes the
names, types, bounds and help of its options from these signatures. Nothing heavy is imported before a call.
"""
