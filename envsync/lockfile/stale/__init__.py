"""Does a lock file have what its project asks for? Told without a resolution: no index, no build, no tool.

`comparing` begins it, and reads what is compared: for uv the requirements themselves (`by_requirements`, where
`equivalence` tells which are the same), for Poetry and PDM a hash of them (`by_hash`).
"""
