"""In engines that run tasks: each module puts envsync at the extension point of one engine, and imports that when used.

For programs that wrap no process by themselves. docs/runners.md says for each engine which line to write.
"""
