"""Programs that edgekit runs on a device to look, to put files and to start things: Python 3.8, stdlib alone.

Each is one file with `main(arguments) -> exit status`, sent over standard input by `edgekit.devices.program`:
nothing of it stays on the device. It prints one line of JSON, progress on standard error, and a refusal as
`NAME: what is wrong; what to do`, with the exit statuses of `run.py`: 2 bad input, 4 outside, 5 check failed.
"""
