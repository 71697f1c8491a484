"""Every lock of envsync. They are taken in one order, and none of a kind while another of that kind is held:

1. the environment lock (`environment_lock`): who syncs
2. the cache's gate, then the cache lock (`cache_lock`): who uses it, who cleans
3. a wheel's lock (`wheel_lock`): who fetches it; then a git repository's (`flock`, by `envsync.building.repositories`)
4. the in-use lock (`flock`, by `envsync.leading.in_use`): who runs

Imports what waiters may import, and leases only where flock does not work. Start reading at `flock`, then
`environment_lock`.
"""
