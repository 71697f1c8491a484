"""For programs that look after environments and caches: what `status`, `check`, `env` and `cache` do, as functions.

What programs may rely on is what `envsync` exports of it. Start reading at `looking`.
"""
